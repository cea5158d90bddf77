//! Connections, and how long is waited for them.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgPoolOptions;

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
                let answer = tokio::time::timeout(RELEASE, conn.ping()).await;
                answer.map_err(|_| sqlx::Error::PoolTimedOut)??;
                Ok(true)
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
