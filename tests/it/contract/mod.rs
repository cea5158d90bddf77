//! What every backend of a trait promises: one suite per trait, run against each backend.

mod broadcast;
mod hot;
mod queue;
mod streams;
mod warehouse;
