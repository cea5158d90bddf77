//! Gates on the way to the stores, so that a test can force the order in which things happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cartwright::app::Backends;
use cartwright::domain::ids::SubjectId;
use cartwright::hot::{HotError, HotObserver, HotProfile, HotStore};
use cartwright::queue::{
    AppendError, Entry, EventQueue, Extent, Leases, Position, ReadError, ReadLimits, Records,
};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::faults::FaultyWarehouse;

/// Longer than anything takes on a busy machine; a test fails with a reason instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Open at first. While it is shut, whoever comes waits.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_shut: bool,
    waiting: usize,
}

impl Gate {
    pub fn shut(&self) {
        self.0.send_modify(|state| {
            *state = State {
                is_shut: true,
                waiting: 0,
            };
        });
    }

    pub fn open(&self) {
        self.0.send_modify(|state| state.is_shut = false);
    }

    pub fn is_shut(&self) -> bool {
        self.0.borrow().is_shut
    }

    pub async fn pass(&self) {
        let arrive = |state: &mut State| {
            state.waiting += usize::from(state.is_shut);
            state.is_shut
        };
        if self.0.send_if_modified(arrive) {
            let _ = self.0.subscribe().wait_for(|state| !state.is_shut).await;
        }
    }

    /// Waits until somebody waits.
    pub async fn is_reached(&self) {
        let mut state = self.0.subscribe();
        let reached = tokio::time::timeout(PATIENCE, state.wait_for(|state| state.waiting > 0));
        assert!(reached.await.is_ok(), "nobody came to the gate");
    }
}

/// The gates of one node.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    /// Events that are durable, on their way back to whoever appended them.
    pub appended: Gate,
    /// Records on their way to the lane.
    pub lane: Gate,
    /// Reads on their way to the hot store.
    pub hot_asked: Gate,
    /// What the hot store found, on its way back. While the one or the other is shut, the test needs several threads.
    pub hot_found: Gate,
    /// Whether the hot store is to find nothing.
    pub hot_is_blank: Arc<AtomicBool>,
    /// What the warehouse found, on its way back.
    pub warehouse_found: Gate,
}

impl Gates {
    pub fn around(&self, backends: Backends) -> Backends {
        let warehouse = FaultyWarehouse::new(backends.warehouse, []);
        Backends {
            queue: Arc::new(GatedQueue {
                inner: backends.queue,
                gates: self.clone(),
            }),
            warehouse: Arc::new(warehouse.holding_documents(&self.warehouse_found)),
            hot: Arc::new(GatedHot {
                inner: backends.hot,
                gates: self.clone(),
            }),
        }
    }
}

#[derive(Debug)]
struct GatedQueue {
    inner: Arc<dyn EventQueue>,
    gates: Gates,
}

#[async_trait]
impl EventQueue for GatedQueue {
    fn partitions(&self) -> u16 {
        self.inner.partitions()
    }

    fn leases(self: Arc<Self>) -> Arc<dyn Leases> {
        Arc::clone(&self.inner).leases()
    }

    fn append_bytes(&self) -> usize {
        self.inner.append_bytes()
    }

    async fn append_records(&self, partition: u16, records: &Arc<Records>) -> Result<u64, AppendError> {
        let appended = self.inner.append_records(partition, records).await;
        self.gates.appended.pass().await;
        appended
    }

    async fn read(&self, from: Position, limits: ReadLimits) -> Result<Vec<Entry>, ReadError> {
        let read = self.inner.read(from, limits).await;
        if read.as_ref().is_ok_and(|entries| !entries.is_empty()) {
            self.gates.lane.pass().await;
        }
        read
    }

    async fn trim(&self, below: Position) -> Result<(), ReadError> {
        self.inner.trim(below).await
    }

    async fn extent(&self, partition: u16) -> Result<Extent, ReadError> {
        self.inner.extent(partition).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[derive(Debug)]
struct GatedHot {
    inner: Arc<dyn HotStore>,
    gates: Gates,
}

impl GatedHot {
    async fn look(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError> {
        self.gates.hot_asked.pass().await;
        let found = self.inner.get(subject).await;
        self.gates.hot_found.pass().await;
        found
    }
}

#[async_trait]
impl HotStore for GatedHot {
    async fn get(&self, subject: &SubjectId) -> Result<Option<HotProfile>, HotError> {
        if self.gates.hot_is_blank.load(Ordering::SeqCst) {
            return Ok(None);
        }
        if self.gates.hot_asked.is_shut() || self.gates.hot_found.is_shut() {
            // At one stroke, or the reader would give up: a look may take some milliseconds and no more.
            return tokio::task::block_in_place(|| Handle::current().block_on(self.look(subject)));
        }
        self.inner.get(subject).await
    }

    async fn put_newer(&self, profiles: &[(SubjectId, HotProfile)]) -> Result<(), HotError> {
        self.inner.put_newer(profiles).await
    }

    async fn published(&self, partition: u16) -> Result<Option<u64>, HotError> {
        self.inner.published(partition).await
    }

    async fn publish(
        &self,
        partition: u16,
        profiles: &[(SubjectId, HotProfile)],
        change_seq: u64,
    ) -> Result<Option<u64>, HotError> {
        self.inner.publish(partition, profiles, change_seq).await
    }

    fn observe(&self, observer: Arc<dyn HotObserver>) -> bool {
        self.inner.observe(observer)
    }
}
