//! `ruleset`: every ruleset that was ever in force.

use sqlx::sqlite::SqliteConnection;

use super::error::{integer, natural};
use crate::domain::ids::Timestamp;
use crate::warehouse::{StoredRuleset, WarehouseError};

pub(super) async fn newest(conn: &mut SqliteConnection) -> Result<Option<StoredRuleset>, WarehouseError> {
    Ok(list(conn, None, 1).await?.pop())
}

/// The newest first, or the one of `version`.
pub(super) async fn list(
    conn: &mut SqliteConnection,
    version: Option<u64>,
    limit: u32,
) -> Result<Vec<StoredRuleset>, WarehouseError> {
    let version = version.map(integer).transpose()?;
    let rows: Vec<(i64, String, i64)> = sqlx::query_as(
        "select version, source, created_at from ruleset
         where ?1 is null or version = ?1
         order by version desc limit ?2",
    )
    .bind(version)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    let stored = rows.into_iter().map(|(version, source, created_at)| {
        Ok(StoredRuleset {
            version: natural(version)?,
            source: source.into(),
            created_at: Timestamp(created_at),
        })
    });
    stored.collect()
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

/// The experiences that are paused, by id.
pub(super) async fn paused(conn: &mut SqliteConnection) -> Result<Vec<String>, WarehouseError> {
    Ok(sqlx::query_scalar("select id from paused_experience order by id")
        .fetch_all(conn)
        .await?)
}

/// Pauses an experience, or ends its pause.
pub(super) async fn set_paused(
    conn: &mut SqliteConnection,
    experience: &str,
    paused: bool,
    now: Timestamp,
) -> Result<(), WarehouseError> {
    let statement = match paused {
        true => sqlx::query(
            "insert into paused_experience (id, paused_at) values (?1, ?2) on conflict do nothing",
        )
        .bind(experience)
        .bind(now.0),
        false => sqlx::query("delete from paused_experience where id = ?1").bind(experience),
    };
    statement.execute(conn).await?;
    Ok(())
}
