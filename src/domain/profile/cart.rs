//! The open cart: a bounded set of operations after the greatest clear, evaluated in time order when read.
//!
//! - An operation counts unless its event lies before the greatest clear. Operations of the clearing event itself
//!   count: a snapshot of a cart is a clear followed by additions, in one event.
//! - Kept are the [`MAX_OPERATIONS`] greatest by `(time, event, ordinal)`. Both rules commute with each other and
//!   with union, so the cart is exact in any order of arrival; only a cart of more operations forgets its oldest.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::CartOp;
use super::cursor::{Cursor, InPlace};
use super::mark::Mark;

/// Operations kept after the last clear: more than any cart a person fills by hand, about 5 KiB encoded.
const MAX_OPERATIONS: usize = 128;

/// Lines that one reading yields at most are bounded by the operations; quantities by this.
const MAX_QUANTITY: i64 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Operation {
    pub(super) mark: Mark,
    /// The place among the operations of one event.
    ordinal: u16,
    pub(super) item: SmolStr,
    /// Negative removes.
    pub(super) quantity: i32,
    pub(super) price_minor: Option<i64>,
}

/// The state that folds and merges.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct CartState {
    cleared: Option<Mark>,
    /// Sorted.
    pub(super) operations: Vec<Operation>,
}

/// The cart as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cart<'a> {
    /// In the order in which the items first came in.
    pub lines: Vec<CartLine<'a>>,
    /// The sum over the lines whose price is known, in minor units.
    pub total_minor: i64,
    /// The sum of the quantities.
    pub count: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartLine<'a> {
    pub item: &'a str,
    pub quantity: i64,
    /// The latest known unit price.
    pub price_minor: Option<i64>,
}

/// What a stored operation does to a cart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) item: &'a str,
    pub(super) quantity: i32,
    pub(super) price_minor: Option<i64>,
}

impl<'a> InPlace<'a> for Change<'a> {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Mark::skip(cursor)?;
        // The ordinal.
        cursor.skip()?;
        Some(Change {
            item: InPlace::read(cursor)?,
            quantity: i32::try_from(cursor.signed()?).ok()?,
            price_minor: cursor.option(Cursor::signed)?,
        })
    }
}

impl CartState {
    pub(super) fn apply(&mut self, mark: Mark, ordinal: u16, op: &CartOp) {
        let (item, quantity, price_minor): (&Arc<str>, i64, _) = match op {
            CartOp::Add {
                item,
                quantity,
                price_minor,
            } => (item, i64::from(*quantity), *price_minor),
            CartOp::Remove { item, quantity } => (item, -i64::from(*quantity), None),
        };
        let quantity = quantity.clamp(-MAX_QUANTITY, MAX_QUANTITY) as i32;
        self.insert(Operation {
            mark,
            ordinal,
            item: (&**item).into(),
            quantity,
            price_minor,
        });
        self.prune();
    }

    pub(super) fn clear(&mut self, mark: Mark) {
        self.cleared = self.cleared.max(Some(mark));
        self.prune();
    }

    pub(super) fn merge(&mut self, other: &CartState) {
        self.cleared = self.cleared.max(other.cleared);
        for operation in &other.operations {
            self.insert(operation.clone());
        }
        self.prune();
    }

    fn insert(&mut self, operation: Operation) {
        if let Err(at) = self.operations.binary_search(&operation) {
            self.operations.insert(at, operation);
        }
    }

    fn prune(&mut self) {
        let outdated = match self.cleared {
            Some(cleared) => self
                .operations
                .partition_point(|operation| operation.mark < cleared),
            None => 0,
        };
        let surplus = self.operations.len().saturating_sub(MAX_OPERATIONS);
        let drop = outdated.max(surplus);
        if drop > 0 {
            self.operations.drain(..drop);
        }
    }
}

impl<'a> Cart<'a> {
    /// What changes, in their order, leave.
    pub(super) fn of(changes: impl Iterator<Item = Change<'a>>) -> Cart<'a> {
        let mut lines: Vec<CartLine<'a>> = Vec::new();
        for change in changes {
            let quantity = i64::from(change.quantity);
            match lines.iter_mut().find(|line| line.item == change.item) {
                Some(line) => {
                    line.quantity = (line.quantity + quantity).clamp(0, MAX_QUANTITY);
                    line.price_minor = change.price_minor.or(line.price_minor);
                }
                None if quantity > 0 => lines.push(CartLine {
                    item: change.item,
                    quantity,
                    price_minor: change.price_minor,
                }),
                None => {}
            }
        }
        lines.retain(|line| line.quantity > 0);
        let count = lines.iter().map(|line| line.quantity).sum();
        let total_minor = lines.iter().fold(0i64, |sum, line| {
            sum.saturating_add(line.price_minor.unwrap_or(0).saturating_mul(line.quantity))
        });
        Cart {
            lines,
            total_minor,
            count,
        }
    }
}
