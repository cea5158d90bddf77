//! Poison records: an event that no transaction can store must not stop the events behind it.

use crate::domain::profile::Contribution;
use crate::domain::transform::Effect;

/// The code of a record that the warehouse refused although it passed validation.
const UNSTORABLE: &str = "unstorable";

/// The codes of the warehouse's own reasons, for the metrics.
pub(super) const UNREADABLE: &str = "unreadable_record";
pub(super) const TOO_OLD: &str = "older_than_dedupe_window";

/// Strips an effect of everything but the event itself, which goes to `quarantine` with `detail`.
pub(super) fn poisoned(effect: &Effect, detail: &str) -> Effect {
    Effect {
        event: effect.event.clone(),
        subject: None,
        contribution: Contribution {
            stamp: effect.contribution.stamp.clone(),
            deltas: Vec::new(),
            resets: false,
        },
        order: None,
        cancellation: None,
        refund: None,
        identity: None,
        products: Vec::new(),
        decision: None,
        quarantine: Some((UNSTORABLE.into(), detail.to_owned())),
    }
}
