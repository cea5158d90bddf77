//! The leases of a log on Redis, in Redis: one script, so that two workers never take the same partition at once.

use std::sync::Arc;

use async_trait::async_trait;
use redis::Script;
use uuid::Uuid;

use super::super::lease::{LEASE, Lease, Leases};
use super::{ReadError, RedisStreams, Trouble};

const WORKERS: &str = "cartwright:{leases}:workers";
const LEASES: &str = "cartwright:{leases}:partitions";

#[derive(Debug)]
pub(super) struct RedisLeases {
    log: Arc<RedisStreams>,
    script: Script,
}

impl RedisLeases {
    pub(super) fn new(log: Arc<RedisStreams>) -> Self {
        RedisLeases {
            log,
            script: Script::new(include_str!("leases.lua")),
        }
    }

    async fn run(&self, worker: Uuid, lasts_ms: u64) -> Result<Vec<Lease>, ReadError> {
        // A log of another number of partitions is not shared out.
        self.log.log_id().await?;
        let mut call = self.script.prepare_invoke();
        call.key(WORKERS).key(LEASES);
        call.arg(worker.to_string())
            .arg(self.log.partitions)
            .arg(lasts_ms);
        let mut connection = self.log.writes.connection().map_err(Trouble::from)?;
        let held: Vec<u64> = connection.invoke(&call).await.map_err(Trouble::from)?;
        let leases = held.chunks_exact(2).filter_map(|pair| match *pair {
            [partition, token] => Some(Lease {
                partition: u16::try_from(partition).ok()?,
                token,
            }),
            _ => None,
        });
        Ok(leases.collect())
    }
}

#[async_trait]
impl Leases for RedisLeases {
    async fn renew(&self, worker: Uuid) -> Result<Vec<Lease>, ReadError> {
        self.run(worker, u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
            .await
    }

    async fn release(&self, worker: Uuid) -> Result<(), ReadError> {
        self.run(worker, 0).await.map(drop)
    }
}
