//! Experiments: what their variants have achieved, and what follows from that.
//!
//! Pure: the warehouse counts, this says what the counts mean.

mod posterior;
mod statistics;

use std::sync::Arc;

pub use posterior::{Beta, Posteriors};
pub use statistics::{Difference, LEVEL, Sample, difference, sample_ratio};

/// What the warehouse counted of one experiment. A customer is a user with the guests linked to it, or a guest by itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcomes {
    pub variants: Vec<DayOutcome>,
    /// Customers who met more than one variant, which a login can bring about. They are in no variant.
    pub crossovers: u64,
    /// Decisions in which it could not take part for want of a record permit.
    pub lost: u64,
}

/// Customers who first met one variant on one day, and what they did in the window after it.
#[derive(Debug, Clone, PartialEq)]
pub struct DayOutcome {
    pub variant: Arc<str>,
    /// As in [`crate::domain::ids::Timestamp::day`].
    pub day: i64,
    /// Decisions that showed it.
    pub exposures: u64,
    pub subjects: u64,
    /// Those who reached the goal.
    pub converted: u64,
    /// In minor units, of orders that stand.
    pub revenue_minor: f64,
    /// The sum of the squares of each subject's revenue, for the variance.
    pub revenue_squares: f64,
}
