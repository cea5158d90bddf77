//! The warehouse in one SQLite file.
//!
//! - **One writer.** All writes go through one connection, each in a `begin immediate` transaction: SQLite has one
//!   write lock, and asking for it first means that a transaction never has to be thrown away half way.
//! - **Readers** run beside it on their own connections; in WAL mode neither waits for the other.
//! - **Durable** means `synchronous=full`: a commit returns after the WAL is on the disk.
//! - **Set-based.** A statement passes through a channel to the connection's thread, which costs more than most
//!   statements; so there is one statement per table and stretch of rows, not one per row (`rows`).
//! - One file per family of tables, one function per statement, the executor as argument. `apply` is the
//!   transaction, read from top to bottom.

mod apply;
mod decisions;
mod error;
mod events;
mod experiments;
mod identity;
mod meta;
mod migrations;
mod orders;
mod position;
mod products;
mod profiles;
mod purchases;
mod quarantine;
mod rows;
mod rulesets;
mod segments;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::{
    Applied, Batch, Changes, OpenError, OutcomeQuery, Progress, StoredDecision, StoredRuleset, Warehouse,
    WarehouseConfig, WarehouseError,
};
use crate::domain::experiment::Outcomes;
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::product::CatalogueItem;
use crate::domain::profile::Version;
use crate::domain::recommend::Purchases;
use crate::domain::recommend::sessions::Interaction;

/// How long to wait for another process's lock (a backup, a shell). Higher, and a lane hangs silently; lower, and
/// a checkpoint by a reader becomes an error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a reader may wait for a free connection; its caller's deadline is shorter anyway.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Look-ups take some ten microseconds, so a few connections serve more than the cores can ask.
const READERS: u32 = 4;

/// The writer's page cache, in KiB. Four times as much made the drain benchmark no faster: the system caches the file.
const WRITER_CACHE_KIB: u32 = 32 * 1024;

/// Four of these lie in this process; the system caches the file besides.
const READER_CACHE_KIB: u32 = 2 * 1024;

/// The WAL's length in pages before it is copied into the file. A page written by many batches is copied once, so
/// longer is faster, at the price of disk space (160 MiB) and of the time that opening after a crash takes.
const CHECKPOINT_PAGES: u32 = 40_960;

/// Every statement in every size of `rows`.
const STATEMENTS: usize = 256;

/// Rows handed over by the connection's thread at once, at most. One by one would switch threads for each.
const ROW_BUFFER: usize = 1024;

#[derive(Debug)]
struct SqliteWarehouse {
    writer: SqlitePool,
    readers: SqlitePool,
    epoch: u64,
    pruner: events::Pruner,
}

pub(super) async fn open(path: &str, config: &WarehouseConfig) -> Result<Arc<dyn Warehouse>, OpenError> {
    Ok(Arc::new(
        SqliteWarehouse::open(path, config.migrate, BUSY_TIMEOUT).await?,
    ))
}

impl SqliteWarehouse {
    async fn open(path: &str, migrate: bool, busy_timeout: Duration) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(migrate)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(busy_timeout)
            .statement_cache_capacity(STATEMENTS)
            .row_buffer_size(ROW_BUFFER)
            .disable_statement_logging();
        if let Some(folder) = options.get_filename().parent().filter(|_| migrate) {
            std::fs::create_dir_all(folder).map_err(|error| OpenError::Database(sqlx::Error::Io(error)))?;
        }
        let write = options
            .clone()
            .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string());
        let writer = pool(write, 1).await.map_err(|error| match error {
            OpenError::Database(sqlx::Error::Database(inner)) if error::is_foreign(&*inner) => {
                OpenError::Foreign { path: path.into() }
            }
            other => other,
        })?;
        migrations::run(&writer, path, migrate).await?;
        let epoch = meta::epoch(&writer).await.map_err(OpenError::Database)?;

        let read = options
            .create_if_missing(false)
            .pragma("query_only", "on")
            .pragma("cache_size", format!("-{READER_CACHE_KIB}"));
        let readers = pool(read, READERS).await?;
        Ok(SqliteWarehouse {
            writer,
            readers,
            epoch,
            pruner: events::Pruner::default(),
        })
    }
}

async fn pool(options: SqliteConnectOptions, connections: u32) -> Result<SqlitePool, OpenError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(OpenError::Database)
}

#[async_trait]
impl Warehouse for SqliteWarehouse {
    async fn progress(&self) -> Result<Vec<Progress>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        position::all(&mut conn).await
    }

    async fn apply_together(&self, batches: &[Batch<'_>]) -> Result<Vec<Applied>, WarehouseError> {
        apply::apply(self, batches).await
    }

    async fn documents(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<(SubjectId, Version, Bytes)>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        let mut documents = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let found = profiles::document(&mut conn, subject).await?;
            documents.extend(found.map(|(version, bytes)| (subject.clone(), version, bytes)));
        }
        Ok(documents)
    }

    async fn epoch(&self) -> Result<Option<u64>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        Ok(meta::stored_epoch(&mut conn).await?)
    }

    async fn changes(&self, partition: u16, after: u64, limit: u32) -> Result<Changes, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        let newest = match position::read(&mut conn, partition).await? {
            Some(row) => row.change_seq,
            None => 0,
        };
        let documents = profiles::changes(&mut conn, partition, after, limit).await?;
        Ok(Changes { documents, newest })
    }

    async fn newest_ruleset(&self, known: Option<u64>) -> Result<Option<StoredRuleset>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        let newest = rulesets::newest(&mut conn).await?;
        Ok(newest.filter(|ruleset| Some(ruleset.version) != known))
    }

    async fn store_ruleset(&self, source: &str, now: Timestamp) -> Result<StoredRuleset, WarehouseError> {
        let mut tx = self.writer.begin_with("begin immediate").await?;
        if let Some(newest) = rulesets::newest(&mut tx).await?
            && *newest.source == *source
        {
            return Ok(newest);
        }
        let stored = rulesets::insert(&mut tx, source, now).await?;
        error::commit(tx).await?;
        Ok(stored)
    }

    async fn ruleset(&self, version: u64) -> Result<Option<StoredRuleset>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        Ok(rulesets::list(&mut conn, Some(version), 1).await?.pop())
    }

    async fn rulesets(&self, limit: u32) -> Result<Vec<StoredRuleset>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        rulesets::list(&mut conn, None, limit).await
    }

    async fn paused(&self) -> Result<Vec<String>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        rulesets::paused(&mut conn).await
    }

    async fn set_paused(&self, experience: &str, paused: bool, now: Timestamp) -> Result<(), WarehouseError> {
        let mut conn = self.writer.acquire().await?;
        rulesets::set_paused(&mut conn, experience, paused, now).await
    }

    async fn decided_since(
        &self,
        shop: &Shop,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        decisions::since(&mut conn, shop, since, limit).await
    }

    async fn decision(
        &self,
        shop: &Shop,
        decision_id: &str,
    ) -> Result<Option<StoredDecision>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        decisions::read(&mut conn, shop, decision_id).await
    }

    async fn purchases(&self, shop: &Shop, max_lines: usize) -> Result<Purchases, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        purchases::newest(&mut conn, shop, max_lines).await
    }

    async fn interactions(&self, shop: &Shop, max_events: usize) -> Result<Vec<Interaction>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        sessions::newest(&mut conn, shop, max_events).await
    }

    async fn catalogue(&self, shop: &Shop, max_items: usize) -> Result<Vec<CatalogueItem>, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        products::catalogue(&mut conn, shop, max_items).await
    }

    async fn outcomes(&self, query: &OutcomeQuery<'_>) -> Result<Outcomes, WarehouseError> {
        let mut conn = self.readers.acquire().await?;
        experiments::outcomes(&mut conn, query).await
    }

    async fn key_check_value(&self, own: &str) -> Result<String, WarehouseError> {
        let mut conn = self.writer.acquire().await?;
        Ok(meta::remember(&mut conn, meta::KEY_CHECK_VALUE, own).await?)
    }

    async fn close(&self) {
        self.readers.close().await;
        // The last connection copies the WAL into the file and removes it.
        self.writer.close().await;
    }
}
