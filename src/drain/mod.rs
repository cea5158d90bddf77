//! The lanes that carry the log into its views.
//!
//! A lane is a loop with no memory of its own: it asks its view where it stands, reads from there, transforms,
//! and applies, the position moving in the same transaction as the rows. So a crash anywhere resumes exactly
//! where the data ends: reading is at-least-once, the effect exactly-once, and there is no batch boundary to
//! remember.
//!
//! - [`fast`] folds events into the warehouse and publishes the documents it wrote to the hot store.
//! - [`retry`] is the one table that says what a lane makes of each failure.
//! - [`batch`] gathers a micro-batch and turns it into effects.

mod batch;
mod fast;
mod publish;
mod quarantine;
mod retry;

pub use batch::BatchLimits;
pub use fast::{FastLane, LaneError, Passed, RulesetSource};
