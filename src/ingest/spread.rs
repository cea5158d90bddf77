//! Events on their way into the partitions of the log.
//!
//! A shopper's events go to one partition, in the order sent. A log of one partition takes all of a call together or none. With
//! more, some partitions may take their share while another refuses: then nothing is acknowledged, and what is sent again counts
//! once, by its event ids.

use std::collections::BTreeMap;
use std::future::Future;

use futures_util::future::join_all;

use crate::domain::event::Event;
use crate::queue::{AppendError, EventQueue};

/// What one partition gets.
pub(crate) trait Share: Default + Send + Sync {
    fn len(&self) -> usize;

    fn append(
        &self,
        queue: &dyn EventQueue,
        partition: u16,
    ) -> impl Future<Output = Result<u64, AppendError>> + Send;
}

/// Shares by partition.
#[derive(Debug, Default)]
pub(crate) struct Spread<S>(BTreeMap<u16, S>);

/// A share that is durable.
#[derive(Debug)]
pub(crate) struct Landed<S> {
    pub(crate) partition: u16,
    /// The offset of its first event.
    pub(crate) first: u64,
    pub(crate) share: S,
}

impl<S: Share> Spread<S> {
    pub(crate) fn share(&mut self, partition: u16) -> &mut S {
        self.0.entry(partition).or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Share::len).sum()
    }

    /// Appends every share, and keeps those that were refused. Returns what is durable, and the worst refusal. Dropped midway
    /// it keeps all.
    pub(crate) async fn append(&mut self, queue: &dyn EventQueue) -> (Vec<Landed<S>>, Option<AppendError>) {
        let appends = self.0.iter().map(async |(partition, share)| {
            let appended = share.append(queue, *partition).await;
            (*partition, appended)
        });
        let mut landed = Vec::new();
        let mut worst: Option<AppendError> = None;
        for (partition, appended) in join_all(appends).await {
            match appended {
                Ok(first) => landed.push(Landed {
                    partition,
                    first,
                    share: self.0.remove(&partition).unwrap_or_default(),
                }),
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
        if worst.is_some() && !landed.is_empty() {
            // Part of it is there.
            worst = worst.map(|error| match error {
                AppendError::Full { .. } | AppendError::Unavailable { .. } => AppendError::Unknown {
                    reason: error.to_string().into(),
                },
                other => other,
            });
        }
        (landed, worst)
    }
}

/// The events of one partition, with their places among all.
#[derive(Debug, Default)]
pub(crate) struct Events {
    places: Vec<usize>,
    events: Vec<Event>,
}

impl Share for Events {
    fn len(&self) -> usize {
        self.events.len()
    }

    async fn append(&self, queue: &dyn EventQueue, partition: u16) -> Result<u64, AppendError> {
        queue.append(partition, &self.events).await
    }
}

impl Spread<Events> {
    pub(crate) fn over(partitions: u16, events: Vec<Event>) -> Self {
        let mut spread = Spread::default();
        if partitions <= 1 {
            let places = (0..events.len()).collect();
            *spread.share(0) = Events { places, events };
            return spread;
        }
        for (place, event) in events.into_iter().enumerate() {
            let share = spread.share(event.partition(partitions));
            share.places.push(place);
            share.events.push(event);
        }
        spread
    }
}

/// A durable event.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Its place among the events that were spread.
    place: usize,
    pub(crate) partition: u16,
    pub(crate) offset: u64,
    pub(crate) event: Event,
}

/// The events of what landed, in the order in which they were spread.
pub(crate) fn placed(landed: Vec<Landed<Events>>) -> Vec<Placed> {
    let mut placed: Vec<Placed> = landed
        .into_iter()
        .flat_map(|landed| {
            let Events { places, events } = landed.share;
            let offsets = landed.first..;
            let events = places.into_iter().zip(events).zip(offsets);
            events.map(move |((place, event), offset)| Placed {
                place,
                partition: landed.partition,
                offset,
                event,
            })
        })
        .collect();
    placed.sort_unstable_by_key(|placed| placed.place);
    placed
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
