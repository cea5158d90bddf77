//! The suite against SQLite.

use std::sync::Arc;

use async_trait::async_trait;
use cartwright::warehouse::{self, OpenError, Warehouse, WarehouseConfig};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::Backend;

struct Sqlite {
    folder: tempfile::TempDir,
}

impl Default for Sqlite {
    fn default() -> Sqlite {
        Sqlite {
            folder: tempfile::tempdir().unwrap(),
        }
    }
}

impl Sqlite {
    fn config(&self, migrate: bool) -> WarehouseConfig {
        let path = self.folder.path().join("nested").join("warehouse.db");
        WarehouseConfig {
            url: format!("sqlite:{}", path.display()),
            migrate,
        }
    }

    async fn connect(&self) -> SqliteConnection {
        let path = self.folder.path().join("nested").join("warehouse.db");
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path))
            .await
            .unwrap()
    }
}

#[async_trait]
impl Backend for Sqlite {
    async fn open(&self) -> Arc<dyn Warehouse> {
        warehouse::open(&self.config(true)).await.unwrap()
    }

    async fn dump(&self) -> Vec<String> {
        let mut conn = self.connect().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' order by name",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        let mut dump = Vec::new();
        for table in tables {
            let columns: Vec<String> = sqlx::query_scalar(
                "select 'quote(\"' || name || '\")' from pragma_table_info(?1) where name <> 'id'",
            )
            .bind(&table)
            .fetch_all(&mut conn)
            .await
            .unwrap();
            let row = columns.join(" || ',' || ");
            let sql = format!("select {row} as line from {table} order by line");
            let rows = sqlx::query(AssertSqlSafe(sql))
                .fetch_all(&mut conn)
                .await
                .unwrap();
            dump.extend(
                rows.iter()
                    .map(|row| format!("{table}: {}", row.get::<String, _>(0))),
            );
        }
        dump
    }

    async fn integers(&self, sql: &'static str) -> Vec<i64> {
        sqlx::query_scalar(sql)
            .fetch_all(&mut self.connect().await)
            .await
            .unwrap()
    }
}

super::contract!(Sqlite);

#[tokio::test]
async fn a_schema_that_is_behind_is_refused_unless_it_may_be_migrated() {
    let sqlite = Sqlite::default();
    std::fs::create_dir_all(sqlite.folder.path().join("nested")).unwrap();
    std::fs::write(sqlite.folder.path().join("nested/warehouse.db"), b"").unwrap();
    let refused = warehouse::open(&sqlite.config(false)).await.unwrap_err();
    assert!(matches!(refused, OpenError::Outdated { .. }), "{refused}");
    sqlite.open().await.close().await;
    warehouse::open(&sqlite.config(false)).await.unwrap();
}

#[tokio::test]
async fn every_column_says_what_it_holds_or_goes_by_a_known_name() {
    let sqlite = Sqlite::default();
    sqlite.open().await.close().await;
    let ddl: Vec<String> =
        sqlx::query_scalar("select sql from sqlite_schema where type in ('table', 'view')")
            .fetch_all(&mut sqlite.connect().await)
            .await
            .unwrap();
    for sql in ddl
        .iter()
        .filter(|sql| !sql.contains("_sqlx_migrations") && !sql.contains("sqlite_"))
    {
        let second = sql.lines().nth(1).unwrap_or_default().trim_start();
        assert!(second.starts_with("-- "), "{sql}");
    }
}
