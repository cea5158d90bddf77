//! What a parsed ruleset holds: names resolved to numbers, conditions compiled once, payloads serialised once.

use std::sync::Arc;

use super::predicate::Predicate;
use crate::domain::profile::Affinity;

/// A JSON value as compact text, written into answers as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(Box<str>);

impl Payload {
    pub(super) fn new(json: String) -> Self {
        Payload(json.into_boxed_str())
    }

    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// The number of a distinct condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConditionId(pub(super) u32);

impl ConditionId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A place on the page that a request asks to be filled.
#[derive(Debug, Clone)]
pub struct Placement {
    pub name: Arc<str>,
    pub kind: PlacementKind,
    /// The placement's experiences, by priority (greatest first), then as declared.
    pub experiences: Vec<Slot>,
    /// Whether a condition or a cap of its experiences needs the profile.
    pub reads_profile: bool,
}

/// An experience in its placement, with what rules most of them out: small, so that a thousand lie close together.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Index of the experience.
    pub experience: u32,
    pub when: Option<ConditionId>,
}

#[derive(Debug, Clone)]
pub enum PlacementKind {
    Content {
        fallback: Payload,
    },
    Ranking {
        by: Affinity,
        /// At least one of them has no condition.
        candidates: Vec<Candidate>,
        limit: usize,
        /// How many observations of the shopper's own the population's shares weigh as much as.
        smoothing: f64,
    },
    Recommendation {
        limit: usize,
        /// Served where neither the cart nor the shop's sales say anything. Never empty.
        fallback: Vec<Arc<str>>,
    },
}

impl PlacementKind {
    /// The name on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            PlacementKind::Content { .. } => "content",
            PlacementKind::Ranking { .. } => "ranking",
            PlacementKind::Recommendation { .. } => "recommendation",
        }
    }
}

/// One thing to be ranked.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: Arc<str>,
    pub when: Option<ConditionId>,
}

/// A named group of shoppers.
#[derive(Debug, Clone)]
pub struct Segment {
    pub name: Arc<str>,
    pub when: ConditionId,
}

/// What to show to whom in one placement.
#[derive(Debug, Clone)]
pub struct Experience {
    pub id: Arc<str>,
    /// Index of the placement.
    pub placement: usize,
    pub when: Option<ConditionId>,
    pub priority: i64,
    pub cap: Option<FrequencyCap>,
    /// One, or two and more in an experiment.
    pub variants: Vec<Variant>,
}

impl Experience {
    /// Two or more variants are split at random, and so must be recorded.
    pub fn is_experiment(&self) -> bool {
        self.variants.len() > 1
    }
}

/// How often one shopper may be served an experience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrequencyCap {
    pub per: CapPeriod,
    pub count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapPeriod {
    Session,
    Day,
    Lifetime,
}

#[derive(Debug, Clone)]
pub struct Variant {
    /// `None` where the experience has only one, which was not named.
    pub id: Option<Arc<str>>,
    /// Its share relative to the other variants. 0 takes nobody new and keeps those assigned.
    pub weight: f64,
    pub effect: VariantEffect,
}

#[derive(Debug, Clone)]
pub enum VariantEffect {
    /// For content.
    Payload(Payload),
    /// For rankings and recommendations.
    Arrange(Arrangement),
}

/// How an experience changes an order that was computed.
#[derive(Debug, Clone, Default)]
pub struct Arrangement {
    /// First, in this order.
    pub pin: Vec<Arc<str>>,
    /// Factors of scores.
    pub boost: Vec<(Arc<str>, f64)>,
    /// Never shown.
    pub hide: Vec<Arc<str>>,
}

/// A distinct condition; experiences that share its text share its number.
#[derive(Debug, Clone)]
pub struct Condition {
    pub predicate: Predicate,
}

/// Which facts that cost something to gather are read by any condition. A name that merely occurs counts as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reads {
    pub items: bool,
    pub categories: bool,
    pub payment_methods: bool,
    pub shipping_methods: bool,
    pub devices: bool,
    pub recent_items: bool,
    /// The request's cart, which is the profile's where the request brings none.
    pub cart: bool,
    pub profile_cart: bool,
}

impl Reads {
    pub(super) const ALL: Reads = Reads {
        items: true,
        categories: true,
        payment_methods: true,
        shipping_methods: true,
        devices: true,
        recent_items: true,
        cart: true,
        profile_cart: true,
    };

    pub(super) fn union(self, other: Reads) -> Reads {
        Reads {
            items: self.items || other.items,
            categories: self.categories || other.categories,
            payment_methods: self.payment_methods || other.payment_methods,
            shipping_methods: self.shipping_methods || other.shipping_methods,
            devices: self.devices || other.devices,
            recent_items: self.recent_items || other.recent_items,
            cart: self.cart || other.cart,
            profile_cart: self.profile_cart || other.profile_cart,
        }
    }
}
