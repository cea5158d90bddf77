//! `ruleset`: every ruleset that was ever in force.

use sqlx::PgConnection;

use super::error::{Failure, integer, natural};
use super::rows::Instant;
use crate::domain::ids::Timestamp;
use crate::warehouse::StoredRuleset;

pub(super) async fn newest(conn: &mut PgConnection) -> Result<Option<StoredRuleset>, Failure> {
    Ok(list(conn, None, 1).await?.pop())
}

/// The newest first, or the one of `version`.
pub(super) async fn list(
    conn: &mut PgConnection,
    version: Option<u64>,
    limit: u32,
) -> Result<Vec<StoredRuleset>, Failure> {
    let version = version.map(integer).transpose()?;
    let rows = sqlx::query!(
        r#"select version, source, created_at as "created_at: Instant" from ruleset
           where $1::bigint is null or version = $1
           order by version desc limit $2"#,
        version,
        i64::from(limit)
    )
    .fetch_all(conn)
    .await?;
    let stored = rows.into_iter().map(|row| {
        Ok(StoredRuleset {
            version: natural(row.version)?,
            source: row.source.into(),
            created_at: row.created_at.0,
        })
    });
    stored.collect()
}

/// Keeps other nodes from storing a ruleset until the transaction ends; they may still read.
pub(super) async fn lock(conn: &mut PgConnection) -> Result<(), Failure> {
    sqlx::query!("lock table ruleset in share row exclusive mode")
        .execute(conn)
        .await?;
    Ok(())
}

/// Stores `source` under the next version.
pub(super) async fn insert(
    conn: &mut PgConnection,
    source: &str,
    now: Timestamp,
) -> Result<StoredRuleset, Failure> {
    let version = sqlx::query_scalar!(
        "insert into ruleset (version, source, created_at)
         select coalesce(max(version), 0) + 1, $1, $2 from ruleset
         returning version",
        source,
        Instant(now) as _
    )
    .fetch_one(conn)
    .await?;
    Ok(StoredRuleset {
        version: natural(version)?,
        source: source.into(),
        created_at: now,
    })
}

/// The experiences that are paused, by id.
pub(super) async fn paused(conn: &mut PgConnection) -> Result<Vec<String>, Failure> {
    Ok(
        sqlx::query_scalar!("select id from paused_experience order by id")
            .fetch_all(conn)
            .await?,
    )
}

/// Pauses an experience, or ends its pause.
pub(super) async fn set_paused(
    conn: &mut PgConnection,
    experience: &str,
    paused: bool,
    now: Timestamp,
) -> Result<(), Failure> {
    if paused {
        sqlx::query!(
            "insert into paused_experience (id, paused_at) values ($1, $2) on conflict do nothing",
            experience,
            Instant(now) as _
        )
        .execute(conn)
        .await?;
    } else {
        sqlx::query!("delete from paused_experience where id = $1", experience)
            .execute(conn)
            .await?;
    }
    Ok(())
}
