//! The pure core: facts in, facts out.
//!
//! Nothing in here does I/O, reads a clock, draws a random number, looks at the environment, logs or knows
//! HTTP. `now`, keys, salts and limits are arguments, so the same input gives the same decision on every node
//! at any time (invariant 4), and every rule of the product can be tested as a table.

mod commerce;
mod compact;
pub mod consent;
pub mod decision;
pub mod event;
pub mod experiment;
pub mod identity;
pub mod ids;
mod json;
pub mod money;
pub mod order;
pub mod product;
pub mod profile;
pub mod recommend;
pub mod ruleset;
pub mod segment;
pub mod time;
pub mod transform;
pub mod user_token;
