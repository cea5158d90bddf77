//! What an error of SQLite or of the driver means to the lane: one table.

use std::sync::Arc;

use sqlx::{Sqlite, Transaction};

use crate::warehouse::WarehouseError;

impl From<sqlx::Error> for WarehouseError {
    fn from(error: sqlx::Error) -> Self {
        let text: Arc<str> = error.to_string().into();
        match &error {
            sqlx::Error::Database(database) => {
                let code = database
                    .code()
                    .and_then(|code| code.parse::<i32>().ok())
                    .unwrap_or(1);
                // The low byte is the primary result code: https://www.sqlite.org/rescode.html
                match code & 0xff {
                    // busy, locked, nomem, readonly, interrupt, ioerr, full, cantopen, protocol
                    5..=10 | 13..=15 => WarehouseError::Unavailable(text),
                    // toobig, constraint, mismatch, range
                    18..=20 | 25 => WarehouseError::Rejected(text),
                    // error, corrupt, schema, notadb and whatever is new: this build and the file disagree
                    _ => WarehouseError::Inconsistent(text),
                }
            }
            sqlx::Error::Encode(_) => WarehouseError::Rejected(text),
            sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::RowNotFound => WarehouseError::Inconsistent(text),
            // Pool closed or exhausted, the connection's thread gone, I/O.
            _ => WarehouseError::Unavailable(text),
        }
    }
}

/// Whether the file is no database at all, or one whose first pages are damaged.
pub(super) fn is_foreign(error: &dyn sqlx::error::DatabaseError) -> bool {
    // SQLITE_NOTADB, SQLITE_CORRUPT
    error.code().is_some_and(|code| ["26", "11"].contains(&&*code))
}

/// Commits; a failure says nothing about whether the rows are there.
pub(super) async fn commit(tx: Transaction<'_, Sqlite>) -> Result<(), WarehouseError> {
    tx.commit()
        .await
        .map_err(|error| WarehouseError::Unknown(error.to_string().into()))
}

/// A number of ours as SQLite's signed integer.
pub(super) fn integer(number: u64) -> Result<i64, WarehouseError> {
    i64::try_from(number)
        .map_err(|_| WarehouseError::Rejected(format!("{number} is too large to store").into()))
}

/// A stored number that is never negative.
pub(super) fn natural(number: i64) -> Result<u64, WarehouseError> {
    u64::try_from(number).map_err(|_| WarehouseError::Inconsistent(format!("stored number {number}").into()))
}
