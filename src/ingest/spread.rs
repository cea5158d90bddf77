//! Events on their way into the partitions of the log.
//!
//! A shopper's events go to one partition, in the order sent. A log of one partition takes all of a call together or none. With
//! more, some partitions may take their share while another refuses: then nothing is acknowledged, and what is sent again counts
//! once, by its event ids.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::domain::event::Event;
use crate::queue::{AppendError, EventQueue};

/// The events of one partition, with their places among all.
#[derive(Debug, Default)]
pub(crate) struct Share {
    places: Vec<usize>,
    events: Vec<Event>,
}

/// Events by partition.
#[derive(Debug, Default)]
pub(crate) struct Spread(BTreeMap<u16, Share>);

/// A durable event.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Its place among the events that were spread.
    pub(crate) place: usize,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) event: Event,
}

impl Spread {
    pub(crate) fn over(partitions: u16, events: Vec<Event>) -> Spread {
        let mut shares: BTreeMap<u16, Share> = BTreeMap::new();
        if partitions <= 1 {
            let places = (0..events.len()).collect();
            shares.insert(0, Share { places, events });
            return Spread(shares);
        }
        for (place, event) in events.into_iter().enumerate() {
            let share = shares.entry(event.partition(partitions)).or_default();
            share.places.push(place);
            share.events.push(event);
        }
        Spread(shares)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(|share| share.events.len()).sum()
    }

    /// Appends every share, and keeps those that were refused. Returns what is durable, and the worst refusal. Dropped midway
    /// it keeps all.
    pub(crate) async fn append(&mut self, queue: &dyn EventQueue) -> (Vec<Placed>, Option<AppendError>) {
        let appends = self.0.iter().map(async |(partition, share)| {
            let appended = queue.append(*partition, &share.events).await;
            (*partition, appended)
        });
        let mut placed = Vec::new();
        let mut worst: Option<AppendError> = None;
        for (partition, appended) in join_all(appends).await {
            match appended {
                Ok(first) => {
                    let share = self.0.remove(&partition).unwrap_or_default();
                    let events = share.places.into_iter().zip(share.events).zip(first..);
                    placed.extend(events.map(|((place, event), offset)| Placed {
                        place,
                        partition,
                        offset,
                        event,
                    }));
                }
                Err(error)
                    if worst
                        .as_ref()
                        .is_none_or(|worst| gravity(&error) > gravity(worst)) =>
                {
                    worst = Some(error);
                }
                Err(_) => {}
            }
        }
        if worst.is_some() && !placed.is_empty() {
            // Part of it is there.
            worst = worst.map(|error| match error {
                AppendError::Full { .. } | AppendError::Unavailable { .. } => AppendError::Unknown {
                    reason: error.to_string().into(),
                },
                other => other,
            });
        }
        placed.sort_unstable_by_key(|placed| placed.place);
        (placed, worst)
    }
}

/// What a caller must know rather than the others.
fn gravity(error: &AppendError) -> u8 {
    match error {
        AppendError::Full { .. } => 0,
        AppendError::Unavailable { .. } => 1,
        AppendError::Unknown { .. } => 2,
        AppendError::Closed { .. } => 3,
        AppendError::TooLarge { .. } => 4,
    }
}
