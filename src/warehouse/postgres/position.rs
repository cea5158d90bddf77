//! `position`: how far each partition of the log is applied.

use sqlx::PgConnection;

use super::error::{Failure, integer, natural};
use super::rows::Instant;
use crate::domain::ids::Timestamp;
use crate::warehouse::{StoredPosition, WarehouseError};

/// The partition's row, locked until the transaction ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locked {
    /// `None` before the first batch.
    pub(super) found: Option<StoredPosition>,
    /// Of the partition's latest change of a profile.
    pub(super) change_seq: i64,
}

pub(super) async fn read(conn: &mut PgConnection, partition: u16) -> Result<Option<StoredPosition>, Failure> {
    let row = sqlx::query!(
        r#"select log_id::text as "log_id!", next_offset from position where partition = $1"#,
        i32::from(partition)
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| stored(partition, &row.log_id, row.next_offset))
        .transpose()
}

/// The greatest change number that the partition has given; 0 before the first.
pub(super) async fn change_seq(conn: &mut PgConnection, partition: u16) -> Result<u64, Failure> {
    let row = sqlx::query!(
        "select change_seq from position where partition = $1",
        i32::from(partition)
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or(Ok(0), |row| natural(row.change_seq))?)
}

fn stored(partition: u16, log_id: &str, offset: i64) -> Result<StoredPosition, Failure> {
    let log_id = log_id.parse().map_err(|error| {
        WarehouseError::Inconsistent(format!("log id of partition {partition}: {error}").into())
    })?;
    Ok(StoredPosition {
        log_id,
        partition,
        offset: natural(offset)?,
    })
}

/// Locks the row of the partition, inserting it where it is absent: from here on nobody else moves it.
pub(super) async fn lock(
    conn: &mut PgConnection,
    next: StoredPosition,
    now: Timestamp,
) -> Result<Locked, Failure> {
    if let Some(locked) = lock_stored(conn, next.partition).await? {
        return Ok(locked);
    }
    let inserted = sqlx::query!(
        "insert into position (partition, log_id, next_offset, change_seq, updated_at)
         values ($1, $2::text::uuid, $3, 0, $4) on conflict do nothing",
        i32::from(next.partition),
        next.log_id.to_string(),
        integer(next.offset)?,
        Instant(now) as _
    )
    .execute(&mut *conn)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Locked {
            found: None,
            change_seq: 0,
        });
    }
    // Another worker was first.
    lock_stored(conn, next.partition)
        .await?
        .ok_or_else(|| Failure::Again("the position came and went".into()))
}

async fn lock_stored(conn: &mut PgConnection, partition: u16) -> Result<Option<Locked>, Failure> {
    let row = sqlx::query!(
        r#"select log_id::text as "log_id!", next_offset, change_seq from position where partition = $1 for update"#,
        i32::from(partition)
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(Locked {
            found: Some(stored(partition, &row.log_id, row.next_offset)?),
            change_seq: row.change_seq,
        })
    })
    .transpose()
}

/// Moves the locked row.
pub(super) async fn store(
    conn: &mut PgConnection,
    next: StoredPosition,
    change_seq: i64,
    now: Timestamp,
) -> Result<(), Failure> {
    sqlx::query!(
        "update position set log_id = $2::text::uuid, next_offset = $3, change_seq = $4, updated_at = $5
         where partition = $1",
        i32::from(next.partition),
        next.log_id.to_string(),
        integer(next.offset)?,
        change_seq,
        Instant(now) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}
