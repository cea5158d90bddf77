//! Segments: named groups of shoppers, as a function of the profile, the ruleset and the time.
//!
//! Never folded into the profile: a change of the ruleset changes everyone's segments at once, and time alone
//! moves a shopper (who has ordered nothing for 60 days) without any event.

use std::sync::Arc;

use super::decision::segments_of;
use super::ids::Timestamp;
use super::profile::Snapshot;
use super::ruleset::Ruleset;

/// The segments that `profile` is in at `now`, as declared. A condition that fails counts as false.
pub fn of(ruleset: &Ruleset, profile: &Snapshot, now: Timestamp) -> Vec<Arc<str>> {
    segments_of(ruleset, profile, now)
}
