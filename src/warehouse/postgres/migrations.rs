//! The schema's migrations, embedded in the binary.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgPool;

use crate::warehouse::OpenError;

/// Version, description, text. Append only.
const MIGRATIONS: [(i64, &str, &str); 9] = [
    (
        1,
        "star schema",
        include_str!("../../../migrations/postgres/0001_star_schema.sql"),
    ),
    (
        3,
        "experiments",
        include_str!("../../../migrations/postgres/0003_experiments.sql"),
    ),
    (
        4,
        "catalogue",
        include_str!("../../../migrations/postgres/0004_catalogue.sql"),
    ),
    (
        5,
        "pauses",
        include_str!("../../../migrations/postgres/0005_pauses.sql"),
    ),
    (
        6,
        "order events",
        include_str!("../../../migrations/postgres/0006_order_events.sql"),
    ),
    (
        7,
        "order indexes",
        include_str!("../../../migrations/postgres/0007_order_indexes.sql"),
    ),
    (
        8,
        "lane",
        include_str!("../../../migrations/postgres/0008_lane.sql"),
    ),
    (
        9,
        "pruning",
        include_str!("../../../migrations/postgres/0009_pruning.sql"),
    ),
    (
        10,
        "one row",
        include_str!("../../../migrations/postgres/0010_one_row.sql"),
    ),
];

/// Where the driver keeps the applied versions.
const APPLIED: &str = "_sqlx_migrations";

fn migrator() -> Migrator {
    let all = MIGRATIONS.into_iter().map(|(version, description, sql)| {
        let description = Cow::Borrowed(description);
        Migration::new(
            version,
            description,
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(all.collect());
    // A newer version has expanded the schema already: this one must still start.
    migrator.set_ignore_missing(true);
    migrator
}

/// Runs what is pending; several nodes may try at once.
pub(super) async fn run(writer: &PgPool) -> Result<(), OpenError> {
    migrator().run(writer).await.map_err(|error| match error {
        MigrateError::Execute(error) => OpenError::Database(error),
        error => OpenError::Migrate(error),
    })
}

/// Refuses a schema that this build cannot use. Writes nothing.
pub(super) async fn check(writer: &PgPool, name: &str) -> Result<(), OpenError> {
    let mut conn = writer.acquire().await.map_err(OpenError::Database)?;
    let exists = sqlx::query_scalar!(
        r#"select to_regclass($1::text) is not null as "exists!""#,
        APPLIED
    )
    .fetch_one(&mut *conn)
    .await
    .map_err(OpenError::Database)?;
    let applied = if exists {
        conn.list_applied_migrations(APPLIED)
            .await
            .map_err(OpenError::Migrate)?
    } else {
        Vec::new()
    };
    for wanted in migrator().iter() {
        match applied.iter().find(|have| have.version == wanted.version) {
            None => return Err(OpenError::Outdated { path: name.into() }),
            Some(have) if have.checksum != wanted.checksum => {
                return Err(OpenError::Migrate(MigrateError::VersionMismatch(wanted.version)));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
