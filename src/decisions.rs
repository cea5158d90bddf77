//! Why a shopper saw what they saw: a recorded decision, made again from its record under the ruleset of its time.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::decision::{RecordError, RecordedFacts};
use crate::domain::ids::Shop;
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

fn again(
    decision_id: &str,
    stored: &StoredDecision,
    ruleset: &Ruleset,
) -> Result<PastDecision, DecisionError> {
    let facts = RecordedFacts::read(&stored.facts)?;
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
