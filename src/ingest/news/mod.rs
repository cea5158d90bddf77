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

use self::message::{Heard, Message};
use self::recent::Recent;
use crate::broadcast::{Broadcast, Channel};
use crate::domain::event::Event;
use crate::profiles::Overlay;
use crate::telemetry::{Metrics, Told};

/// How long an event waits for company before it is told. Higher: other nodes show it later. Lower: more messages, of which each
/// costs every node and Redis some 20 us, however little is in it.
const LINGER: Duration = Duration::from_millis(1);

/// What may wait to be told, some 500 events. Higher: after a pause of Redis nodes are busy for longer with what the lane has passed
/// already. Lower: a burst is not told.
const WAITING_BYTES: usize = 256 << 10;

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
        let count = heard.len();
        let placed = heard
            .into_iter()
            .filter(|heard| heard.partition < outbox.partitions);
        for Heard {
            partition,
            offset,
            event,
        } in placed
        {
            if self.recent.is_new(&event.shop, &event.event_id) {
                self.overlay.add_heard(partition, offset, event);
            } else {
                self.overlay.note_place(partition, offset, &event);
            }
        }
        self.metrics.told(Told::Heard, count);
    }
}

/// Tells other nodes what this one took.
#[derive(Debug)]
pub struct Teller {
    news: Arc<News>,
    broadcast: Broadcast,
}

impl Teller {
    /// Tells until `stop` is cancelled, and then once more what waits; one message at a time: what arrives meanwhile goes together.
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

#[cfg(test)]
mod tests {
    use super::message::tests::event;
    use super::*;
    use crate::domain::ids::{Environment, Shop};
    use crate::profiles::OverlayLimits;

    const PARTITIONS: u16 = 4;

    /// News that are shared through a Redis that is away.
    fn news() -> (Arc<News>, Teller) {
        let overlay = Arc::new(Overlay::new(OverlayLimits::default()));
        let shop = Shop::new("acme", Environment::Live).unwrap();
        let channel = Channel::find("redis://127.0.0.1:1", &shop).unwrap();
        News::shared(overlay, PARTITIONS, channel, Metrics::new().unwrap())
    }

    fn counted(news: &News, result: &str) -> u64 {
        let name = format!("cartwright_peer_events_total{{result=\"{result}\"}} ");
        let metrics = news.metrics.render();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    }

    #[tokio::test]
    async fn what_waits_to_be_told_is_bounded_and_what_is_dropped_is_counted() {
        let (news, teller) = news();
        let outbox = news.outbox.as_ref().unwrap();
        let mut events = 0;
        while counted(&news, "dropped") == 0 {
            news.add(0, events, event(&events.to_string()));
            events += 1;
        }
        let size_bytes = outbox.waiting().size_bytes();
        assert_eq!(outbox.waiting().len() as u64 + 1, events);
        assert!(
            (WAITING_BYTES..WAITING_BYTES + 256).contains(&size_bytes),
            "{size_bytes}"
        );

        // What waits when the node stops is given up with the server away, not waited for.
        let stop = CancellationToken::new();
        stop.cancel();
        teller.run(stop).await;
        assert_eq!(counted(&news, "dropped"), events);
        assert!(outbox.waiting().is_empty());
    }

    #[tokio::test]
    async fn what_is_heard_enters_the_overlay_once_and_only_from_partitions_that_there_are() {
        let (news, _teller) = news();
        let hear = |partition, id| {
            let mut message = Message::default();
            message.push(partition, 7, &event(id));
            news.hear(&message.encode(Uuid::now_v7()));
            news.overlay.size_bytes()
        };
        assert_eq!(hear(PARTITIONS, "e1"), 0);
        let one = hear(PARTITIONS - 1, "e1");
        assert!(one > 0);
        assert_eq!(hear(0, "e1"), one);
        assert_eq!(hear(0, "e2"), 2 * one);
        assert_eq!(counted(&news, "heard"), 4);
    }
}
