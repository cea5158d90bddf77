//! The warehouse in PostgreSQL.
//!
//! - **Many writers.** Each batch is one transaction at `read committed` under explicit locks: the partition's
//!   position, then orders, people and products in key order (`apply`). Batches that meet wait for each other;
//!   batches that do not run side by side.
//! - **Readers** have a pool of their own, so that reading never waits behind a batch; a shopper's look-up has connections
//!   apart from that as well (`lookups`).
//! - **Durable** means what the server's `synchronous_commit` says, by default: on the disk.
//! - **Set-based.** One statement per table, its rows as arrays (`rows`). Statements are checked against the schema
//!   when the crate is built, from `.sqlx`, without a server.
//! - **Bounded.** Statements, locks, idle transactions and waiting for a connection have limits. A worker that is
//!   stopped in the middle of a batch loses its transaction, so that the one that takes over is not kept waiting.
//! - **A start without the server** is possible where nothing has to be migrated: what needs it says "unavailable"
//!   until it is there.

mod apply;
mod copy;
mod decisions;
mod error;
mod events;
mod experiments;
mod identity;
mod lookups;
mod meta;
mod migrations;
mod nagle;
mod orders;
mod partitions;
mod pool;
mod position;
mod products;
mod profiles;
mod purchases;
mod quarantine;
mod rows;
mod rulesets;
mod segments;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::OnceCell;

use self::error::Failure;
use self::lookups::Lookups;
use self::pool::{pool, within};
use super::{
    Applied, Batch, Changes, OpenError, OutcomeQuery, Progress, StoredDecision, StoredRuleset, Warehouse,
    WarehouseConfig, WarehouseError,
};
use crate::config::masked;
use crate::domain::experiment::Outcomes;
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::product::CatalogueItem;
use crate::domain::profile::Version;
use crate::domain::recommend::Purchases;
use crate::domain::recommend::sessions::Interaction;

/// A lane works on one batch at a time, so this bounds the lanes that write at once; the server has few cores.
const WRITERS: u32 = 8;

/// Rulesets, positions, and what nodes learn from: a few at a time.
const READERS: u32 = 8;

/// How long a batch may wait for a connection.
const WRITER_ACQUIRE: Duration = Duration::from_secs(5);

/// How long who reads may wait for a connection.
const READER_ACQUIRE: Duration = Duration::from_secs(1);

/// How long a start waits for the server before it goes on without it.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// How long a look-up may take, and one that reads much: a little more than the server allows it.
const READ: Duration = Duration::from_secs(3);
const LONG_READ: Duration = Duration::from_secs(65);

/// How long a transaction that writes may take up to its commit, and how long the commit itself. After the latter
/// nobody knows whether it happened.
const WRITE: Duration = Duration::from_secs(60);
const COMMIT: Duration = Duration::from_secs(30);

/// Every statement of this module.
const STATEMENTS: usize = 128;

/// Begins a batch.
///
/// Every statement of a batch looks up keys in an index, but the planner can't know how long an array is, nor how
/// large a table has grown since it was last analysed, and would read whole tables at times; so it is told. The
/// settings are local to the transaction and work behind a pooler.
const BEGIN: &str = "begin; set local statement_timeout = '30s'; set local lock_timeout = '5s'; \
                     set local idle_in_transaction_session_timeout = '30s'; \
                     set local plan_cache_mode = 'force_generic_plan'; set local enable_seqscan = off; \
                     set local enable_hashjoin = off; set local enable_mergejoin = off; set local jit = off";

/// Begins what reads much.
const BEGIN_LONG_READ: &str = "begin read only; set local statement_timeout = '60s'";

/// Begins what joins much with much. The planner takes a list made in the statement for a single row, and would run through
/// the other side once for each of its many: over a minute instead of half a second for 300,000 events.
const BEGIN_JOINS: &str =
    "begin read only; set local statement_timeout = '60s'; set local enable_nestloop = off";

/// A read that takes this long has lost its caller; the server should stop as well.
const READER_SETTINGS: &str = "set statement_timeout = '2s'; set default_transaction_read_only = on";

#[derive(Debug)]
struct PgWarehouse {
    writer: PgPool,
    readers: PgPool,
    lookups: Lookups,
    /// Where the server is, without credentials.
    name: String,
    /// The epoch, once the schema was found to be the one that this build needs.
    epoch: OnceCell<u64>,
    partitions: partitions::Partitions,
    dates: events::Dates,
    pruner: events::Pruner,
}

pub(super) async fn open(config: &WarehouseConfig) -> Result<Arc<dyn Warehouse>, OpenError> {
    let options: PgConnectOptions = config.url.parse().map_err(|_| OpenError::Url {
        url: masked(&config.url),
        reason: "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE",
    })?;
    let warehouse = PgWarehouse::new(options.application_name("cartwright"));
    if config.migrate {
        migrations::run(&warehouse.writer).await?;
    }
    match tokio::time::timeout(START_PATIENCE, warehouse.epoch()).await {
        Ok(Err(OpenError::Database(error))) if !error::is_unreachable(&error) => {
            return Err(OpenError::Database(error));
        }
        Ok(Err(error @ (OpenError::Outdated { .. } | OpenError::Migrate(_)))) => return Err(error),
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(warehouse = warehouse.name, "the warehouse is not reachable yet");
        }
    }
    Ok(Arc::new(warehouse))
}

impl PgWarehouse {
    fn new(options: PgConnectOptions) -> Self {
        let options = options.statement_cache_capacity(STATEMENTS);
        let name = format!(
            "postgres://{}:{}/{}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or_default()
        );
        let port = options.get_port();
        let writer = pool(WRITERS, WRITER_ACQUIRE)
            .after_connect(move |_, _| {
                nagle::disable(port);
                Box::pin(async { Ok(()) })
            })
            .connect_lazy_with(options.clone());
        let readers = pool(READERS, READER_ACQUIRE)
            .after_connect(|conn, _| {
                Box::pin(async move {
                    conn.execute(READER_SETTINGS).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone());
        PgWarehouse {
            writer,
            readers,
            lookups: Lookups::new(options),
            name,
            epoch: OnceCell::new(),
            partitions: partitions::Partitions::default(),
            dates: events::Dates::default(),
            pruner: events::Pruner::default(),
        }
    }

    /// The epoch of this life of the warehouse; checks the schema the first time.
    async fn epoch(&self) -> Result<u64, OpenError> {
        let check = async || {
            migrations::check(&self.writer, &self.name).await?;
            let mut conn = self.writer.acquire().await.map_err(OpenError::Database)?;
            meta::epoch(&mut conn).await.map_err(OpenError::Database)
        };
        self.epoch.get_or_try_init(check).await.copied()
    }

    async fn ready(&self) -> Result<u64, Failure> {
        self.epoch().await.map_err(|error| match error {
            OpenError::Database(error) => error.into(),
            other => WarehouseError::Unavailable(other.to_string().into()).into(),
        })
    }

    async fn read_progress(&self) -> Result<Vec<Progress>, Failure> {
        let mut conn = self.readers.acquire().await?;
        position::all(&mut conn).await
    }

    async fn read_epoch(&self) -> Result<Option<u64>, Failure> {
        let mut conn = self.readers.acquire().await?;
        Ok(meta::stored_epoch(&mut conn).await?)
    }

    async fn read_changes(&self, partition: u16, after: u64, limit: u32) -> Result<Changes, Failure> {
        let mut conn = self.readers.acquire().await?;
        let newest = position::change_seq(&mut conn, partition).await?;
        let documents = profiles::changes(&mut conn, partition, after, limit).await?;
        Ok(Changes { documents, newest })
    }

    async fn read_ruleset(&self) -> Result<Option<StoredRuleset>, Failure> {
        let mut conn = self.readers.acquire().await?;
        rulesets::newest(&mut conn).await
    }

    async fn read_rulesets(&self, version: Option<u64>, limit: u32) -> Result<Vec<StoredRuleset>, Failure> {
        let mut conn = self.readers.acquire().await?;
        rulesets::list(&mut conn, version, limit).await
    }

    async fn read_paused(&self) -> Result<Vec<String>, Failure> {
        let mut conn = self.readers.acquire().await?;
        rulesets::paused(&mut conn).await
    }

    async fn write_paused(&self, experience: &str, paused: bool, now: Timestamp) -> Result<(), Failure> {
        let mut conn = self.writer.acquire().await?;
        rulesets::set_paused(&mut conn, experience, paused, now).await
    }

    async fn read_decided_since(
        &self,
        shop: &Shop,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, Failure> {
        let mut tx = self.readers.begin_with(BEGIN_LONG_READ).await?;
        decisions::since(&mut tx, shop, since, limit).await
    }

    async fn read_decision(&self, shop: &Shop, decision_id: &str) -> Result<Option<StoredDecision>, Failure> {
        let mut conn = self.readers.acquire().await?;
        decisions::read(&mut conn, shop, decision_id).await
    }

    async fn read_purchases(&self, shop: &Shop, max_lines: usize) -> Result<Purchases, Failure> {
        let mut tx = self.readers.begin_with(BEGIN_LONG_READ).await?;
        purchases::newest(&mut tx, shop, max_lines).await
    }

    async fn write_ruleset(&self, source: &str, now: Timestamp) -> Result<StoredRuleset, Failure> {
        let mut tx = self.writer.begin_with(BEGIN).await?;
        rulesets::lock(&mut tx).await?;
        if let Some(newest) = rulesets::newest(&mut tx).await?
            && *newest.source == *source
        {
            return Ok(newest);
        }
        let stored = rulesets::insert(&mut tx, source, now).await?;
        error::commit(tx).await?;
        Ok(stored)
    }

    async fn read_interactions(&self, shop: &Shop, max_events: usize) -> Result<Vec<Interaction>, Failure> {
        let mut tx = self.readers.begin_with(BEGIN_LONG_READ).await?;
        sessions::newest(&mut tx, shop, max_events).await
    }

    async fn read_catalogue(&self, shop: &Shop, max_items: usize) -> Result<Vec<CatalogueItem>, Failure> {
        let mut tx = self.readers.begin_with(BEGIN_LONG_READ).await?;
        products::catalogue(&mut tx, shop, max_items).await
    }

    async fn read_outcomes(&self, query: &OutcomeQuery<'_>) -> Result<Outcomes, Failure> {
        let mut tx = self.readers.begin_with(BEGIN_JOINS).await?;
        experiments::outcomes(&mut tx, query).await
    }

    async fn remember_key(&self, own: &str) -> Result<String, Failure> {
        self.ready().await?;
        let mut conn = self.writer.acquire().await?;
        Ok(meta::remember(&mut conn, meta::KEY_CHECK_VALUE, own).await?)
    }
}

#[async_trait]
impl Warehouse for PgWarehouse {
    async fn progress(&self) -> Result<Vec<Progress>, WarehouseError> {
        within(READ, self.read_progress()).await
    }

    async fn apply_together(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, WarehouseError> {
        apply::apply(self, batches).await
    }

    async fn documents(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<(SubjectId, Version, Bytes)>, WarehouseError> {
        within(READ, self.lookups.documents(subjects)).await
    }

    async fn epoch(&self) -> Result<Option<u64>, WarehouseError> {
        within(READ, self.read_epoch()).await
    }

    async fn changes(&self, partition: u16, after: u64, limit: u32) -> Result<Changes, WarehouseError> {
        within(LONG_READ, self.read_changes(partition, after, limit)).await
    }

    async fn forget_facts(&self, before: Timestamp) -> Result<Vec<String>, WarehouseError> {
        within(LONG_READ, self.partitions.drop_before(&self.writer, before)).await
    }

    async fn newest_ruleset(&self, known: Option<u64>) -> Result<Option<StoredRuleset>, WarehouseError> {
        let newest = within(READ, self.read_ruleset()).await?;
        Ok(newest.filter(|ruleset| Some(ruleset.version) != known))
    }

    async fn store_ruleset(&self, source: &str, now: Timestamp) -> Result<StoredRuleset, WarehouseError> {
        within(WRITE, self.write_ruleset(source, now)).await
    }

    async fn ruleset(&self, version: u64) -> Result<Option<StoredRuleset>, WarehouseError> {
        Ok(within(READ, self.read_rulesets(Some(version), 1)).await?.pop())
    }

    async fn rulesets(&self, limit: u32) -> Result<Vec<StoredRuleset>, WarehouseError> {
        within(READ, self.read_rulesets(None, limit)).await
    }

    async fn paused(&self) -> Result<Vec<String>, WarehouseError> {
        within(READ, self.read_paused()).await
    }

    async fn set_paused(&self, experience: &str, paused: bool, now: Timestamp) -> Result<(), WarehouseError> {
        within(WRITE, self.write_paused(experience, paused, now)).await
    }

    async fn decided_since(
        &self,
        shop: &Shop,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, WarehouseError> {
        within(LONG_READ, self.read_decided_since(shop, since, limit)).await
    }

    async fn decision(
        &self,
        shop: &Shop,
        decision_id: &str,
    ) -> Result<Option<StoredDecision>, WarehouseError> {
        within(READ, self.read_decision(shop, decision_id)).await
    }

    async fn purchases(&self, shop: &Shop, max_lines: usize) -> Result<Purchases, WarehouseError> {
        within(LONG_READ, self.read_purchases(shop, max_lines)).await
    }

    async fn interactions(&self, shop: &Shop, max_events: usize) -> Result<Vec<Interaction>, WarehouseError> {
        within(LONG_READ, self.read_interactions(shop, max_events)).await
    }

    async fn catalogue(&self, shop: &Shop, max_items: usize) -> Result<Vec<CatalogueItem>, WarehouseError> {
        within(LONG_READ, self.read_catalogue(shop, max_items)).await
    }

    async fn outcomes(&self, query: &OutcomeQuery<'_>) -> Result<Outcomes, WarehouseError> {
        within(LONG_READ, self.read_outcomes(query)).await
    }

    async fn key_check_value(&self, own: &str) -> Result<String, WarehouseError> {
        within(WRITE, self.remember_key(own)).await
    }

    async fn close(&self) {
        self.lookups.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}
