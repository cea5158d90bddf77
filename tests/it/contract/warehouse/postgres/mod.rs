//! The suite against PostgreSQL, and what only a server that many write to can show.

mod faults;
mod races;

use std::sync::Arc;

use async_trait::async_trait;
use cartwright::warehouse::{self, OpenError, Warehouse, WarehouseConfig};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::sync::OnceCell;

use super::effects::{guest, linked, unlinked, user, viewed};
use super::{Backend, Lane};
use crate::support::postgres::Database;

#[derive(Default)]
struct Postgres {
    database: OnceCell<Database>,
}

impl Postgres {
    async fn database(&self) -> &Database {
        self.database.get_or_init(Database::create).await
    }
}

fn config(database: &Database, migrate: bool) -> WarehouseConfig {
    WarehouseConfig {
        url: database.url(),
        migrate,
    }
}

#[async_trait]
impl Backend for Postgres {
    async fn open(&self) -> Arc<dyn Warehouse> {
        warehouse::open(&config(self.database().await, false))
            .await
            .unwrap()
    }

    async fn dump(&self) -> Vec<String> {
        let mut conn = self.database().await.connect().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "select relname::text from pg_class where relkind in ('r', 'p') and not relispartition
             and relnamespace = 'public'::regnamespace order by 1",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        let mut dump = Vec::new();
        for table in tables {
            let sql = format!("select t::text as line from {table} as t order by line");
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
        let mut conn = self.database().await.connect().await;
        let kind = format!("select pg_typeof(number)::text from ({sql}) as rows(number) limit 1");
        let kind: Option<String> = sqlx::query_scalar(AssertSqlSafe(kind))
            .fetch_optional(&mut conn)
            .await
            .unwrap();
        // An instant counts as milliseconds, as in SQLite.
        let number = match kind.as_deref() {
            Some("timestamp with time zone") => "extract(epoch from number) * 1000",
            _ => "number",
        };
        let sql = format!("select ({number})::bigint from ({sql}) as rows(number)");
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_all(&mut conn)
            .await
            .unwrap()
    }
}

super::contract!(Postgres);

#[tokio::test]
async fn a_schema_that_is_behind_is_refused_unless_it_may_be_migrated() {
    let database = Database::empty().await;
    let refused = warehouse::open(&config(&database, false)).await.unwrap_err();
    assert!(matches!(refused, OpenError::Outdated { .. }), "{refused}");
    warehouse::open(&config(&database, true))
        .await
        .unwrap()
        .close()
        .await;
    warehouse::open(&config(&database, false)).await.unwrap();
}

#[tokio::test]
async fn every_table_and_column_says_what_it_holds() {
    let database = Database::create().await;
    let silent: Vec<String> = sqlx::query_scalar(
        "select c.relname || coalesce('.' || a.attname, '')
         from pg_class as c
         left join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relkind in ('r', 'p', 'v') and c.relnamespace = 'public'::regnamespace
         and c.relname <> '_sqlx_migrations' and not c.relispartition
         and (obj_description(c.oid) is null or col_description(c.oid, a.attnum) is null)",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    assert_eq!(silent, [""; 0]);
}

#[tokio::test]
async fn an_event_is_remembered_under_the_digest_that_sql_knows() {
    let backend = Postgres::default();
    let mut lane = Lane::new(&backend).await;
    lane.apply(&[viewed("e1", 1_000, &guest("ann"), "sku1")]).await;
    let known = "select count(*) from event_seen where digest = event_digest('acme/live', 'e1')";
    assert_eq!(backend.integers(known).await, [1]);
}

/// What migration 10 found: parts in a table of their own, most of them empty since they are in their document.
const BEFORE_ONE_ROW: &str = "
    drop view profile_part;
    create table profile_part (
        shop text collate \"C\" not null, subject text collate \"C\" not null, part bytea not null,
        in_document boolean not null, primary key (subject, shop));
    insert into profile_part
        select shop, subject, coalesce(own_part, ''), own_part is null from customer_profile;
    insert into profile_part values ('acme/live', 'a:k1.nobody', '', true);
    alter table customer_profile drop column own_part";

#[tokio::test]
async fn parts_of_a_former_version_move_into_the_row_of_their_document() {
    let backend = Postgres {
        database: OnceCell::new_with(Some(Database::disposable().await)),
    };
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let mut lane = Lane::new(&backend).await;
    lane.apply(&[viewed("e1", 1_000, &ann, "sku1"), linked("l1", 2_000, &ann, &cyd)])
        .await;
    let mut conn = backend.database().await.connect().await;
    let migration = include_str!("../../../../../migrations/postgres/0010_one_row.sql");
    conn.execute(BEFORE_ONE_ROW).await.unwrap();
    // One that has no document would be lost with its table.
    conn.execute("insert into profile_part values ('acme/live', 'u:k1.lost', '\\x01', false)")
        .await
        .unwrap();
    let refused = conn.execute(migration).await.unwrap_err().to_string();
    assert!(refused.contains("parts without a document"), "{refused}");
    conn.execute("delete from profile_part where subject = 'u:k1.lost'")
        .await
        .unwrap();
    conn.execute(migration).await.unwrap();
    // Hers is the document's; his document holds hers as well, so his is apart.
    let apart = "select count(*) from profile_part where in_document = (subject like 'u:%')";
    assert_eq!(backend.integers(apart).await, [0]);
    let mut lane = Lane {
        offset: lane.offset,
        ..Lane::new(&backend).await
    };
    lane.apply(&[viewed("e2", 3_000, &ann, "sku2")]).await;
    assert_eq!(lane.document(&cyd).await.unwrap().events(), 3);
    lane.apply(&[unlinked("u1", 4_000, &ann, &cyd)]).await;
    assert_eq!(lane.document(&cyd).await.unwrap().events(), 1);
}

#[tokio::test]
async fn a_part_stored_apart_by_a_former_version_goes_on_counting_and_moves_into_the_document() {
    let backend = Postgres::default();
    let (ann, cyd) = (guest("ann"), user("cyd"));
    let mut lane = Lane::new(&backend).await;
    lane.apply(&[viewed("e1", 1_000, &ann, "sku1"), linked("l1", 2_000, &ann, &cyd)])
        .await;
    let part = lane
        .document(&ann)
        .await
        .unwrap()
        .document()
        .unwrap()
        .part
        .encode();
    let mut conn = backend.database().await.connect().await;
    sqlx::query("update customer_profile set own_part = $2 where subject = $1 and own_part is null")
        .bind(ann.as_str())
        .bind(part)
        .execute(&mut conn)
        .await
        .unwrap();
    let before = lane.document(&cyd).await.unwrap().events();
    lane.apply(&[viewed("e2", 3_000, &ann, "sku2")]).await;
    assert_eq!(lane.document(&cyd).await.unwrap().events(), before + 1);
    // Hers is not what her document says, which holds his as well.
    let apart = "select count(*) from profile_part where in_document = (subject like 'u:%')";
    assert_eq!(backend.integers(apart).await, [0]);
}
