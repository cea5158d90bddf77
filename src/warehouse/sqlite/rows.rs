//! Statements over many rows at once.
//!
//! - **Writing**: `insert … values (…), (…), …` in a few fixed sizes, so that each size is prepared once. Values are
//!   bound, not spelled as JSON: blobs and bodies would have to be escaped and parsed again.
//! - **Reading**: the keys go in as one JSON array, `json_each(?1)`. Where many rows are expected they come back in one
//!   as well, `json_group_array(json_array(…))`: each row handed over wakes the reading thread, and on one core that
//!   switches threads twice.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Row as _, Sqlite, Type};

use crate::domain::ids::{Shop, Stamp, SubjectId, Timestamp};
use crate::domain::transform::Rank;
use crate::warehouse::WarehouseError;

/// The numbers of rows per statement, greatest first. Sixty-four spread the round trip to the connection's thread
/// thinly enough, and keep the program and its values within the processor's second cache.
const SIZES: [usize; 3] = [64, 8, 1];

/// An insert: the text before the rows, the columns of a row, the text after the rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Insert {
    pub(super) into: &'static str,
    pub(super) columns: usize,
    pub(super) then: &'static str,
}

/// The values of one statement, in order.
#[derive(Default)]
pub(super) struct Values {
    arguments: SqliteArguments,
    failed: Option<sqlx::error::BoxDynError>,
}

impl Values {
    pub(super) fn push<'v, T: Encode<'v, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.failed.get_or_insert(error);
        }
        self
    }

    pub(super) fn push_shared(&mut self, text: &Arc<str>) -> &mut Self {
        self.push(Arc::clone(text))
    }

    pub(super) fn push_shop(&mut self, shop: &Shop) -> &mut Self {
        self.push(Arc::<str>::from(shop))
    }

    pub(super) fn push_subject(&mut self, subject: Option<&SubjectId>) -> &mut Self {
        self.push(subject.map(Arc::<str>::from))
    }

    pub(super) fn push_rank(&mut self, rank: &Rank) -> &mut Self {
        self.push(rank.verified)
            .push_time(rank.stamp.time)
            .push_shared(&rank.stamp.event_id)
    }

    /// Two columns: time and event.
    pub(super) fn push_stamp(&mut self, stamp: Option<&Stamp>) -> &mut Self {
        self.push(stamp.map(|stamp| stamp.time.0))
            .push(stamp.map(|stamp| Arc::clone(&stamp.event_id)))
    }

    pub(super) fn push_time(&mut self, time: Timestamp) -> &mut Self {
        self.push(time.0)
    }
}

impl Insert {
    /// Inserts `rows`; returns how many were inserted or updated.
    pub(super) async fn run<T: Sync>(
        &self,
        conn: &mut SqliteConnection,
        rows: &[T],
        mut bind: impl FnMut(&T, &mut Values) + Send,
    ) -> Result<u64, WarehouseError> {
        let mut changed = 0;
        let mut rest = rows;
        while !rest.is_empty() {
            let (sql, values, after) = self.next(rest, &mut bind)?;
            changed += sqlx::query_with(sql, values)
                .execute(&mut *conn)
                .await?
                .rows_affected();
            rest = after;
        }
        Ok(changed)
    }

    fn next<'r, T>(
        &self,
        rows: &'r [T],
        bind: &mut impl FnMut(&T, &mut Values),
    ) -> Result<(AssertSqlSafe<String>, SqliteArguments, &'r [T]), WarehouseError> {
        let size = SIZES.into_iter().find(|size| *size <= rows.len()).unwrap_or(1);
        let (now, after) = rows.split_at(size.min(rows.len()));
        let mut values = Values::default();
        values.arguments.reserve(size * self.columns, 0);
        for row in now {
            bind(row, &mut values);
        }
        debug_assert_eq!(values.arguments.len(), now.len() * self.columns, "{}", self.into);
        match values.failed {
            Some(error) => Err(WarehouseError::Rejected(error.to_string().into())),
            None => Ok((AssertSqlSafe(self.text(size)), values.arguments, after)),
        }
    }

    fn text(&self, rows: usize) -> String {
        let mut row = String::with_capacity(self.columns * 2 + 2);
        for column in 0..self.columns {
            row.push(if column == 0 { '(' } else { ',' });
            row.push('?');
        }
        row.push(')');
        let mut sql = String::with_capacity(self.into.len() + rows * (row.len() + 1) + self.then.len() + 16);
        sql.push_str(self.into);
        for at in 0..rows {
            sql.push_str(if at == 0 { " values " } else { "," });
            sql.push_str(&row);
        }
        sql.push(' ');
        sql.push_str(self.then);
        sql
    }
}

/// A stored shop.
pub(super) fn shop(row: &SqliteRow, column: &str) -> Result<Shop, WarehouseError> {
    let text: String = row.try_get(column)?;
    Shop::try_from(text).map_err(|error| WarehouseError::Inconsistent(error.to_string().into()))
}

pub(super) fn shared(row: &SqliteRow, column: &str) -> Result<Arc<str>, WarehouseError> {
    Ok(row.try_get::<&str, _>(column)?.into())
}

pub(super) fn optional(row: &SqliteRow, column: &str) -> Result<Option<Arc<str>>, WarehouseError> {
    Ok(row.try_get::<Option<&str>, _>(column)?.map(Into::into))
}

pub(super) fn subject(row: &SqliteRow, column: &str) -> Result<SubjectId, WarehouseError> {
    Ok(SubjectId::from_stored(row.try_get(column)?))
}

pub(super) fn rank(row: &SqliteRow) -> Result<Rank, WarehouseError> {
    let stamp = Stamp {
        time: Timestamp(row.try_get("event_time")?),
        event_id: shared(row, "event_id")?,
    };
    Ok(Rank {
        verified: row.try_get("verified")?,
        stamp,
    })
}

/// The stamp in two columns that are null together.
pub(super) fn stamp(row: &SqliteRow, time: &str, event: &str) -> Result<Option<Stamp>, WarehouseError> {
    let time: Option<i64> = row.try_get(time)?;
    let stamp = time.zip(optional(row, event)?);
    Ok(stamp.map(|(time, event_id)| Stamp {
        time: Timestamp(time),
        event_id,
    }))
}

/// Keys as the JSON array that `json_each(?1)` takes apart.
pub(super) fn json<K: Serialize + ?Sized>(keys: &K) -> Result<String, WarehouseError> {
    serde_json::to_string(keys).map_err(|error| WarehouseError::Rejected(error.to_string().into()))
}

/// Keys per [`fetch_packed`] statement, so that no answer is longer than some hundred KiB.
const PACKED: usize = 128;

/// Reads the rows of `keys` by a statement that takes them as `json_each(?1)` and answers with one JSON array.
pub(super) async fn fetch_packed<K: Serialize + Sync, T: DeserializeOwned + Send>(
    conn: &mut SqliteConnection,
    sql: &'static str,
    keys: &[K],
) -> Result<Vec<T>, WarehouseError> {
    let mut rows = Vec::new();
    for keys in keys.chunks(PACKED) {
        let packed: String = sqlx::query_scalar(sql)
            .bind(json(keys)?)
            .fetch_one(&mut *conn)
            .await?;
        let mut unpacked: Vec<T> = serde_json::from_str(&packed).map_err(|error| {
            WarehouseError::Inconsistent(format!("{error} in the answer to {sql}").into())
        })?;
        rows.append(&mut unpacked);
    }
    Ok(rows)
}

/// The bytes that SQLite's `hex()` spelled.
pub(super) fn unhex(text: &str) -> Result<Vec<u8>, WarehouseError> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    // Ors every digit's flag, so that the loop has no branch.
    let mut flags = 0;
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    for [high, low] in pairs {
        let (high, low) = (HEX[usize::from(*high)], HEX[usize::from(*low)]);
        flags |= high | low;
        bytes.push(high << 4 | low & 0xf);
    }
    if flags & NO_DIGIT == 0 && rest.is_empty() {
        Ok(bytes)
    } else {
        Err(WarehouseError::Inconsistent("a blob that is not in hex".into()))
    }
}

/// Set where a byte is no hexadecimal digit.
const NO_DIGIT: u8 = 0x80;

/// The value of each upper-case hexadecimal digit.
const HEX: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_one_placeholder_per_value() {
        let insert = Insert {
            into: "insert into t (a, b)",
            columns: 2,
            then: "on conflict do nothing",
        };
        assert_eq!(
            insert.text(1),
            "insert into t (a, b) values (?,?) on conflict do nothing"
        );
        assert_eq!(
            insert.text(3),
            "insert into t (a, b) values (?,?),(?,?),(?,?) on conflict do nothing"
        );
    }

    #[test]
    fn hex_is_read_back() {
        assert_eq!(unhex("00FFa0".to_uppercase().as_str()).unwrap(), [0, 255, 160]);
        assert!(unhex("0").is_err() && unhex("0G").is_err());
    }
}
