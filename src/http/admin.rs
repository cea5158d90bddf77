//! `/admin/v1`: what a shop's growth team and back end ask about decisions and experiments. Server keys only.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};

use super::error::{Code, Problem, ProblemBody};
use super::extract::{authenticate, presented_key};
use crate::decisions::{DecisionError, Decisions, PastDecision};
use crate::domain::ids::Shop;
use crate::experiments::{Experiments, Results, ResultsError};
use crate::keys::{KeyKind, KeyRing};
use crate::rulesets::Rulesets;
use crate::telemetry::{Metrics, Route};

#[derive(Debug)]
pub(super) struct Admin {
    pub(super) keys: Arc<KeyRing>,
    /// Whose experiments the operator listener shows.
    pub(super) shop: Shop,
    pub(super) experiments: Experiments,
    pub(super) decisions: Decisions,
    pub(super) rulesets: Arc<Rulesets>,
    pub(super) metrics: Metrics,
}

/// What an experiment has achieved.
///
/// Per variant the exposures, subjects, conversions and revenue, each difference to the control with an interval that is valid at
/// every moment, and a check of the sample ratio, which crowns no winner when it fails.
#[utoipa::path(
    get, path = "/admin/v1/experiments/{id}/results", operation_id = "getExperimentResults", tag = "admin",
    params(("id" = String, Path, description = "The experience's id")),
    responses(
        (status = 200, description = "The results so far", body = Results),
        (status = 401, description = "No key, or an unknown one", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "This needs a server key", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "The ruleset in force has no such experiment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The warehouse does not answer", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("basic" = [])),
)]
pub(super) async fn results(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let answer = match admin.shop_of(request) {
        Ok(shop) => admin.results(&shop, &id).await,
        Err(problem) => Err(problem),
    };
    admin.respond(started, answer)
}

/// The same on the operator listener, which asks for no key.
pub(super) async fn operator_results(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let started = Instant::now();
    let answer = admin.results(&admin.shop, &id).await;
    admin.respond(started, answer)
}

/// Why a shopper saw what they saw.
///
/// A recorded decision, made again from what was recorded of it (the profile, the request, what the shop's customers did as a whole)
/// under the ruleset of its time, with the reasons.
#[utoipa::path(
    get, path = "/admin/v1/decisions/{decision_id}", operation_id = "getDecision", tag = "admin",
    params(("decision_id" = String, Path, description = "As an answer of `/personalize` names it")),
    responses(
        (status = 200, description = "The decision and its reasons", body = PastDecision),
        (status = 401, description = "No key, or an unknown one", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "This needs a server key", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such decision was recorded", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The warehouse does not answer", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("basic" = [])),
)]
pub(super) async fn decision(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let answer = match admin.shop_of(request) {
        Ok(shop) => admin.decision(&shop, &id).await,
        Err(problem) => Err(problem),
    };
    admin.respond(started, answer)
}

/// The same on the operator listener, which asks for no key.
pub(super) async fn operator_decision(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Response {
    let started = Instant::now();
    let answer = admin.decision(&admin.shop, &id).await;
    admin.respond(started, answer)
}

impl Admin {
    /// Whose server key a request bears.
    fn shop_of(&self, request: Request) -> Result<Shop, Problem> {
        let (parts, _) = request.into_parts();
        let key = authenticate(&self.keys, presented_key(&parts)?.as_ref(), None)?;
        match key.kind {
            KeyKind::Server => Ok(key.shop.clone()),
            KeyKind::Public => Err(Code::ServerKeyRequired.into()),
        }
    }

    async fn results(&self, shop: &Shop, id: &str) -> Result<Json<Results>, Problem> {
        Ok(Json(self.experiments.results(shop, id).await?))
    }

    async fn decision(&self, shop: &Shop, id: &str) -> Result<Json<PastDecision>, Problem> {
        Ok(Json(self.decisions.past(shop, id).await?))
    }

    fn respond<T: IntoResponse>(&self, started: Instant, answer: Result<T, Problem>) -> Response {
        let response = match answer {
            Ok(answer) => answer.into_response(),
            Err(problem) => problem.into_response(),
        };
        self.metrics
            .request(Route::Admin, response.status().as_u16(), started.elapsed());
        response
    }
}

impl From<ResultsError> for Problem {
    fn from(error: ResultsError) -> Self {
        match error {
            ResultsError::Unknown(_) => Problem::new(Code::NotFound, error.to_string()),
            ResultsError::NoRuleset => Code::StoreUnavailable.into(),
            ResultsError::Warehouse(error) => {
                tracing::warn!(error = %error, "the results of an experiment could not be read");
                Code::StoreUnavailable.into()
            }
        }
    }
}

impl From<DecisionError> for Problem {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::Unknown => Problem::new(Code::NotFound, error.to_string()),
            error => {
                tracing::warn!(error = %error, "a past decision could not be made again");
                Problem::new(Code::StoreUnavailable, error.to_string())
            }
        }
    }
}
