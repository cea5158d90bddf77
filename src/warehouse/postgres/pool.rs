//! Connections, and how long is waited for them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection};

use super::error::Failure;
use crate::warehouse::WarehouseError;

/// A connection idle for longer is asked for a sign of life before it is used: a restarted server must not cost one
/// failed look-up per connection, and a ping each time would double the time of every look-up.
const PING_AFTER: Duration = Duration::from_secs(1);

/// How long a connection may take to answer once it is given back, a rollback included. Beyond it the line is taken
/// for dead and dropped, long before TCP would notice.
const RELEASE: Duration = Duration::from_secs(5);

/// Runs `work` for no longer than `limit`; a server that hangs must not hang its clients.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, WarehouseError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(WarehouseError::Unavailable(
            format!("no answer within {} s", limit.as_secs()).into(),
        )),
    }
}

pub(super) fn pool(connections: u32, acquire: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(acquire)
        .test_before_acquire(false)
        .after_release(|conn, _| {
            Box::pin(async move {
                let answer = tokio::time::timeout(RELEASE, is_in_step(conn)).await;
                answer.map_err(|_| sqlx::Error::PoolTimedOut)?
            })
        })
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                if meta.idle_for > PING_AFTER {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
}

/// Whether a connection answers what it is asked. One that was given back in the middle of a `copy` may be left in a transaction
/// that failed, or be an answer behind: the driver does not count what the server says when a `copy` breaks off, and would take the
/// answer to one statement for that to the next, to a commit in the end.
async fn is_in_step(conn: &mut PgConnection) -> sqlx::Result<bool> {
    static ASKED: AtomicI64 = AtomicI64::new(0);
    let number = ASKED.fetch_add(1, Ordering::Relaxed);
    let same = sqlx::query_scalar::<_, i64>("select $1::bigint").bind(number);
    Ok(same.fetch_one(conn).await? == number)
}
