//! News: events that are durable, and that the stores may not show yet.
//!
//! - They enter this node's overlay, so that its next answer counts them, and their ids a memory that tells what was sent
//!   before.
//! - Nodes that share a log tell each other what they took, so that a shopper whose next request goes to another node finds it
//!   there within milliseconds, and not only after the lane. An event that was sent to two of them counts once for a third, and the
//!   second one's receipt may say `duplicate`.
//! - That is help and no promise. Nobody waits for it: an event is told after it was acknowledged or while it is. What cannot be told
//!   (the server is away, too much is waiting) is dropped and counted, and other nodes show it once the lane has passed it, as they
//!   would have without.
//! - What is heard is treated as what this node took itself: it is as private as the log, who may see it is decided at each
//!   request, and it is let go by the same rules.

mod message;
mod recent;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::message::Message;
use self::recent::Recent;
use crate::broadcast::{Broadcast, Channel};
use crate::domain::event::Event;
use crate::profiles::Overlay;
use crate::telemetry::{Metrics, Told};

/// How long an event waits for company before it is told. Higher: other nodes show it later. Lower: more messages, of which each
/// costs every node and Redis some 20 us, however little is in it.
const LINGER: Duration = Duration::from_millis(1);

/// What may wait to be told. Higher: a Redis that stands still holds more memory, and then sends what the lane has passed already.
/// Lower: a burst is not told.
const WAITING_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct News {
    recent: Recent,
    overlay: Arc<Overlay>,
    outbox: Option<Outbox>,
    metrics: Metrics,
}

/// What other nodes are to be told.
#[derive(Debug)]
struct Outbox {
    node: Uuid,
    /// Of the log.
    partitions: u16,
    waiting: Mutex<Message>,
    /// Something waits.
    arrived: Notify,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Message> {
        // Whole between any two statements; an event that a panic left half encoded is none, see `Records`.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    /// News of this node alone.
    pub fn alone(overlay: Arc<Overlay>, metrics: Metrics) -> Arc<News> {
        Arc::new(News::new(overlay, None, metrics))
    }

    /// News that nodes with a log of so many `partitions` share through `channel`, and what tells them, to be run.
    pub fn shared(
        overlay: Arc<Overlay>,
        partitions: u16,
        channel: Channel,
        metrics: Metrics,
    ) -> (Arc<News>, Teller) {
        let outbox = Outbox {
            node: Uuid::now_v7(),
            partitions,
            waiting: Mutex::default(),
            arrived: Notify::new(),
        };
        let news = Arc::new(News::new(overlay, Some(outbox), metrics));
        let hearing = Arc::clone(&news);
        let teller = Teller {
            news: Arc::clone(&news),
            broadcast: channel.open(Arc::new(move |message| hearing.hear(message))),
        };
        (news, teller)
    }

    fn new(overlay: Arc<Overlay>, outbox: Option<Outbox>, metrics: Metrics) -> News {
        News {
            recent: Recent::new(),
            overlay,
            outbox,
            metrics,
        }
    }

    pub(super) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Takes an event that this node made durable at `offset` of `partition`.
    pub fn add(&self, partition: u16, offset: u64, event: Event) {
        if let Some(outbox) = &self.outbox {
            let mut waiting = outbox.waiting();
            if waiting.size_bytes() >= WAITING_BYTES {
                self.metrics.told(Told::Dropped, 1);
            } else {
                waiting.push(partition, offset, &event);
                if waiting.len() == 1 {
                    outbox.arrived.notify_one();
                }
            }
        }
        self.overlay.add(partition, offset, event);
    }

    /// Takes what another node tells.
    fn hear(&self, message: &[u8]) {
        let Some(outbox) = &self.outbox else { return };
        let Ok(heard) = message::decode(message, outbox.node) else {
            // Of nodes of another release, most likely, and so for as long as they run.
            self.metrics.told(Told::Unreadable, 1);
            return;
        };
        self.metrics.told(Told::Heard, heard.len());
        for heard in heard {
            let is_placed = heard.partition < outbox.partitions;
            if is_placed && self.recent.is_new(&heard.event.shop, &heard.event.event_id) {
                self.overlay.add(heard.partition, heard.offset, heard.event);
            }
        }
    }
}

/// Tells other nodes what this one took.
#[derive(Debug)]
pub struct Teller {
    news: Arc<News>,
    broadcast: Broadcast,
}

impl Teller {
    /// Tells until `stop` is cancelled, one message at a time: what arrives meanwhile goes together.
    pub async fn run(self, stop: CancellationToken) {
        let Some(outbox) = &self.news.outbox else { return };
        let mut message = Message::default();
        loop {
            let company = async {
                outbox.arrived.notified().await;
                tokio::time::sleep(LINGER).await;
            };
            let stopped = stop.run_until_cancelled(company).await.is_none();
            std::mem::swap(&mut *outbox.waiting(), &mut message);
            if !message.is_empty() {
                let told = self.broadcast.send(&message.encode(outbox.node)).await;
                let outcome = told.map_or(Told::Dropped, |()| Told::Told);
                self.news.metrics.told(outcome, message.len());
                message.clear();
            }
            if stopped {
                return;
            }
        }
    }
}
