//! How a decision came about, for the growth team: every experience of every placement with its verdict.
//!
//! For people and tools behind a server key. It costs far more than the decision, holds no identifier, and its
//! members may grow.

use serde_json::{Value, json};

use super::eligibility::{Access, Eligibility, Verdict};
use super::{BUCKETING_VERSION, Filling, PlacementDecision, bucketing};
use crate::domain::recommend::Population;
use crate::domain::ruleset::values_seen;
use crate::domain::ruleset::{CapPeriod, ConditionId, Experience, HELD_OUT, Placement, PlacementKind};

/// The explanation as JSON text.
pub(super) fn whole(rules: &Eligibility<'_, '_>, segments: &[&str], placements: Vec<Value>) -> String {
    let profile = match (rules.access, rules.part) {
        (Access::Denied, _) => "denied",
        (Access::Unavailable, _) => "unavailable",
        (Access::Usable, None) => "absent",
        (Access::Usable, Some(_)) => "known",
    };
    let all = rules.ruleset.segments().iter().map(|segment| {
        let mut explained = condition(rules, Some(segment.when));
        explained["segment"] = json!(segment.name);
        explained["member"] = json!(segments.contains(&&*segment.name));
        explained
    });
    json!({
        "ruleset_version": rules.ruleset.version(),
        "bucketing_version": BUCKETING_VERSION,
        "profile": profile,
        "record_permit": rules.terms.record_permit,
        "errors": rules.errors,
        "segments": all.collect::<Vec<_>>(),
        "placements": placements,
    })
    .to_string()
}

pub(super) fn placement(
    rules: &mut Eligibility<'_, '_>,
    placement: &Placement,
    filled: &PlacementDecision<'_>,
    population: &Population,
) -> Value {
    let ruleset = rules.ruleset;
    let mut experiences = Vec::with_capacity(placement.experiences.len());
    let mut decided = false;
    for slot in &placement.experiences {
        let Some(experience) = ruleset.experiences().get(slot.experience as usize) else {
            continue;
        };
        let verdict = rules.judge(experience);
        let served = filled.experience == Some(&*experience.id);
        let outcome = match verdict {
            _ if served => "served",
            Verdict::Eligible { .. } if decided => "outranked",
            Verdict::Eligible { .. } => "eligible",
            Verdict::NotMatched => "not_matched",
            Verdict::Paused => "paused",
            Verdict::OffSchedule => "off_schedule",
            Verdict::OtherOfGroup => "other_of_group",
            Verdict::OutsideTraffic => "outside_traffic",
            Verdict::HeldOut { .. } | Verdict::GloballyHeldOut => "holdout",
            Verdict::Capped => "capped",
            Verdict::NoSubject => "no_subject",
            Verdict::NoPermit => "no_permit",
            Verdict::ProfileUnusable => "profile_unusable",
        };
        decided |= served;
        let mut explained = condition(rules, experience.when);
        explained["experience"] = json!(experience.id);
        explained["priority"] = json!(experience.priority);
        explained["outcome"] = json!(outcome);
        if let Some(cap) = experience.cap {
            let per = match cap.per {
                CapPeriod::Session => "session",
                CapPeriod::Day => "day",
                CapPeriod::Lifetime => "lifetime",
            };
            explained["cap"] =
                json!({"per": per, "count": cap.count, "served": rules.served(experience, cap)});
        }
        if experience.needs_subject() {
            explained["experiment"] = experiment(rules, experience, verdict);
        }
        experiences.push(explained);
    }
    let mut explained = json!({
        "placement": placement.name,
        "kind": placement.kind.as_str(),
        "reason": filled.reason.as_str(),
        "experiences": experiences,
    });
    if let PlacementKind::Ranking {
        by,
        candidates,
        smoothing,
        ..
    } = &placement.kind
    {
        let list = candidates.iter().map(|candidate| {
            let own = rules
                .part
                .map_or(0.0, |part| part.score(*by, &candidate.id, rules.now));
            let mut explained = condition(rules, candidate.when);
            explained["id"] = json!(candidate.id);
            explained["own"] = json!(own);
            explained["orders"] = json!(population.count(*by, &candidate.id));
            explained
        });
        explained["candidates"] = list.collect();
        explained["smoothing"] = json!(smoothing);
    }
    if let Filling::Recommendation(items) = &filled.filling {
        explained["items"] = items
            .iter()
            .map(|item| json!({"id": item.id, "score": item.score(), "because": item.because}))
            .collect();
    }
    explained
}

/// The condition's text with its value, or with the reason why it has none.
fn condition(rules: &Eligibility<'_, '_>, when: Option<ConditionId>) -> Value {
    let Some(when) = when else {
        return json!({"when": null, "holds": true});
    };
    let Some(condition) = rules.ruleset.conditions().get(when.index()) else {
        return json!({});
    };
    let text = condition.predicate.source();
    if rules.is_unanswerable(when) {
        return json!({"when": text, "holds": false, "error": "profile_unusable"});
    }
    let saw = values_seen(text, &rules.facts);
    match condition.predicate.eval(&rules.facts) {
        Ok(holds) => json!({"when": text, "holds": holds, "saw": saw}),
        Err(error) => json!({"when": text, "holds": false, "saw": saw, "error": error.code()}),
    }
}

fn experiment(rules: &Eligibility<'_, '_>, experience: &Experience, verdict: Verdict) -> Value {
    let variants = experience.variants.iter().map(|variant| {
        let id = variant.id.as_deref().unwrap_or("");
        let hash = rules
            .subject()
            .map(|subject| bucketing::hash(&experience.id, subject, id));
        let mut explained = json!({"variant": id, "weight": variant.weight, "hash": hash});
        if experience.bandit.is_some() {
            let belief = rules.posteriors().of(&experience.id, id);
            explained["believed"] =
                json!({"alpha": belief.alpha, "beta": belief.beta, "mean": belief.mean()});
        }
        explained
    });
    let assigned = match verdict {
        Verdict::HeldOut { stored } => {
            json!({"variant": HELD_OUT, "from": if stored { "profile" } else { "hash" }})
        }
        Verdict::Eligible { variant, stored } => {
            let id = experience
                .variants
                .get(variant)
                .and_then(|variant| variant.id.as_deref());
            json!({"variant": id, "from": if stored { "profile" } else { "hash" }})
        }
        _ => Value::Null,
    };
    json!({
        // A hash is that of the experiment's id, the subject and the variant; see docs/ruleset.md.
        "subject": rules.subject(),
        "traffic": experience.traffic,
        "holdout": experience.holdout,
        "group": experience.group.and_then(|group| Some(&rules.ruleset.groups().get(group as usize)?.name)),
        "variants": variants.collect::<Vec<_>>(),
        "assigned": assigned,
    })
}
