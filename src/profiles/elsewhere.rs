//! How far the lanes of other nodes are.
//!
//! Why: a lane in this process says what it has passed; one elsewhere does not. What that one found to be a duplicate
//! changes no profile, so none would ever cover it, and the overlay would count it twice until it is too old.
//!
//! A partition's events below the warehouse's position are passed once the hot store holds every change that the
//! warehouse had numbered by then. What is found out counts from the next look on: by then what this node kept of before
//! has been reported as changed.

use std::sync::Arc;

use futures_util::future::join_all;

use super::overlay::Overlay;
use crate::hot::HotStore;
use crate::warehouse::{Progress, StoredPosition, Warehouse};

#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Found at the last look: passed up to there.
    found: Vec<StoredPosition>,
}

impl Elsewhere {
    /// Looks once at the partitions that `overlay` waits for. A store that does not tell is asked again at the next look.
    pub(super) async fn look(
        &mut self,
        overlay: &Overlay,
        warehouse: &Arc<dyn Warehouse>,
        hot: &Arc<dyn HotStore>,
    ) {
        for passed in self.found.drain(..) {
            overlay.lane_passed(passed.partition, passed.offset);
        }
        let awaited = overlay.partitions();
        if awaited.is_empty() {
            return;
        }
        // The warehouse first: what is published later is no less.
        let mut progress = warehouse.progress().await.unwrap_or_default();
        progress.retain(|progress| awaited.contains(&progress.position.partition));
        let published = progress
            .iter()
            .map(|Progress { position, .. }| hot.published(position.partition));
        let published = join_all(published).await;
        let passed = progress
            .iter()
            .zip(published)
            .filter_map(|(progress, published)| {
                let is_published = published.ok().flatten() >= Some(progress.change_seq);
                is_published.then_some(progress.position)
            });
        self.found.extend(passed);
    }
}
