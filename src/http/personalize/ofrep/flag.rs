//! A decision as OFREP's flags.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::decision::{Decision, Filling, PlacementDecision, Reason};
use crate::http::answer::Frame;

/// The variant of a fallback.
const FALLBACK: &str = "fallback";

/// Every flag.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OfrepFlags)]
pub(super) struct Flags<'a> {
    flags: Vec<Flag<'a>>,
}

/// One flag: a content placement, filled.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OfrepFlag)]
pub(super) struct Flag<'a> {
    /// The placement's name.
    #[schema(example = "promo")]
    key: &'a str,
    /// The payload: any JSON value of the ruleset. Absent where that is `null`: the code's default is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<&'a RawValue>,
    /// `TARGETING_MATCH` where an experience applied, `SPLIT` where an experiment assigned what is shown, `STATIC` for other
    /// fallbacks.
    reason: &'static str,
    /// The variant; the experience where it has no variants, `fallback` for the fallback.
    variant: &'a str,
    metadata: Metadata<'a>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OfrepMetadata)]
struct Metadata<'a> {
    /// The reason as `/personalize` says it.
    cartwright_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    experience: Option<&'a str>,
    /// A UUID of version 7; the same for all flags of one answer.
    decision_id: &'a str,
    /// What could not be taken into account, as names separated by commas; absent when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<&'a str>,
}

/// What one decision says of all its flags.
struct Shared {
    decision_id: String,
    degraded: Option<String>,
}

impl Shared {
    fn of(frame: &Frame<'_>) -> Self {
        let names: Vec<&str> = frame.degraded.names().collect();
        Shared {
            decision_id: frame.decision_id.to_string(),
            degraded: (!names.is_empty()).then(|| names.join(",")),
        }
    }

    fn flag<'a>(&'a self, placement: &'a PlacementDecision<'_>) -> Flag<'a> {
        Flag {
            key: placement.name,
            value: value(placement)
                .filter(|json| *json != "null")
                .and_then(|json| serde_json::from_str(json).ok()),
            reason: reason(placement.reason),
            variant: variant(placement),
            metadata: Metadata {
                cartwright_reason: placement.reason.as_str(),
                experience: placement.experience,
                decision_id: &self.decision_id,
                degraded: self.degraded.as_deref(),
            },
        }
    }
}

/// The body of a bulk answer.
pub(super) fn write_all(frame: &Frame<'_>, decision: &Decision<'_>) -> Vec<u8> {
    let shared = Shared::of(frame);
    let flags = decision.placements.iter();
    let flags = Flags {
        flags: flags.map(|placement| shared.flag(placement)).collect(),
    };
    // Structs of strings and JSON always serialise.
    serde_json::to_vec(&flags).unwrap_or_default()
}

/// The body of a single answer.
pub(super) fn write_one(frame: &Frame<'_>, decision: &Decision<'_>) -> Option<Vec<u8>> {
    let shared = Shared::of(frame);
    let placement = decision.placements.first()?;
    Some(serde_json::to_vec(&shared.flag(placement)).unwrap_or_default())
}

/// The payload as JSON text.
pub(super) fn value<'a>(placement: &PlacementDecision<'a>) -> Option<&'a str> {
    match placement.filling {
        Filling::Content(payload) => payload.map(|payload| payload.as_json()),
        Filling::Ranking(_) | Filling::Recommendation(_) => None,
    }
}

pub(super) fn variant<'a>(placement: &PlacementDecision<'a>) -> &'a str {
    placement.variant.or(placement.experience).unwrap_or(FALLBACK)
}

/// The protocol's word. It has none for a default, so a fallback is as static as the ruleset.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::TargetingMatch => "TARGETING_MATCH",
        // Whoever is kept from an experience is so by the same kind of assignment.
        Reason::Split | Reason::Bandit | Reason::Holdout => "SPLIT",
        Reason::Capped
        | Reason::NoMatch
        | Reason::Consent
        | Reason::Degraded
        | Reason::Ranked
        | Reason::Recommended
        | Reason::Popular => "STATIC",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_protocols_reasons_go_out() {
        for own in Reason::ALL {
            let known = ["STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "UNKNOWN"];
            assert!(known.contains(&reason(own)), "{own:?}");
        }
    }
}
