//! The schema's migrations, embedded in the binary.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate as _, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqlitePool;

use crate::warehouse::OpenError;

/// Version, description, text. Append only.
const MIGRATIONS: [(i64, &str, &str); 7] = [
    (
        1,
        "star schema",
        include_str!("../../../migrations/sqlite/0001_star_schema.sql"),
    ),
    (
        3,
        "experiments",
        include_str!("../../../migrations/sqlite/0003_experiments.sql"),
    ),
    (
        4,
        "catalogue",
        include_str!("../../../migrations/sqlite/0004_catalogue.sql"),
    ),
    (
        5,
        "pauses",
        include_str!("../../../migrations/sqlite/0005_pauses.sql"),
    ),
    (
        6,
        "order events",
        include_str!("../../../migrations/sqlite/0006_order_events.sql"),
    ),
    (
        7,
        "order indexes",
        include_str!("../../../migrations/sqlite/0007_order_indexes.sql"),
    ),
    (
        8,
        "lane",
        include_str!("../../../migrations/sqlite/0008_lane.sql"),
    ),
];

/// Where the driver keeps the applied versions.
const APPLIED: &str = "_sqlx_migrations";

/// Runs what is pending, or refuses if `migrate` is false and something is.
pub(super) async fn run(writer: &SqlitePool, path: &str, migrate: bool) -> Result<(), OpenError> {
    let migrator = Migrator::with_migrations(
        MIGRATIONS
            .into_iter()
            .map(|(version, description, sql)| {
                let description = Cow::Borrowed(description);
                Migration::new(
                    version,
                    description,
                    MigrationType::Simple,
                    sql.into_sql_str(),
                    false,
                )
            })
            .collect(),
    );
    if !migrate {
        let mut conn = writer.acquire().await.map_err(OpenError::Database)?;
        // A file without the table has no migration applied.
        let applied = conn.list_applied_migrations(APPLIED).await.unwrap_or_default();
        if migrator
            .iter()
            .any(|wanted| !applied.iter().any(|have| have.version == wanted.version))
        {
            return Err(OpenError::Outdated { path: path.into() });
        }
    }
    // With nothing pending this compares the checksums.
    migrator.run(writer).await.map_err(OpenError::Migrate)
}
