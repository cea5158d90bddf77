//! One process's share of the lanes: a lane for each partition that it holds a lease of.
//!
//! ```text
//! renew ──▶ a partition more ──▶ its lane starts where the warehouse stands
//!   ▲  └──▶ a partition less ──▶ its lane finishes its batch and ends
//!   └────── every second
//! ```
//!
//! - A lease that could not be renewed in its time is taken for lost, and its lane ends: somebody else may have it.
//! - A worker that was paused (a stopped virtual machine) notices nothing until it wakes. What it applies then fails, because the
//!   position has moved under it; so does what a lane applies that is still finishing its batch.
//! - A lane that met what time does not heal stays stopped, and its lease held: another worker would only meet it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fast::{FastLane, LaneError};
use super::together::Together;
use crate::queue::{LEASE, Lease, Leases, RENEW_EVERY};
use crate::telemetry::Lane;

/// How long one renewal may take. Higher: a hanging store eats into the life of the leases.
const RENEW_BUDGET: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Worker {
    id: Uuid,
    leases: Arc<dyn Leases>,
    /// What the lanes are made from; its partition does not count.
    template: FastLane,
    lanes: BTreeMap<u16, Running>,
    /// Lanes that are finishing their last batch.
    leaving: Vec<JoinHandle<Result<(), LaneError>>>,
    renewed_at: Instant,
}

#[derive(Debug)]
struct Running {
    token: u64,
    stop: CancellationToken,
    /// `None` once the lane has stopped by itself.
    task: Option<JoinHandle<Result<(), LaneError>>>,
}

impl Worker {
    /// A worker whose lanes are copies of `template`.
    pub fn new(template: FastLane) -> Self {
        let together = (template.queue.partitions() > 1).then(|| Together::start(&template));
        Worker {
            id: Uuid::now_v7(),
            leases: Arc::clone(&template.queue).leases(),
            template: FastLane { together, ..template },
            lanes: BTreeMap::new(),
            leaving: Vec::new(),
            renewed_at: Instant::now(),
        }
    }

    /// Works until `stop` is cancelled; the batches under way are finished first, and the leases given back.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.renew().await;
            self.reap().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
        }
        self.hold(&[]);
        for lane in self.leaving.drain(..) {
            report(lane.await);
        }
        self.template.metrics.lane_running(Lane::Fast, false);
        // Without it the partitions wait for the leases to end, and no longer.
        let _ = tokio::time::timeout(RENEW_BUDGET, self.leases.release(self.id)).await;
    }

    async fn renew(&mut self) {
        let asked_at = Instant::now();
        match tokio::time::timeout(RENEW_BUDGET, self.leases.renew(self.id)).await {
            Ok(Ok(held)) => {
                self.renewed_at = asked_at;
                self.hold(&held);
            }
            _ if asked_at.duration_since(self.renewed_at) >= LEASE && !self.lanes.is_empty() => {
                tracing::warn!("the leases could not be renewed; the lanes of this worker end");
                self.hold(&[]);
            }
            // They still hold.
            _ => {}
        }
    }

    /// Starts the lanes of what is held and ends the others.
    fn hold(&mut self, held: &[Lease]) {
        let is_held = |partition, token| held.contains(&Lease { partition, token });
        let lost = self
            .lanes
            .extract_if(.., |partition, lane| !is_held(*partition, lane.token));
        for (partition, lane) in lost {
            lane.stop.cancel();
            self.leaving.extend(lane.task);
            tracing::debug!(partition, "the partition is given up");
        }
        for Lease { partition, token } in held {
            self.lanes.entry(*partition).or_insert_with(|| {
                let stop = CancellationToken::new();
                let lane = FastLane {
                    partition: *partition,
                    ..self.template.clone()
                };
                let stopped = stop.clone();
                tracing::debug!(partition, token, "the partition is taken");
                Running {
                    token: *token,
                    stop,
                    task: Some(tokio::spawn(async move { lane.run(stopped).await })),
                }
            });
        }
    }

    /// Looks after lanes that ended.
    async fn reap(&mut self) {
        for lane in self.leaving.extract_if(.., |lane| lane.is_finished()) {
            report(lane.await);
        }
        for lane in self.lanes.values_mut() {
            if let Some(task) = lane.task.take_if(|task| task.is_finished()) {
                report(task.await);
            }
        }
        let all_run = self.lanes.values().all(|lane| lane.task.is_some());
        self.template.metrics.lane_running(Lane::Fast, all_run);
    }
}

/// Says so where a lane ended without being asked to.
fn report(ended: Result<Result<(), LaneError>, tokio::task::JoinError>) {
    let error = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    tracing::error!(
        error,
        "a fast lane stopped for good: requests are answered and events kept, but its profiles no longer follow; \
         remove the cause and start again"
    );
}
