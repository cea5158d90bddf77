//! The disk log on a disk that breaks.

mod damage;
mod faults;
mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::segment::SEGMENT_HEADER_BYTES;
use crate::domain::consent::ConsentStatement;
use crate::domain::event::{Event, Source};
use crate::domain::ids::{Environment, Shop, SubjectId, Timestamp};
use crate::queue::sim::SimDisk;
use crate::queue::{EventQueue, Position, QueueConfig, ReadLimits};

/// `CARTWRIGHT_TEST_ROUNDS` multiplies the rounds of the tests that draw at random.
#[allow(clippy::disallowed_methods)]
fn rounds(usual: u32) -> u32 {
    let factor = std::env::var("CARTWRIGHT_TEST_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    usual * factor.unwrap_or(1)
}

fn config() -> QueueConfig {
    QueueConfig {
        partitions: 1,
        url: "disk:unused".to_owned(),
        limit_bytes: 512 * 1024,
        retain: Duration::ZERO,
        retain_bytes: 0,
        segment_bytes: 16 * 1024,
    }
}

fn event(id: u64, body_bytes: usize) -> Event {
    let mut random = id;
    let mut body = Vec::with_capacity(body_bytes + 8);
    while body.len() < body_bytes {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        body.extend_from_slice(&random.to_le_bytes());
    }
    body.truncate(body_bytes);
    Event {
        shop: Shop::new("acme", Environment::Live).unwrap(),
        source: Source::Server,
        event_id: format!("event-{id}").into(),
        name: "Product Viewed".into(),
        anonymous: Some(SubjectId::from_stored("a:k1.x")),
        user: None,
        claimed_user: None,
        session: None,
        event_time: Timestamp(id as i64),
        received_at: Timestamp(id as i64 + 1),
        consent: ConsentStatement::default(),
        quarantine: None,
        body: Bytes::from(body),
    }
}

fn events(ids: std::ops::Range<u64>, body_bytes: usize) -> Vec<Event> {
    ids.map(|id| event(id, body_bytes)).collect()
}

fn limits(max_records: usize) -> ReadLimits {
    ReadLimits {
        max_records,
        max_bytes: usize::MAX,
        wait: Duration::ZERO,
    }
}

async fn position(log: &Arc<dyn EventQueue>, offset: u64) -> Position {
    Position {
        log_id: log.extent(0).await.unwrap().log_id,
        partition: 0,
        offset,
    }
}

/// All records that are kept.
async fn read_all(log: &Arc<dyn EventQueue>) -> Vec<Event> {
    let extent = log.extent(0).await.unwrap();
    let mut at = Position {
        log_id: extent.log_id,
        partition: 0,
        offset: extent.first,
    };
    let mut all = Vec::new();
    while at.offset < extent.next {
        let entries = log.read(at, limits(50)).await.unwrap();
        assert!(
            !entries.is_empty(),
            "nothing at {} below {}",
            at.offset,
            extent.next
        );
        for entry in entries {
            assert_eq!(entry.offset, at.offset);
            at.offset += 1;
            all.push(entry.event.unwrap());
        }
    }
    all
}

/// Waits until the segment ahead is prepared, so that injected faults hit the writer.
async fn settle(disk: &SimDisk) {
    let (mut before, mut quiet) = (u64::MAX, 0);
    for _ in 0..2_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = disk.operations();
        quiet = if now == before && is_prepared(disk) {
            quiet + 1
        } else {
            0
        };
        if quiet == 4 {
            return;
        }
        before = now;
    }
    panic!("the log never settles");
}

/// Whether the last of several segments holds nothing but its header, under a durable name.
fn is_prepared(disk: &SimDisk) -> bool {
    let names = disk.names();
    let segments: Vec<_> = names.iter().filter(|name| name.ends_with(".segment")).collect();
    let unused = |name: &String| {
        let content = disk.content(name).unwrap_or_default();
        content
            .iter()
            .skip(SEGMENT_HEADER_BYTES as usize)
            .all(|byte| *byte == 0)
    };
    segments.len() > 1
        && !names.iter().any(|name| name == "preparing")
        && disk.names_are_durable()
        && segments.last().is_some_and(|last| unused(last))
}
