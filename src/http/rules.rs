//! Rulesets on the operator listener: the versions kept, a dry run, the kill switch.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::admin::Admin;
use super::error::{Code, Problem};
use super::operator::Operator;
use crate::clock;
use crate::decisions::DryRun;
use crate::domain::ids::Timestamp;
use crate::domain::ruleset::{self, Ruleset};
use crate::operations::OperationsError;

/// Versions listed at most.
const LISTED: u32 = 100;

/// `GET /operator/v1/rulesets`: the newest versions, the newest first.
pub(super) async fn list(State(operator): State<Arc<Operator>>) -> Response {
    match operator.operations.rulesets(LISTED).await {
        Ok(rulesets) => Json(rulesets).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// `GET /operator/v1/rulesets/{version}`.
pub(super) async fn version(State(operator): State<Arc<Operator>>, Path(version): Path<u64>) -> Response {
    match operator.operations.ruleset(version).await {
        Ok(ruleset) => Json(ruleset).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// `POST /operator/v1/experiences/{id}/pause`: the kill switch.
pub(super) async fn pause(State(operator): State<Arc<Operator>>, Path(id): Path<String>) -> Response {
    set_paused(&operator, &id, true).await
}

/// `POST /operator/v1/experiences/{id}/resume`.
pub(super) async fn resume(State(operator): State<Arc<Operator>>, Path(id): Path<String>) -> Response {
    set_paused(&operator, &id, false).await
}

async fn set_paused(operator: &Operator, id: &str, paused: bool) -> Response {
    match operator.operations.set_paused(id, paused, clock::now()).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Since {
    hours: u32,
}

/// `POST /operator/v1/ruleset/dry-run?hours=N`: what a ruleset (YAML) would change in the decisions recorded lately.
pub(super) async fn dry_run(
    State(admin): State<Arc<Admin>>,
    Query(Since { hours }): Query<Since>,
    request: Request,
) -> Response {
    match admin.dry_run(hours, request).await {
        Ok(run) => Json(run).into_response(),
        Err(problem) => problem.into_response(),
    }
}

impl Admin {
    async fn dry_run(&self, hours: u32, request: Request) -> Result<DryRun, Problem> {
        let body = to_bytes(request.into_body(), ruleset::MAX_BYTES)
            .await
            .map_err(|_| Code::BodyTooLarge)?;
        let source = std::str::from_utf8(&body);
        let source = source.map_err(|_| Problem::new(Code::InvalidRuleset, "the ruleset is not UTF-8"))?;
        let other = Ruleset::parse(source, 0).map_err(OperationsError::Ruleset)?;
        let current = self.rulesets.current().ok_or(Code::StoreUnavailable)?;
        let back = Duration::from_secs(u64::from(hours) * 3_600).as_millis();
        let since = Timestamp(
            clock::now()
                .0
                .saturating_sub(i64::try_from(back).unwrap_or(i64::MAX)),
        );
        let run = self.decisions.dry_run(&self.shop, &current, &other, since).await;
        run.map_err(|error| OperationsError::Warehouse(error).into())
    }
}
