//! The lanes that carry the log into its views.
//!
//! A lane is a loop with no memory of its own: it asks its view where it stands, reads from there, transforms,
//! and applies, the position moving in the same transaction as the rows. So a crash anywhere resumes exactly
//! where the data ends: reading is at-least-once, the effect exactly-once, and there is no batch boundary to
//! remember.
//!
//! - [`fast`] folds events into the warehouse and publishes the documents it wrote to the hot store.
//! - [`together`] lets the lanes of a process share transactions.
//! - [`worker`] runs a lane for each partition that this process holds a lease of.
//! - [`retry`] is the one table that says what a lane makes of each failure.
//! - [`retention`] lets go of old events, where the warehouse keeps them by month.
//! - [`batch`] gathers a micro-batch and turns it into effects.

mod batch;
mod fast;
mod lag;
mod piece;
mod publish;
mod quarantine;
mod retention;
mod retry;
mod together;
mod worker;

pub use batch::BatchLimits;
pub use fast::{FastLane, LaneError, Passed, RulesetSource};
pub use lag::Lag;
pub use retention::Retention;
pub use together::Together;
pub use worker::Worker;
