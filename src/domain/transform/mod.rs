//! From one event to everything it does to the views: rows, an order report, a link claim, a contribution.
//!
//! Pure: both lanes and every rebuild get the same effects from the same record.

mod effects;
mod record;
mod reports;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use effects::{items_touched, transform};
pub use record::{AssignmentMade, DecisionRecord, DecisionSubject};

use super::event::Event;
use super::ids::{Stamp, SubjectId, Timestamp};
use super::profile::Contribution;

/// All that one event does.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The event itself, for `fact_event` and `event_seen`.
    pub event: Event,
    /// Whose part folds `contribution`; `None` where there is nothing to fold, or nobody to fold it into (analytics
    /// denied, or no id).
    pub subject: Option<SubjectId>,
    /// Without the effects of orders and refunds, which depend on rows already stored.
    pub contribution: Contribution,
    pub order: Option<OrderReport>,
    pub cancellation: Option<CancellationReport>,
    pub refund: Option<RefundReport>,
    pub identity: Option<IdentityClaim>,
    pub products: Vec<ProductSeen>,
    pub decision: Option<DecisionServed>,
    /// Why the event goes to `quarantine` instead of being folded: a stable code and a readable detail.
    pub quarantine: Option<(Arc<str>, String)>,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// From 1, in the order sent.
    pub line: u32,
    pub item: Arc<str>,
    pub category: Option<Arc<str>>,
    pub quantity: i64,
    /// The unit price as decimal text, as sent.
    pub unit_price: Arc<str>,
    /// `quantity × unit price`, rounded half-even to minor units.
    pub amount_minor: i64,
    /// A charge (postage, fees): in the total, never recommended.
    pub is_charge: bool,
}

/// A report that an order was completed. Of several reports of one order the greatest [`Rank`] wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderReport {
    pub order_id: Arc<str>,
    pub rank: Rank,
    pub subject: Option<SubjectId>,
    pub currency: Arc<str>,
    /// The sum of the lines where there are any, else the stated total.
    pub total_minor: i64,
    pub payment_method: Option<Arc<str>>,
    pub shipping_method: Option<Arc<str>>,
    pub coupon: Option<Arc<str>>,
    pub lines: Vec<OrderLine>,
}

/// What decides between reports of the same thing: verified before unverified, then time, then event id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    pub verified: bool,
    pub stamp: Stamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancellationReport {
    pub order_id: Arc<str>,
    pub rank: Rank,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundReport {
    /// Empty where the original order is not named.
    pub order_id: Arc<str>,
    /// The refund's own id, else the event id.
    pub refund_id: Arc<str>,
    pub rank: Rank,
    pub subject: Option<SubjectId>,
    pub currency: Arc<str>,
    /// Positive.
    pub amount_minor: i64,
}

/// A proven statement about which identities are one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityClaim {
    Link {
        anonymous: SubjectId,
        user: SubjectId,
        proof: Proof,
    },
    Unlink {
        anonymous: SubjectId,
        user: SubjectId,
    },
    /// Two known users are one; a server's `Alias` event only.
    Alias {
        user: SubjectId,
        previous: SubjectId,
    },
}

impl IdentityClaim {
    /// Of whom it speaks.
    pub fn identities(&self) -> [&SubjectId; 2] {
        match self {
            IdentityClaim::Link { anonymous, user, .. } | IdentityClaim::Unlink { anonymous, user } => {
                [anonymous, user]
            }
            IdentityClaim::Alias { user, previous } => [user, previous],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    ServerKey,
    UserToken,
}

/// What an event says of a product, for `dim_product`; the latest non-empty value of each field wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductSeen {
    pub item: Arc<str>,
    pub name: Option<Arc<str>>,
    pub category: Option<Arc<str>>,
    pub price_minor: Option<i64>,
    pub currency: Option<Arc<str>>,
    pub is_charge: bool,
    /// Pieces that can be sold.
    pub stock: Option<i64>,
    pub image_url: Option<Arc<str>>,
    pub stamp: Stamp,
}

/// A served decision, for `fact_decision`. One record holds all placements of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionServed {
    pub decision_id: Arc<str>,
    pub decided_at: Timestamp,
    pub ruleset_version: u64,
    /// One per placement: placement, experience, variant, reason.
    pub placements: Vec<PlacementServed>,
    /// The experiments that the answer took part in.
    pub exposures: Vec<AssignmentMade>,
    /// Experiments that could not take part in other decisions, with how many.
    pub withheld: Vec<(Arc<str>, u64)>,
    /// The recorded facts as JSON text: the request, the profile bytes as read, its version. Empty in a record of losses alone.
    pub facts: String,
}

/// Its texts are borrowed on their way into the log, owned on their way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementServed<S = Arc<str>> {
    pub placement: S,
    pub experience: Option<S>,
    pub variant: Option<S>,
    pub reason: S,
}
