//! Experiments: what their variants have achieved, and what follows from that.
//!
//! Pure: the warehouse counts, this says what the counts mean.

mod posterior;

pub use posterior::{Beta, DayOutcome, Posteriors};
