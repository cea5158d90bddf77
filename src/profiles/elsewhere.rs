//! How far the lanes of other nodes are.
//!
//! Why: a lane in this process says what it has passed; one elsewhere does not. What that one found to be a duplicate
//! changes no profile, so none would ever cover it, and the overlay would count it twice until it is too old.
//!
//! A partition's events below the warehouse's position are passed once the hot store holds every change that the
//! warehouse had numbered by then. What is found out counts from the next look on: by then what this node kept of before
//! has been reported as changed.

use std::sync::Arc;

use super::overlay::Overlay;
use crate::hot::HotStore;
use crate::warehouse::{Warehouse, WarehouseError};

/// More than a partition can number: only the number of the newest change is asked for.
const BEYOND: u64 = i64::MAX as u64;

#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Found at the last look: partitions and the offsets that they are passed up to.
    found: Vec<(u16, u64)>,
}

impl Elsewhere {
    /// Looks once at the partitions that `overlay` waits for.
    pub(super) async fn look(
        &mut self,
        overlay: &Overlay,
        warehouse: &Arc<dyn Warehouse>,
        hot: &Arc<dyn HotStore>,
    ) {
        for (partition, next) in self.found.drain(..) {
            overlay.lane_passed(partition, next);
        }
        for partition in overlay.partitions() {
            match published_up_to(partition, warehouse, hot).await {
                Ok(Some(next)) => self.found.push((partition, next)),
                Ok(None) => {}
                // It would not tell of another partition either; the next look asks again.
                Err(_) => return,
            }
        }
    }
}

/// The offset below which everything of `partition` is applied and published, as far as it can be told.
async fn published_up_to(
    partition: u16,
    warehouse: &Arc<dyn Warehouse>,
    hot: &Arc<dyn HotStore>,
) -> Result<Option<u64>, WarehouseError> {
    // In this order: the changes below the position are among those numbered, and the mark is the latest of the three.
    let Some(position) = warehouse.position(partition).await? else {
        return Ok(None);
    };
    let numbered = warehouse.changes(partition, BEYOND, 0).await?.newest;
    let published = hot.published(partition).await.ok().flatten();
    Ok((published >= Some(numbered)).then_some(position.offset))
}
