//! Why a shopper saw what they saw: a recorded decision, made again from its record under the ruleset of its time; and what others
//! would have seen under another ruleset.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::decision::{Decision, Filling, PastInput, RecordError};
use crate::domain::ids::{Shop, Timestamp};
use crate::domain::ruleset::{Ruleset, RulesetErrors};
use crate::domain::time::format_rfc3339;
use crate::warehouse::{StoredDecision, Warehouse, WarehouseError};

/// A past decision, with its reasons.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PastDecision {
    pub decision_id: String,
    /// RFC 3339.
    pub decided_at: String,
    pub ruleset_version: u64,
    /// Of the profile that was read: the warehouse's epoch and the count of its writes; null where there was none.
    pub profile_version: Option<ProfileVersion>,
    /// The request's facts as decided with; ids are pseudonyms.
    #[schema(value_type = Object)]
    pub request: Box<RawValue>,
    /// What was recorded as shown.
    pub served: Vec<ServedPlacement>,
    /// Whether deciding again gave the same. It does not where the shopper had denied analytics: nothing of them is kept then.
    pub reproduced: bool,
    /// What deciding again gives, as in an answer of `/personalize`.
    #[schema(value_type = Object)]
    pub placements: Box<RawValue>,
    /// How it came about, as with `explain=true`.
    #[schema(value_type = Object)]
    pub explain: Box<RawValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ProfileVersion {
    pub epoch: u64,
    pub n: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ServedPlacement {
    pub placement: String,
    pub experience: Option<String>,
    pub variant: Option<String>,
    pub reason: String,
}

/// Why a decision cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    #[error("no such decision was recorded; `decisions.record` says which are")]
    Unknown,
    #[error("the warehouse: {0}")]
    Warehouse(#[from] WarehouseError),
    #[error("its ruleset, version {0}, is not in the warehouse")]
    NoRuleset(u64),
    #[error("its ruleset cannot be read by this build: {0}")]
    Ruleset(RulesetErrors),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// See the module.
#[derive(Debug)]
pub struct Decisions {
    warehouse: Arc<dyn Warehouse>,
}

impl Decisions {
    pub fn new(warehouse: Arc<dyn Warehouse>) -> Self {
        Decisions { warehouse }
    }

    /// # Errors
    /// [`DecisionError`].
    pub async fn past(&self, shop: &Shop, decision_id: &str) -> Result<PastDecision, DecisionError> {
        let stored = self.warehouse.decision(shop, decision_id).await?;
        let stored = stored.ok_or(DecisionError::Unknown)?;
        let version = stored.ruleset_version;
        let source = self.warehouse.ruleset(version).await?;
        let source = source.ok_or(DecisionError::NoRuleset(version))?.source;
        let ruleset = Ruleset::parse(&source, version).map_err(DecisionError::Ruleset)?;
        again(decision_id, &stored, &ruleset)
    }
}

/// The most decisions that a dry run makes again.
const MOST_REPLAYED: u32 = 20_000;

/// What a ruleset would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DryRun {
    /// Recorded decisions made again.
    pub decisions: u64,
    /// Of these, those of which some placement would be filled differently.
    pub changed: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// The most frequent first.
    pub changes: Vec<PlacementChange>,
}

/// One way in which a placement would be filled differently.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PlacementChange {
    pub placement: String,
    /// Experience and variant, else the reason, and what is shown, under the ruleset in force.
    pub from: String,
    /// The same under the other one.
    pub to: String,
    pub decisions: u64,
}

impl Decisions {
    /// Makes the decisions recorded since `since` again, under `current` and under `other`, and compares. Nothing is stored.
    ///
    /// # Errors
    /// When the warehouse does not answer.
    pub async fn dry_run(
        &self,
        shop: &Shop,
        current: &Ruleset,
        other: &Ruleset,
        since: Timestamp,
    ) -> Result<DryRun, WarehouseError> {
        let records = self.warehouse.decided_since(shop, since, MOST_REPLAYED).await?;
        let mut run = DryRun::default();
        let mut changes: BTreeMap<(String, String, String), u64> = BTreeMap::new();
        for (decided_at, facts) in &records {
            let Ok(facts) = PastInput::read(facts) else {
                run.unreadable += 1;
                continue;
            };
            run.decisions += 1;
            let [before, after] =
                [current, other].map(|ruleset| facts.decide_again(ruleset, *decided_at, false, filled));
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            let mut changed = false;
            for name in names {
                let of = |side: &BTreeMap<String, String>| {
                    side.get(name).cloned().unwrap_or_else(|| "nothing".to_owned())
                };
                let (from, to) = (of(&before), of(&after));
                if from != to {
                    changed = true;
                    *changes.entry((name.clone(), from, to)).or_default() += 1;
                }
            }
            run.changed += u64::from(changed);
        }
        run.changes = changes
            .into_iter()
            .map(|((placement, from, to), decisions)| PlacementChange {
                placement,
                from,
                to,
                decisions,
            })
            .collect();
        run.changes
            .sort_by_key(|change| std::cmp::Reverse(change.decisions));
        Ok(run)
    }
}

/// What fills each placement: experience and variant, and the content or the items.
fn filled(decision: &Decision<'_>) -> BTreeMap<String, String> {
    let placements = decision.placements.iter().map(|placement| {
        let mut what = match (placement.experience, placement.variant) {
            (Some(experience), Some(variant)) => format!("{experience}/{variant}"),
            (Some(experience), None) => experience.to_owned(),
            (None, _) => placement.reason.as_str().to_owned(),
        };
        match &placement.filling {
            Filling::Content(payload) => {
                what = format!("{what} {}", payload.map_or("null", |payload| payload.as_json()));
            }
            Filling::Ranking(items) | Filling::Recommendation(items) => {
                let items: Vec<&str> = items.iter().map(|item| item.id).collect();
                what = format!("{what} [{}]", items.join(" "));
            }
        }
        (placement.name.to_owned(), what)
    });
    placements.collect()
}

fn again(
    decision_id: &str,
    stored: &StoredDecision,
    ruleset: &Ruleset,
) -> Result<PastDecision, DecisionError> {
    let facts = PastInput::read(&stored.facts)?;
    let served: Vec<ServedPlacement> = stored
        .placements
        .iter()
        .map(|placement| ServedPlacement {
            placement: placement.placement.to_string(),
            experience: placement.experience.as_deref().map(str::to_owned),
            variant: placement.variant.as_deref().map(str::to_owned),
            reason: placement.reason.to_string(),
        })
        .collect();
    let (placements, explain, reproduced) =
        facts.decide_again(ruleset, stored.decided_at, true, |decision| {
            let mut json = Vec::new();
            decision.write_placements(&mut json);
            let mut made: Vec<ServedPlacement> = decision
                .placements
                .iter()
                .map(|placement| ServedPlacement {
                    placement: placement.name.to_owned(),
                    experience: placement.experience.map(str::to_owned),
                    variant: placement.variant.map(str::to_owned),
                    reason: placement.reason.as_str().to_owned(),
                })
                .collect();
            made.sort_by(|a, b| a.placement.cmp(&b.placement));
            let explain = decision.explanation.clone().unwrap_or_default();
            (
                String::from_utf8_lossy(&json).into_owned(),
                explain,
                made == served,
            )
        });
    let raw = |json: String| RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned());
    #[derive(serde::Deserialize)]
    struct Request {
        request: Box<RawValue>,
    }
    let request = serde_json::from_str::<Request>(&stored.facts).map_err(RecordError::Facts)?;
    Ok(PastDecision {
        decision_id: decision_id.to_owned(),
        decided_at: format_rfc3339(stored.decided_at),
        ruleset_version: stored.ruleset_version,
        profile_version: facts.profile_version().map(|version| ProfileVersion {
            epoch: version.epoch,
            n: version.n,
        }),
        request: request.request,
        served,
        reproduced,
        placements: raw(placements),
        explain: raw(explain),
    })
}
