//! What the contract suite cannot reach: a full disk, a locked file, foreign content.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::*;
use crate::domain::consent::ConsentStatement;
use crate::domain::event::{Event, Source};
use crate::domain::ids::Environment;
use crate::domain::profile::{Contribution, Delta};
use crate::domain::transform::Effect;
use crate::warehouse::StoredPosition;

const LOG: uuid::Uuid = uuid::Uuid::from_u128(1);

struct Fixture {
    folder: tempfile::TempDir,
    warehouse: SqliteWarehouse,
}

impl Fixture {
    async fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.db");
        let warehouse = SqliteWarehouse::open(path.to_str().unwrap(), true, Duration::from_millis(20))
            .await
            .unwrap();
        Fixture { folder, warehouse }
    }

    async fn other_process(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("w.db"));
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// `count` shoppers' events with large bodies, as the batch at offset 0.
    async fn apply(&self, count: u64) -> Result<Applied, WarehouseError> {
        let effects: Vec<(u64, Effect)> = (0..count).map(|n| (n, effect(n))).collect();
        let next = StoredPosition {
            log_id: LOG,
            partition: 0,
            offset: count,
        };
        let batch = Batch {
            expected: None,
            next,
            effects: &effects,
            unreadable: &[],
            now: Timestamp(0),
            ruleset: None,
            dedupe_floor: None,
        };
        self.warehouse.apply(&batch).await
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("select count(*) from {table}"));
        sqlx::query_scalar(sql)
            .fetch_one(&self.warehouse.readers)
            .await
            .unwrap()
    }
}

fn effect(n: u64) -> Effect {
    let subject = SubjectId::from_stored(&format!("a:k.{n}"));
    let event = Event {
        shop: Shop::new("acme", Environment::Test).unwrap(),
        source: Source::Public,
        event_id: format!("e{n}").into(),
        name: "Product Viewed".into(),
        anonymous: Some(subject.clone()),
        user: None,
        claimed_user: None,
        session: None,
        event_time: Timestamp(0),
        received_at: Timestamp(0),
        consent: ConsentStatement::default(),
        quarantine: None,
        body: format!("{{\"properties\":{{\"text\":\"{}\"}}}}", "x".repeat(2_000)).into(),
    };
    Effect {
        contribution: Contribution {
            stamp: event.stamp(),
            deltas: vec![Delta::Seen],
            resets: false,
        },
        subject: Some(subject),
        event,
        order: None,
        cancellation: None,
        refund: None,
        identity: None,
        products: Vec::new(),
        decision: None,
        quarantine: None,
    }
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_leaves_nothing_behind() {
    let fixture = Fixture::new().await;
    let pages: i64 = sqlx::query_scalar("pragma page_count")
        .fetch_one(&fixture.warehouse.writer)
        .await
        .unwrap();
    let limit = AssertSqlSafe(format!("pragma max_page_count = {}", pages + 20));
    fixture.warehouse.writer.execute(limit).await.unwrap();
    let full = fixture.apply(200).await.unwrap_err();
    assert!(matches!(full, WarehouseError::Unavailable(_)), "{full}");
    assert_eq!(fixture.count("fact_event").await, 0);
    assert_eq!(fixture.warehouse.position(0).await.unwrap(), None);

    fixture
        .warehouse
        .writer
        .execute("pragma max_page_count = 100000")
        .await
        .unwrap();
    assert_eq!(fixture.apply(200).await.unwrap().new_events, 200);
}

#[tokio::test]
async fn a_file_locked_by_another_process_is_unavailable_until_it_is_free() {
    let fixture = Fixture::new().await;
    let mut other = fixture.other_process().await;
    other.execute("begin immediate").await.unwrap();
    let locked = fixture.apply(1).await.unwrap_err();
    assert!(matches!(locked, WarehouseError::Unavailable(_)), "{locked}");
    // Readers don't mind.
    assert_eq!(fixture.warehouse.position(0).await.unwrap(), None);
    other.execute("rollback").await.unwrap();
    assert_eq!(fixture.apply(1).await.unwrap().new_events, 1);
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_rejects_the_batch() {
    let fixture = Fixture::new().await;
    fixture
        .warehouse
        .writer
        .execute("create trigger picky before insert on fact_event when new.event_id = 'e7' begin select raise(abort, 'no'); end")
        .await
        .unwrap();
    let rejected = fixture.apply(10).await.unwrap_err();
    assert!(matches!(rejected, WarehouseError::Rejected(_)), "{rejected}");
    assert_eq!(fixture.count("event_seen").await, 0);
    assert_eq!(fixture.apply(5).await.unwrap().new_events, 5);
}

#[tokio::test]
async fn a_part_of_another_build_is_inconsistent() {
    let fixture = Fixture::new().await;
    sqlx::query("insert into profile_part (shop, subject, part) values ('acme/test', 'a:k.0', x'ff00')")
        .execute(&fixture.warehouse.writer)
        .await
        .unwrap();
    let inconsistent = fixture.apply(1).await.unwrap_err();
    assert!(
        matches!(inconsistent, WarehouseError::Inconsistent(_)),
        "{inconsistent}"
    );
}

#[tokio::test]
async fn an_epoch_lasts_until_it_is_deleted() {
    let fixture = Fixture::new().await;
    let path = fixture.folder.path().join("w.db");
    let path = path.to_str().unwrap();
    let again = SqliteWarehouse::open(path, true, BUSY_TIMEOUT).await.unwrap();
    assert_eq!(again.epoch, fixture.warehouse.epoch);
    fixture
        .warehouse
        .writer
        .execute("delete from warehouse_meta where key = 'epoch'")
        .await
        .unwrap();
    let restored = SqliteWarehouse::open(path, true, BUSY_TIMEOUT).await.unwrap();
    assert_ne!(restored.epoch, fixture.warehouse.epoch);
}
