//! `warehouse_meta`: facts about the warehouse as a whole.

use sqlx::PgConnection;

pub(super) const KEY_CHECK_VALUE: &str = "key_check_value";
const EPOCH: &str = "epoch";

/// Stores `value` under `key` unless one is there; returns the one in force.
pub(super) async fn remember(conn: &mut PgConnection, key: &str, value: &str) -> Result<String, sqlx::Error> {
    sqlx::query!(
        "insert into warehouse_meta (key, value) values ($1, $2) on conflict do nothing",
        key,
        value
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!("select value from warehouse_meta where key = $1", key)
        .fetch_one(conn)
        .await
}

/// The epoch of this life of the warehouse, drawn when there is none.
pub(super) async fn epoch(conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let drawn =
        getrandom::u64().map_err(|error| sqlx::Error::Io(std::io::Error::other(error.to_string())))?;
    // 53 bits survive every JSON reader; zero is the version of a document that was never stored.
    let epoch = remember(conn, EPOCH, &((drawn >> 11) | 1).to_string()).await?;
    epoch
        .parse()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// The epoch as stored; `None` where none was drawn.
pub(super) async fn stored_epoch(conn: &mut PgConnection) -> Result<Option<u64>, sqlx::Error> {
    let stored = sqlx::query_scalar!("select value from warehouse_meta where key = $1", EPOCH)
        .fetch_optional(conn)
        .await?;
    let parsed = stored.map(|epoch| epoch.parse());
    parsed
        .transpose()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
