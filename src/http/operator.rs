//! The operator listener's own endpoints: metrics, imports, the state of the lanes, rulesets.
//!
//! They ask for no key: the listener is bound to the machine. A browser on that machine is kept out, see
//! [`refuse_browsers`].

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::error::{Code, Problem};
use super::events::Receipts;
use super::extract::BodyLimits;
use crate::clock;
use crate::domain::event::{Body, Source};
use crate::domain::recommend::sessions::SessionIndex;
use crate::domain::ruleset;
use crate::ingest::{Ingest, Origin, Receipt};
use crate::operations::{Operations, OperationsError};
use crate::population::Populations;
use crate::telemetry::{Metrics, Route};

#[derive(Debug)]
pub(super) struct Operator {
    pub(super) operations: Operations,
    pub(super) populations: Arc<Populations>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) bodies: BodyLimits,
    pub(super) metrics: Metrics,
}

/// Refuses what a web page sent: browsers put `Origin` on every POST and `Sec-Fetch-Site` on every request.
pub(super) async fn refuse_browsers(request: Request, next: Next) -> Response {
    let marks = [header::ORIGIN, HeaderName::from_static("sec-fetch-site")];
    if marks.iter().any(|mark| request.headers().contains_key(mark)) {
        return Problem::from(Code::NotFound).into_response();
    }
    next.run(request).await
}

/// All metrics in Prometheus' text format.
pub(super) async fn metrics(State(operator): State<Arc<Operator>>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        operator.metrics.render(),
    )
        .into_response()
}

/// `POST /operator/v1/events`: as `POST /events`, on behalf of a server key and reaching further back in time.
pub(super) async fn import(State(operator): State<Arc<Operator>>, request: Request) -> Response {
    let started = Instant::now();
    let response = match operator.take(request).await {
        Ok(results) => Json(Receipts { results }).into_response(),
        Err(problem) => problem.into_response(),
    };
    operator.metrics.request(
        Route::OperatorEvents,
        response.status().as_u16(),
        started.elapsed(),
    );
    response
}

/// `GET /operator/v1/status`: the log's extent, the fast lane's position and lag, the ruleset's version.
pub(super) async fn status(State(operator): State<Arc<Operator>>) -> Response {
    match operator.operations.status().await {
        Ok(status) => Json(status).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// `POST /operator/v1/ruleset`: puts a ruleset (YAML) in force; `{"version": N}`.
pub(super) async fn apply(State(operator): State<Arc<Operator>>, request: Request) -> Response {
    match operator.apply(request).await {
        Ok(version) => Json(json!({ "version": version })).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// What a training learnt from.
#[derive(Debug, Serialize)]
struct Trained {
    sessions: usize,
    /// Items that sessions touched.
    items: usize,
    /// Of the lists of sessions and items.
    bytes: usize,
    /// Items that were bought.
    items_bought: usize,
    took_ms: u64,
}

/// `POST /operator/v1/train`: builds the models of this node anew from the warehouse, now.
pub(super) async fn train(State(operator): State<Arc<Operator>>) -> Response {
    let started = Instant::now();
    match operator.populations.refresh().await {
        Ok(()) => {
            let model = operator.populations.current();
            let sessions = model.sessions();
            Json(Trained {
                sessions: sessions.map_or(0, SessionIndex::session_count),
                items: sessions.map_or(0, SessionIndex::item_count),
                bytes: sessions.map_or(0, SessionIndex::size_bytes),
                items_bought: model.item_count(),
                took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            })
            .into_response()
        }
        Err(error) => {
            tracing::warn!(error = %error, "the models could not be built");
            Problem::new(Code::StoreUnavailable, error.to_string()).into_response()
        }
    }
}

impl Operator {
    async fn take(&self, request: Request) -> Result<Vec<Receipt>, Problem> {
        let (parts, body) = request.into_parts();
        let held = self.bodies.read(&parts.headers, body).await?;
        let body = Body::parse(&held.bytes, self.ingest.limits().max_events)?;
        let origin = Origin {
            shop: self.operations.shop(),
            source: Source::Import,
        };
        Ok(self.ingest.accept(&body, origin, clock::now()).await?)
    }

    async fn apply(&self, request: Request) -> Result<u64, Problem> {
        let body = to_bytes(request.into_body(), ruleset::MAX_BYTES)
            .await
            .map_err(|_| Code::BodyTooLarge)?;
        let source = std::str::from_utf8(&body);
        let source = source.map_err(|_| Problem::new(Code::InvalidRuleset, "the ruleset is not UTF-8"))?;
        Ok(self.operations.apply(source, clock::now()).await?)
    }
}

impl From<OperationsError> for Problem {
    fn from(error: OperationsError) -> Self {
        match error {
            OperationsError::Ruleset(errors) => {
                let lines: Vec<String> = errors.lines("ruleset").collect();
                Problem::new(Code::InvalidRuleset, lines.join("\n"))
            }
            error @ OperationsError::Unknown(_) => Problem::new(Code::NotFound, error.to_string()),
            error => {
                tracing::warn!(error = %error, "an operator's request failed");
                // The operator may know what the shopper may not.
                Problem::new(Code::StoreUnavailable, error.to_string())
            }
        }
    }
}
