//! Hot profiles in Redis, shared by all nodes: a single server, a TLS one, or a cluster.
//!
//! ```text
//! cartwright:{p<N>}:profile:<subject>   one profile, see `value`
//! cartwright:{p<N>}:published           how far a partition was published, a decimal number
//! ```
//!
//! - `N` is `subject.partition(SLOTS)` for a profile and `partition mod SLOTS` for a mark. With a log of that many
//!   partitions, which is the default, a partition's profiles and its mark share a cluster slot and fail over
//!   together, so a failover that lost writes lost the mark with them, and the lane notices.
//! - [`HotStore::put_newer`] compares versions in a script on the server (`put_newer.lua`): no reply of an earlier read
//!   is ever the base of a write, so a stale writer cannot win, however long it slept.
//! - Reads and writes have a connection each. The reading one asks for client tracking (RESP3) where somebody wants reports, so the server
//!   reports each key that was read and then written, by anybody, evicted or expired. A big batch being written delays no
//!   read.
//! - The node starts without the server, which is looked for with a back-off; until it is found every call fails at
//!   once. A connection that does not answer a ping is given up, see [`crate::redis_link`].
//! - A cluster reports no changes: its client has a connection per node, and does not say which one it lost.
//! - A profile that nobody writes expires after `ttl` give or take a tenth, so that what was written together does
//!   not expire together. Marks don't expire.
//!
//! What is lost with the server is read from the warehouse again.

mod value;
mod watch;

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use foldhash::fast::RandomState;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, Script, ServerErrorKind};

use self::watch::Watch;
use super::{HotConfig, HotError, HotObserver, HotProfile, HotStore, OpenError};
use crate::config::masked;
use crate::domain::ids::SubjectId;
use crate::redis_link::{Away, Connection, Link, LinkObserver, Place};

const PUT_NEWER: &str = include_str!("put_newer.lua");

/// Groups of keys that stay together in a cluster: the default number of a shared log's partitions.
const SLOTS: u16 = 64;

/// Profiles in one call of the script. More: the server, which does one thing at a time, keeps readers waiting for
/// longer. Fewer: more calls.
const SCRIPT_PROFILES: usize = 128;

/// How long an open waits for the server. Higher: a node starts later while the server is away. Lower: the first
/// requests of a node may find the store not connected yet.
const FIRST_WAIT: Duration = Duration::from_millis(250);

pub(super) struct RedisStore {
    reads: Link,
    writes: Link,
    watch: Arc<Watch>,
    put_newer: Script,
    ttl: Duration,
    jitter: RandomState,
    reports: bool,
    /// Whether keys of one call must share a slot: on a cluster, whatever the URL says.
    by_slot: AtomicBool,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

/// # Errors
/// [`OpenError::Url`] when the URL cannot be read. A server that is away is none.
pub(super) async fn open(config: &HotConfig) -> Result<Arc<dyn HotStore>, OpenError> {
    let place = Place::parse(&config.url).map_err(|_| OpenError::Url {
        url: masked(&config.url),
        reason: "expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, or \
                 redis-cluster://HOST:PORT,HOST:PORT",
    })?;
    let watch = Arc::new(Watch::default());
    let is_single = place.reports_changes();
    let reports = config.reports && is_single;
    let store = RedisStore {
        reads: Link::keep_for_look_ups(
            place.clone(),
            reports.then(|| Arc::clone(&watch) as Arc<dyn LinkObserver>),
            "reading hot profiles",
        ),
        writes: Link::keep(place, None, "writing hot profiles"),
        watch,
        put_newer: Script::new(PUT_NEWER),
        ttl: config.ttl,
        jitter: RandomState::default(),
        reports,
        by_slot: AtomicBool::new(!is_single),
    };
    let both = async { tokio::join!(store.reads.wait(), store.writes.wait()) };
    if tokio::time::timeout(FIRST_WAIT, both).await.is_err() {
        tracing::warn!(url = %masked(&config.url), "the hot store does not answer yet; starting without it");
    }
    Ok(Arc::new(store))
}

fn profile_key(subject: &SubjectId) -> String {
    format!("cartwright:{{p{}}}:profile:{subject}", subject.partition(SLOTS))
}

fn published_key(partition: u16) -> String {
    format!("cartwright:{{p{}}}:published:{partition}", partition % SLOTS)
}

/// The subject of a profile's key; `None` for any other key.
fn subject_of(key: &[u8]) -> Option<SubjectId> {
    let (_, subject) = std::str::from_utf8(key).ok()?.split_once("}:profile:")?;
    Some(SubjectId::from_stored(subject))
}

impl From<Away> for HotError {
    fn from(away: Away) -> HotError {
        HotError::Unavailable(away.to_string().into())
    }
}

fn unavailable(error: &RedisError) -> HotError {
    // The category alone: details may quote what was sent.
    HotError::Unavailable(error.category().into())
}

async fn ask<T: FromRedisValue>(link: &Link, command: &Cmd) -> Result<T, HotError> {
    let mut connection = link.connection()?;
    connection
        .query(command)
        .await
        .map_err(|error| unavailable(&error))
}

impl RedisStore {
    fn calls(&self, profiles: &[(SubjectId, HotProfile)]) -> Vec<Cmd> {
        let mut slots: BTreeMap<u16, Vec<&(SubjectId, HotProfile)>> = BTreeMap::new();
        let by_slot = self.by_slot.load(Ordering::Relaxed);
        for profile in profiles {
            let slot = if by_slot { profile.0.partition(SLOTS) } else { 0 };
            slots.entry(slot).or_default().push(profile);
        }
        slots
            .values()
            .flat_map(|profiles| profiles.chunks(SCRIPT_PROFILES))
            .map(|profiles| self.call(profiles, None))
            .collect()
    }

    /// One call of the script for these profiles, and the mark of a partition.
    fn call(&self, profiles: &[&(SubjectId, HotProfile)], mark: Option<(u16, u64)>) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        let keys = profiles.len() + usize::from(mark.is_some());
        command.arg(self.put_newer.get_hash()).arg(keys);
        for (subject, _) in profiles {
            command.arg(profile_key(subject));
        }
        if let Some((partition, _)) = mark {
            command.arg(published_key(partition));
        }
        for (subject, profile) in profiles {
            command
                .arg(value::encode(profile))
                .arg(self.ttl_ms(subject, profile));
        }
        if let Some((_, change_seq)) = mark {
            command.arg(change_seq);
        }
        command
    }

    /// The time to live: `ttl` give or take a tenth.
    fn ttl_ms(&self, subject: &SubjectId, profile: &HotProfile) -> u64 {
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let spread = ttl_ms / 5;
        let random = self.jitter.hash_one((subject, profile.version.n));
        let offset = random.checked_rem(spread).unwrap_or(0);
        (ttl_ms - spread / 2 + offset).max(1)
    }

    async fn mark(&self, partition: u16, change_seq: u64) -> Result<Option<u64>, HotError> {
        let mut command = redis::cmd("SET");
        command.arg(published_key(partition)).arg(change_seq).arg("GET");
        ask(&self.writes, &command).await
    }

    /// Calls of the script; the last one's answer. A server that is new, was restarted or told to forget is told the script first: calls that
    /// succeeded change nothing the second time.
    async fn run(&self, connection: &mut Connection, calls: &[Cmd]) -> Result<Option<u64>, RedisError> {
        match run_known(connection, calls).await {
            Err(error) if is_kind(&error, ServerErrorKind::NoScript) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(PUT_NEWER);
                let () = connection.query(&load).await?;
                run_known(connection, calls).await
            }
            done => done,
        }
    }
}

async fn run_known(connection: &mut Connection, calls: &[Cmd]) -> Result<Option<u64>, RedisError> {
    match connection {
        Connection::Single(connection) => {
            let mut pipeline = Pipeline::with_capacity(calls.len());
            for call in calls {
                pipeline.add_command(call.clone());
            }
            let answers: Vec<Option<u64>> = pipeline.query_async(connection).await?;
            Ok(answers.last().copied().flatten())
        }
        // The calls go to different nodes, and a pipeline goes to one.
        Connection::Cluster(connection) => {
            let mut last = None;
            for call in calls {
                last = call.query_async(connection).await?;
            }
            Ok(last)
        }
    }
}

#[async_trait]
impl HotStore for RedisStore {
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError> {
        let mut command = redis::cmd("GET");
        command.arg(profile_key(subject));
        let found: Option<Bytes> = ask(&self.reads, &command).await?;
        Ok(found.and_then(value::decode))
    }

    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError> {
        let mut connection = self.writes.connection()?;
        let mut done = self.run(&mut connection, &self.calls(profiles)).await;
        if done
            .as_ref()
            .is_err_and(|error| is_kind(error, ServerErrorKind::CrossSlot))
        {
            // Nothing of such a call happened. A cluster of one, most likely.
            self.by_slot.store(true, Ordering::Relaxed);
            done = self.run(&mut connection, &self.calls(profiles)).await;
        }
        // The server's own report comes on another connection, and whoever asked for the put would overtake it. After a failed
        // put as well: it may have succeeded.
        self.watch.written(profiles.iter().map(|(subject, _)| subject));
        done.map(drop).map_err(|error| unavailable(&error))
    }

    async fn published(&self, partition: u16) -> Result<Option<u64>, HotError> {
        let mut command = redis::cmd("GET");
        command.arg(published_key(partition));
        ask(&self.writes, &command).await
    }

    async fn publish(
        &self,
        partition: u16,
        profiles: &[(SubjectId, HotProfile)],
        change_seq: u64,
    ) -> Result<Option<u64>, HotError> {
        // On a cluster the mark may be kept elsewhere than some of the profiles.
        let alone = match self.by_slot.load(Ordering::Relaxed) {
            true => profiles.len(),
            false => profiles.len().saturating_sub(SCRIPT_PROFILES),
        };
        let (alone, with_mark) = profiles.split_at(alone);
        if !alone.is_empty() {
            self.put_newer(alone).await?;
        }
        if with_mark.is_empty() {
            return self.mark(partition, change_seq).await;
        }
        let call = self.call(&Vec::from_iter(with_mark), Some((partition, change_seq)));
        let mut connection = self.writes.connection()?;
        let done = self.run(&mut connection, &[call]).await;
        self.watch.written(with_mark.iter().map(|(subject, _)| subject));
        match done {
            Err(error) if is_kind(&error, ServerErrorKind::CrossSlot) => {
                self.by_slot.store(true, Ordering::Relaxed);
                self.put_newer(with_mark).await?;
                self.mark(partition, change_seq).await
            }
            done => done.map_err(|error| unavailable(&error)),
        }
    }

    fn observe(&self, observer: Arc<dyn HotObserver>) -> bool {
        if self.reports {
            self.watch.add(observer);
        }
        self.reports
    }
}

fn is_kind(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profiles_key_says_whose_it_is() {
        let subject = SubjectId::from_stored("u:k1.abc");
        let key = profile_key(&subject);
        let slot = subject.partition(SLOTS);
        assert_eq!(key, format!("cartwright:{{p{slot}}}:profile:u:k1.abc"));
        assert_eq!(subject_of(key.as_bytes()), Some(subject));
        assert_eq!(subject_of(published_key(3).as_bytes()), None);
        assert_eq!(subject_of(b"\xff"), None);
    }
}
