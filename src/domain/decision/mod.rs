//! The decision: what to show this shopper, now.
//!
//! [`decide()`] is pure and total. The same facts give the same answer on every node (invariant 4), and every
//! requested placement is filled, if only with its fallback (invariant 5).
//!
//! - **Content** shows the first eligible experience, by priority and then as declared.
//! - **Ranking** orders candidates by the shopper's own decayed affinity, smoothed with the population's shares.
//! - **Recommendation** shows what sessions like this one went on with, then what is bought together with the cart and the recent
//!   items, then what is popular.
//! - An experience of two or more variants is an experiment. It takes part only with a record permit taken
//!   beforehand, so that the loss of records cannot correlate with a variant.
//! - A cap that cannot be counted (no subject, no profile, no consent) counts as reached.
//! - Each distinct condition is evaluated at most once, and only if something asks for it.
//!
//! It does not read, write, record or measure: the caller gets all it needs for that in [`Decision`].

mod answer;
mod bandit;
mod bucketing;
mod consulted;
mod decide;
mod eligibility;
#[cfg(test)]
mod experiment_tests;
mod explain;
mod facts;
mod reason;
mod recommending;
mod record;
mod scoring;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use super::consent::{Choice, ConsentStatement};
use super::ids::SubjectId;
use super::profile::{Cart, Snapshot};
use super::ruleset::Payload;

pub use bucketing::{BUCKETING_VERSION, hash};
pub use consulted::Consulted;
pub use decide::{decide, segments_of};
pub use reason::Reason;
pub use record::{Facts, PastInput, RecordError, RecordedFacts};

/// What a request says, borrowed from wherever it was parsed into. Identities and the session are pseudonyms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    pub user: Option<&'a SubjectId>,
    pub anonymous: Option<&'a SubjectId>,
    pub session: Option<&'a str>,
    /// `None` asks for all. A name asked for twice is answered once.
    pub placements: Option<&'a [&'a str]>,
    /// `None` takes the profile's cart. Prices are minor units of `currency`.
    pub cart: Option<&'a Cart<'a>>,
    /// `None` takes the ruleset's.
    pub currency: Option<&'a str>,
    pub country: Option<&'a str>,
    pub locale: Option<&'a str>,
    pub device: Option<&'a str>,
    /// What a ranking may show: placement, and the candidates that the shop offers right now.
    pub candidates: &'a [(&'a str, &'a [&'a str])],
    /// Experiences that are served whatever holds them back, with the variant: for trying out. Nothing of it is to be
    /// recorded.
    pub forced: &'a [(&'a str, &'a str)],
    /// The latest word; goes before what the profile remembers.
    pub consent: ConsentStatement,
}

/// What the read path found out about the shopper.
#[derive(Debug, Clone, Copy)]
pub enum ProfileState<'a> {
    Known(&'a Snapshot),
    /// There is no profile: a new shopper, or no id.
    Absent,
    /// It could not be read in time.
    Unavailable,
}

/// Terms on which to decide.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What holds where nobody stated anything.
    pub consent_default: Choice,
    /// Whether a record permit was taken; see [`super::ruleset::Ruleset::has_experiments`].
    pub record_permit: bool,
    /// Whether to say how the decision came about.
    pub explain: bool,
}

/// A decision, borrowing from the ruleset, the population and the request it was made from.
#[derive(Debug, Clone, Default)]
pub struct Decision<'a> {
    /// One per distinct placement asked for, in that order; all as declared where none was named.
    pub placements: SmallVec<[PlacementDecision<'a>; 4]>,
    /// The segments that the shopper is in, as declared.
    pub segments: SmallVec<[&'a str; 8]>,
    /// Experiments taken part in, with the variant or [`crate::domain::ruleset::HELD_OUT`].
    pub exposures: SmallVec<[(&'a str, &'a str); 2]>,
    /// Those taken part in for the first time: to be recorded as `Assigned`.
    pub assigned: SmallVec<[(&'a str, &'a str); 2]>,
    /// Experiences with a frequency cap that were served: to be recorded as `Served`.
    pub served: SmallVec<[&'a str; 2]>,
    /// Whether the profile was there and allowed to be used.
    pub profile_used: bool,
    /// Experiments that would have taken part but had no record permit: say so in `degraded`.
    pub withheld: SmallVec<[&'a str; 1]>,
    /// Conditions that failed and were taken for false; with `explain`, among all that could have been asked for.
    pub errors: u32,
    /// What was asked of the population: for the record.
    pub consulted: Consulted<'a>,
    /// How the decision came about, as JSON text.
    pub explanation: Option<String>,
}

/// How one placement is filled.
#[derive(Debug, Clone)]
pub struct PlacementDecision<'a> {
    pub name: &'a str,
    pub experience: Option<&'a str>,
    pub variant: Option<&'a str>,
    pub filling: Filling<'a>,
    pub reason: Reason,
}

#[derive(Debug, Clone)]
pub enum Filling<'a> {
    /// `None` is JSON `null`: the ruleset declares no such placement.
    Content(Option<&'a Payload>),
    Ranking(Items<'a>),
    Recommendation(Items<'a>),
}

pub type Items<'a> = Vec<Item<'a>>;

/// One thing shown, with its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    pub id: &'a str,
    /// The score in millionths; integers compare alike everywhere.
    pub micros: u64,
    /// Of a recommendation, the item of the session that it goes with most.
    pub because: Option<&'a str>,
}

impl Item<'_> {
    pub fn score(&self) -> f64 {
        self.micros as f64 / 1e6
    }
}
