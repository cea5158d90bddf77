//! Rulesets: what the growth team decided, parsed and compiled once.
//!
//! - One YAML file declares placements, segments and experiences; `docs/ruleset.md` is the guide for people.
//! - Parsing reports every problem at once, each with its line, the path of the field and a reason. A ruleset
//!   with a problem is refused whole: half a ruleset is nobody's intention.
//! - What a request needs is prepared here: names become indices, experiences are sorted by placement and
//!   priority, equal conditions become one, payloads are serialised, and it is known which profile fields any
//!   condition reads.
//! - Bounded: [`MAX_BYTES`] of source, [`MAX_EXPERIENCES`] experiences, [`MAX_NAMES`] of everything else.

mod conditions;
pub mod fields;
mod model;
mod parse;
pub mod predicate;
mod seen;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;

pub use seen::values_seen;

pub use model::{
    Arrangement, Bandit, Candidate, CapPeriod, Condition, ConditionId, Experience, FrequencyCap, Goal, Group,
    HELD_OUT, ItemRules, Payload, Placement, PlacementKind, Reads, SERVED, Schedule, Segment, Slot, Variant,
    VariantEffect,
};

/// The longest source text. A thousand experiences take about 300 KiB.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The most experiences: five times what the performance goals are set for.
pub const MAX_EXPERIENCES: usize = 5_000;
/// The most placements, segments, candidates, variants, pinned, boosted or hidden items of one list.
pub const MAX_NAMES: usize = 500;

/// Where a placement is, by its name. Names are the operator's own, so nobody chooses them to collide.
type ByName = HashMap<Arc<str>, usize, FixedState>;

/// A parsed and compiled ruleset.
#[derive(Debug, Clone)]
pub struct Ruleset {
    version: u64,
    currency: Arc<str>,
    /// Minor units in one major unit.
    minor_units: f64,
    placements: Vec<Placement>,
    by_name: ByName,
    segments: Vec<Segment>,
    experiences: Vec<Experience>,
    conditions: Vec<Condition>,
    groups: Vec<Group>,
    holdout: f64,
    has_experiments: bool,
    segment_reads: Reads,
    reads: Reads,
}

impl Ruleset {
    /// Parses `source`, to be known as `version`.
    ///
    /// # Errors
    /// [`RulesetErrors`] with everything that is wrong, in the order of the lines.
    pub fn parse(source: &str, version: u64) -> Result<Ruleset, RulesetErrors> {
        parse::parse(source, version)
    }

    /// The same with the experiences of these ids, and no others, paused. Ids that it does not have are passed over.
    #[must_use]
    pub fn with_paused(mut self, ids: &[String]) -> Ruleset {
        for experience in &mut self.experiences {
            experience.paused = ids.iter().any(|id| **id == *experience.id);
        }
        self
    }

    /// The version under which the warehouse stores it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The currency in which conditions see money.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// An amount of [`Ruleset::currency`] as conditions see it.
    pub fn major_units(&self, minor: i64) -> f64 {
        minor as f64 / self.minor_units
    }

    /// As declared.
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    pub fn placement(&self, name: &str) -> Option<&Placement> {
        self.by_name
            .get(name)
            .and_then(|index| self.placements.get(*index))
    }

    /// As declared.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// As declared.
    pub fn experiences(&self) -> &[Experience] {
        &self.experiences
    }

    /// Groups of experiences of which a shopper sees one at the most.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The share of shoppers who are kept from all experiences but the exempt ones, 0 to 1.
    pub fn holdout(&self) -> f64 {
        self.holdout
    }

    /// The distinct conditions; a [`ConditionId`] is an index.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Whether a request may meet an experiment, and so should bring a record permit.
    pub fn has_experiments(&self) -> bool {
        self.has_experiments
    }

    /// Which costly facts the segments' conditions read.
    pub fn segment_reads(&self) -> Reads {
        self.segment_reads
    }

    /// Which costly facts any condition reads.
    pub fn reads(&self) -> Reads {
        self.reads
    }
}

/// One thing that is wrong with a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Where in the document, e.g. `experiences[2].when`; empty for the document itself.
    pub path: String,
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// Everything that is wrong with a ruleset; at least one problem, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ruleset has {} problem(s); the first: {}", problems.len(), First(problems))]
pub struct RulesetErrors {
    pub problems: Vec<Problem>,
}

impl RulesetErrors {
    /// One line for each problem, as `FILE:LINE:COLUMN: PATH: REASON`.
    pub fn lines<'a>(&'a self, file: &'a str) -> impl Iterator<Item = String> + 'a {
        self.problems
            .iter()
            .map(move |problem| format!("{file}:{problem}"))
    }
}

struct First<'a>(&'a [Problem]);

impl fmt::Display for First<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.first() {
            Some(problem) => problem.fmt(f),
            None => f.write_str("none"),
        }
    }
}
