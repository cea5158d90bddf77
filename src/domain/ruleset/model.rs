//! What a parsed ruleset holds: names resolved to numbers, conditions compiled once, payloads serialised once.

use std::sync::Arc;

use super::predicate::Predicate;
use crate::domain::ids::Timestamp;
use crate::domain::profile::Affinity;
use crate::domain::recommend::ItemFacts;

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
        rules: ItemRules,
    },
}

/// Which items a recommendation may show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemRules {
    /// Never shown.
    pub exclude: Vec<Arc<str>>,
    /// Only these; empty is all.
    pub categories: Vec<Arc<str>>,
    /// The least and the greatest unit price, in minor units of the ruleset's currency.
    pub price_minor: Option<(i64, i64)>,
}

impl ItemRules {
    /// Whether [`ItemRules::admits`] depends on more of what is known of an item than whether it can be sold.
    pub fn asks_of_items(&self) -> bool {
        !self.categories.is_empty() || self.price_minor.is_some()
    }

    /// Whether `item` may be shown, given what is known of it. What a rule asks for and nobody knows is not admitted.
    pub fn admits(&self, item: &str, facts: Option<&ItemFacts>, currency: &str) -> bool {
        let is_available = facts.is_none_or(|facts| !facts.unavailable);
        let of_category = |category: &Arc<str>| self.categories.contains(category);
        let at_price = |(minor, of): &(i64, Arc<str>)| {
            self.price_minor
                .is_none_or(|(least, most)| **of == *currency && (least..=most).contains(minor))
        };
        is_available
            && !self.exclude.iter().any(|excluded| **excluded == *item)
            && (self.categories.is_empty()
                || facts.is_some_and(|facts| facts.category.as_ref().is_some_and(of_category)))
            && (self.price_minor.is_none()
                || facts.is_some_and(|facts| facts.price.as_ref().is_some_and(at_price)))
    }
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
    /// Switched off by an operator, whatever the file says.
    pub paused: bool,
    pub schedule: Schedule,
    /// Index of the group of which a shopper sees one experience at the most.
    pub group: Option<u32>,
    /// The share of shoppers who can take part at all, 0 to 1.
    pub traffic: f64,
    /// The share of shoppers who are kept from it, to compare with; 0 to 1.
    pub holdout: f64,
    /// Whether it is also served to those whom [`super::Ruleset::holdout`] keeps from experiences.
    pub holdout_exempt: bool,
    /// One, or two and more in an experiment.
    pub variants: Vec<Variant>,
    /// Where its variants are not split by weight but by what they have achieved.
    pub bandit: Option<Bandit>,
    /// What its results count.
    pub goal: Goal,
}

impl Experience {
    /// Whether shoppers are assigned at random, which must be recorded.
    pub fn is_experiment(&self) -> bool {
        self.variants.len() > 1 || self.holdout > 0.0
    }

    /// Whether a shopper's identity decides on taking part.
    pub fn needs_subject(&self) -> bool {
        self.is_experiment() || self.traffic < 1.0 || self.group.is_some()
    }

    /// The name of a variant in assignments and results.
    pub fn label(&self, variant: usize) -> &str {
        let variant = self.variants.get(variant);
        variant
            .and_then(|variant| variant.id.as_deref())
            .unwrap_or(SERVED)
    }
}

/// The only variant of an experience that does not name it, in assignments and results. Names have no `#`.
pub const SERVED: &str = "#served";
/// Kept from an experience to compare with, in assignments and results.
pub const HELD_OUT: &str = "#holdout";

/// When an experience is in force: from one instant, inclusive, until another, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl Schedule {
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// Thompson sampling instead of fixed weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandit {
    /// The share of shoppers who are assigned at random all the same, evenly.
    pub explore: f64,
    /// After how many days an outcome counts half.
    pub half_life_days: f64,
}

/// What counts as success of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The name of an event.
    pub event: Arc<str>,
    /// How long after the first exposure it still counts.
    pub window_ms: i64,
}

/// Experiences of which a shopper sees one at the most.
#[derive(Debug, Clone)]
pub struct Group {
    pub name: Arc<str>,
    /// Indices of its experiences, as declared.
    pub members: Vec<u32>,
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
