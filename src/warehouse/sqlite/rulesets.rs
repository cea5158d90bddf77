//! `ruleset`: every ruleset that was ever in force.

use sqlx::sqlite::SqliteConnection;

use super::error::natural;
use crate::domain::ids::Timestamp;
use crate::warehouse::{StoredRuleset, WarehouseError};

pub(super) async fn newest(conn: &mut SqliteConnection) -> Result<Option<StoredRuleset>, WarehouseError> {
    let row: Option<(i64, String, i64)> =
        sqlx::query_as("select version, source, created_at from ruleset order by version desc limit 1")
            .fetch_optional(conn)
            .await?;
    row.map(|(version, source, created_at)| {
        Ok(StoredRuleset {
            version: natural(version)?,
            source: source.into(),
            created_at: Timestamp(created_at),
        })
    })
    .transpose()
}

/// Stores `source` under the next version.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    source: &str,
    now: Timestamp,
) -> Result<StoredRuleset, WarehouseError> {
    let version: i64 = sqlx::query_scalar(
        "insert into ruleset (version, source, created_at)
         select coalesce(max(version), 0) + 1, ?1, ?2 from ruleset
         returning version",
    )
    .bind(source)
    .bind(now.0)
    .fetch_one(conn)
    .await?;
    Ok(StoredRuleset {
        version: natural(version)?,
        source: source.into(),
        created_at: now,
    })
}
