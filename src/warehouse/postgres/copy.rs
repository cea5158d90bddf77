//! Rows on their way in by `copy … from stdin (format binary)`: the server forms no plan and writes whole pages of rows at once.
//!
//! Format: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>

use sqlx::PgConnection;

use super::error::Failure;
use super::rows::{Day, Instant};
use crate::warehouse::WarehouseError;

/// Sent at once; while the server takes one piece in the next is encoded. Larger: it waits longer for the first. Smaller: more
/// system calls.
const PIECE: usize = 128 << 10;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: i16 = -1;
const NULL: i32 = -1;

/// The rows of one piece.
#[derive(Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    too_large: bool,
}

impl Rows {
    pub(super) fn start(&mut self, columns: i16) {
        self.bytes.extend_from_slice(&columns.to_be_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.field(text.as_bytes());
    }

    pub(super) fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.bytes.extend_from_slice(&NULL.to_be_bytes()),
        }
    }

    pub(super) fn int(&mut self, number: i32) {
        self.field(&number.to_be_bytes());
    }

    pub(super) fn bigint(&mut self, number: i64) {
        self.field(&number.to_be_bytes());
    }

    pub(super) fn instant(&mut self, instant: Instant) -> Result<(), WarehouseError> {
        self.bigint(instant.micros().map_err(rejected)?);
        Ok(())
    }

    pub(super) fn day(&mut self, day: Day) -> Result<(), WarehouseError> {
        self.int(day.since_epoch().map_err(rejected)?);
        Ok(())
    }

    fn field(&mut self, bytes: &[u8]) {
        match i32::try_from(bytes.len()) {
            Ok(len) => {
                self.bytes.extend_from_slice(&len.to_be_bytes());
                self.bytes.extend_from_slice(bytes);
            }
            Err(_) => self.too_large = true,
        }
    }
}

fn rejected(reason: String) -> WarehouseError {
    WarehouseError::Rejected(reason.into())
}

/// Runs the `copy` statement over `rows`, each of which `encode` adds to a piece.
pub(super) async fn copy<R: Sync>(
    conn: &mut PgConnection,
    statement: &str,
    rows: &[R],
    encode: impl Fn(&R, &mut Rows) -> Result<(), WarehouseError> + Send,
) -> Result<(), Failure> {
    let mut piece = Rows::default();
    let mut rest = rows.iter();
    // The first piece before the statement: what cannot be encoded leaves the connection as it is.
    piece.bytes.extend_from_slice(SIGNATURE);
    let mut more = fill(&mut piece, &mut rest, &encode)?;
    let mut copying = conn.copy_in_raw(statement).await?;
    loop {
        if !more {
            piece.bytes.extend_from_slice(&END.to_be_bytes());
        }
        copying.send(&*piece.bytes).await?;
        if !more {
            break;
        }
        piece.bytes.clear();
        more = match fill(&mut piece, &mut rest, &encode) {
            Ok(more) => more,
            Err(error) => {
                copying.abort("a row cannot be encoded").await?;
                return Err(error.into());
            }
        };
    }
    copying.finish().await?;
    Ok(())
}

/// Fills the piece; whether rows are left.
fn fill<R>(
    piece: &mut Rows,
    rest: &mut std::slice::Iter<'_, R>,
    encode: &impl Fn(&R, &mut Rows) -> Result<(), WarehouseError>,
) -> Result<bool, WarehouseError> {
    while piece.bytes.len() < PIECE {
        let Some(row) = rest.next() else {
            return Ok(false);
        };
        encode(row, piece)?;
        if piece.too_large {
            return Err(rejected("a field of over 2 GiB".to_owned()));
        }
    }
    Ok(!rest.as_slice().is_empty())
}
