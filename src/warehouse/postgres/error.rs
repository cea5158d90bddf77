//! What an error of PostgreSQL or of the driver means to the lane: one table.

use std::sync::Arc;

use sqlx::postgres::{PgDatabaseError, PgSeverity, Postgres};
use sqlx::{Error, Transaction};

use super::COMMIT;
use crate::warehouse::WarehouseError;

/// Why a transaction ended without a commit.
#[derive(Debug)]
pub(super) enum Failure {
    /// For the lane to judge.
    Final(WarehouseError),
    /// Two transactions got in each other's way and nothing happened: begin again.
    Again(Arc<str>),
}

impl From<WarehouseError> for Failure {
    fn from(error: WarehouseError) -> Self {
        Failure::Final(error)
    }
}

impl From<Failure> for WarehouseError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) => error,
            Failure::Again(reason) => WarehouseError::Unavailable(reason),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text: Arc<str> = error.to_string().into();
        Failure::Final(match &error {
            Error::Database(database) => {
                return match database.try_downcast_ref::<PgDatabaseError>() {
                    Some(error) => judge(error, text),
                    None => Failure::Final(WarehouseError::Inconsistent(text)),
                };
            }
            Error::Encode(_) => WarehouseError::Rejected(text),
            Error::Decode(_)
            | Error::ColumnDecode { .. }
            | Error::ColumnNotFound(_)
            | Error::ColumnIndexOutOfBounds { .. }
            | Error::TypeNotFound { .. }
            | Error::RowNotFound => WarehouseError::Inconsistent(text),
            // Pool closed or exhausted, the connection lost, the server's answer cut short.
            _ => WarehouseError::Unavailable(text),
        })
    }
}

/// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn judge(error: &PgDatabaseError, text: Arc<str>) -> Failure {
    let code = error.code();
    Failure::Final(match (code, code.get(..2).unwrap_or_default()) {
        // serialization_failure, deadlock_detected
        ("40001" | "40P01", _) => return Failure::Again(text),
        // Another batch remembered the same event.
        ("23505", _) if error.constraint() == Some("event_seen_pkey") => return Failure::Again(text),
        // A row without a partition: one that we knew was dropped by the retention.
        ("23514", _) if error.constraint().is_none() => return Failure::Again(text),
        // lock_not_available, query_canceled, read_only_sql_transaction (a former primary)
        ("55P03" | "57014" | "25006", _) => WarehouseError::Unavailable(text),
        // connection, authorization, rollback, resources, operator intervention, system error
        (_, "08" | "28" | "40" | "53" | "57" | "58") => WarehouseError::Unavailable(text),
        // data, constraint, limit
        (_, "22" | "23" | "54") => WarehouseError::Rejected(text),
        // syntax or access, invalid state, internal and whatever is new: this build and the schema disagree
        _ => WarehouseError::Inconsistent(text),
    })
}

/// Commits. Only the server's own refusal says that the rows are not there; a lost connection says nothing.
pub(super) async fn commit(tx: Transaction<'_, Postgres>) -> Result<(), Failure> {
    let error = match tokio::time::timeout(COMMIT, tx.commit()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => return Err(WarehouseError::Unknown("no answer to the commit".into()).into()),
    };
    let refused = error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| {
            error.severity() == PgSeverity::Error && matches!(error.code().get(..2), Some("23" | "40"))
        });
    if refused {
        return Err(error.into());
    }
    Err(WarehouseError::Unknown(error.to_string().into()).into())
}

/// Whether the server could not be reached, or is not ready yet: what passes by itself.
pub(super) fn is_unreachable(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut => true,
        Error::Database(database) => {
            matches!(
                database.code().as_deref(),
                Some("57P01" | "57P02" | "57P03" | "53300")
            )
        }
        _ => false,
    }
}

/// Whether somebody else had locked what was not to be waited for.
pub(super) fn is_locked(error: &Error) -> bool {
    // lock_not_available
    matches!(error, Error::Database(database) if database.code().as_deref() == Some("55P03"))
}

/// A number of ours as PostgreSQL's signed integer.
pub(super) fn integer(number: u64) -> Result<i64, WarehouseError> {
    i64::try_from(number)
        .map_err(|_| WarehouseError::Rejected(format!("{number} is too large to store").into()))
}

/// A stored number that is never negative.
pub(super) fn natural<N: TryFrom<i64>>(number: i64) -> Result<N, WarehouseError> {
    N::try_from(number).map_err(|_| WarehouseError::Inconsistent(format!("stored number {number}").into()))
}
