//! The profile: what is known of a shopper, as parts that form a commutative monoid.
//!
//! `fold(part, contribution)` and `merge(a, b)` are pure and total, the order of contributions does not matter,
//! and `merge` joins disjoint sets of events. That one law lets lanes interleave, lets late events simply be
//! folded, makes a guest becoming a customer one `merge`, and makes a rebuild in any order equal the live state.
//!
//! | field | class | join |
//! |---|---|---|
//! | events, orders, revenue, refunds | counter | wrapping integer addition |
//! | first seen, last seen, last order | extreme | minimum, maximum |
//! | checkout step | last writer | the greatest `(time, event)` |
//! | recent items | the K greatest | latest mark of each item, then the K latest items: exact |
//! | cart | operations after the greatest clear | union, bounded: exact (see `cart`) |
//! | affinities | decayed weight | see `decay`; equal within 1e-9 |
//! | caps | counts per day, session, lifetime | see `caps` |
//! | assignments | earliest | a user's own before a guest's, then the least `(time, event)` |
//! | consent | last writer by time of receipt | denied wins ties; survives a reset |
//! | generation | reset | the higher one only |
//!
//! Every collection is bounded. What a full one lets go of is stated where its bound is; that is the only
//! approximation besides floating-point addition. Duplicates are not recognised here: the caller folds each
//! event once.

mod bounded;
mod caps;
mod cart;
mod cursor;
mod decay;
mod document;
mod fold;
mod format;
mod json;
mod mark;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub use caps::CapWindow;
pub use cart::{Cart, CartLine};
pub use decay::DecayedWeight;
pub use document::{AsOf, DecodeError, Document, Version};
pub use snapshot::{Purchases, Snapshot, Weights};

use self::bounded::BoundedMap;
use self::caps::Cap;
use self::cart::CartState;
use self::mark::Mark;
use super::consent::{Consent, ConsentStatement};
use super::ids::{Stamp, Timestamp};

/// Which decayed affinity a weight belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    Item,
    Category,
    PaymentMethod,
    ShippingMethod,
    Device,
}

/// One change of the open cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CartOp {
    /// Adds `quantity` of an item; the price is in minor units, where known.
    Add {
        item: Arc<str>,
        quantity: u32,
        price_minor: Option<i64>,
    },
    Remove {
        item: Arc<str>,
        quantity: u32,
    },
}

/// One change of a part. What an event does is a short list of these.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Any event of the shopper's own: counts it, and widens first and last seen.
    Seen,
    Weight {
        affinity: Affinity,
        key: Arc<str>,
        weight: f64,
    },
    RecentItem {
        item: Arc<str>,
    },
    Cart(CartOp),
    /// Empties the cart as of the contribution's stamp: operations up to it no longer count.
    CartCleared,
    /// The checkout step reached, from 1; 0 means left or completed.
    CheckoutStep(u16),
    /// The net effect of a change of an order's effective row; may be negative.
    Orders {
        orders: i64,
        cancelled: i64,
        currency: Arc<str>,
        revenue_minor: i64,
    },
    Refunds {
        refunds: i64,
        currency: Arc<str>,
        refunded_minor: i64,
    },
    /// An order was reported at this stamp, whichever report wins.
    OrderSeen,
    /// An experience with a frequency cap was served.
    Served {
        experience: Arc<str>,
        session: Option<Arc<str>>,
    },
    Assigned {
        experiment: Arc<str>,
        variant: Arc<str>,
        /// Made while only a guest was known: what the user was assigned goes before it.
        is_guest: bool,
    },
    /// Consent as stated at `received_at`; `import` can only reduce it.
    Consent {
        statement: ConsentStatement,
        received_at: Timestamp,
        import: bool,
    },
}

/// What one event contributes to one part.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    pub stamp: Stamp,
    pub deltas: Vec<Delta>,
    /// Personalization was withdrawn by this event: the part starts a new generation.
    pub resets: bool,
}

/// What one identity did, as a commutative monoid whose identity element is `default()`.
///
/// What folds and is stored. To read what it says, see [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub struct ProfilePart {
    generation: u32,
    consent: Consent,
    state: State,
}

/// All that a reset forgets. The order of the fields is that of the stored formats.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct State {
    events: i64,
    first_seen: Option<Timestamp>,
    last_seen: Option<Timestamp>,
    last_order: Option<Timestamp>,
    checkout_step: Option<(Mark, u16)>,
    totals: BoundedMap<Totals>,
    affinities: [BoundedMap<DecayedWeight>; 5],
    recent: Vec<RecentItem>,
    cart: CartState,
    caps: BoundedMap<Cap>,
    assignments: BoundedMap<Assigned>,
}

/// What was bought in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Totals {
    orders: i64,
    cancelled: i64,
    revenue_minor: i64,
    refunds: i64,
    refunded_minor: i64,
}

/// The variant that one identity was first assigned. Ordered: what a user was assigned goes before what was assigned to a
/// guest who became that user, then the earliest goes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Assigned {
    is_guest: bool,
    mark: Mark,
    variant: SmolStr,
}

/// An item with the latest event that showed it. Sorted by mark, latest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct RecentItem {
    mark: Mark,
    item: SmolStr,
}
