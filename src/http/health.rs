//! Health, for orchestrators and balancers.
//!
//! The stores' health is metrics and `degraded`, never readiness: if a dead store made every node unready, the
//! balancer would take the whole shop down.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::error::{Code, Problem, ProblemBody};
use crate::rulesets::Rulesets;
use crate::telemetry::Metrics;

#[derive(Debug)]
pub(super) struct Health {
    pub(super) rulesets: Arc<Rulesets>,
    pub(super) stopping: CancellationToken,
    pub(super) metrics: Metrics,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HealthBody {
    /// `live` or `ready`.
    status: &'static str,
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/health/live", operation_id = "getLive", tag = "health",
    responses((status = 200, description = "It does", body = HealthBody)))]
pub(super) async fn live() -> Json<HealthBody> {
    Json(HealthBody { status: "live" })
}

/// Whether this node takes traffic: a ruleset is loaded and it isn't stopping.
#[utoipa::path(get, path = "/health/ready", operation_id = "getReady", tag = "health",
    responses(
        (status = 200, description = "It does", body = HealthBody),
        (status = 503, description = "It does not", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(super) async fn ready(State(health): State<Arc<Health>>) -> Result<Json<HealthBody>, Problem> {
    let ready = health.rulesets.is_loaded() && !health.stopping.is_cancelled();
    health.metrics.ready(ready);
    if ready {
        Ok(Json(HealthBody { status: "ready" }))
    } else {
        Err(Code::NotReady.into())
    }
}
