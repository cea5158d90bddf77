//! `POST /events`: what shoppers do, acknowledged once it is durable.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::error::{Code, Problem, ProblemBody};
use super::extract::{BodyLimits, authenticate, presented_key};
use crate::clock;
use crate::domain::event::{Body, BodyError, Source};
use crate::ingest::{Ingest, IngestError, Origin, Receipt};
use crate::keys::{KeyKind, KeyRing};
use crate::telemetry::{Metrics, Route};

#[derive(Debug)]
pub(super) struct Events {
    pub(super) keys: Arc<KeyRing>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) bodies: Arc<BodyLimits>,
    pub(super) metrics: Metrics,
}

/// What became of each event, in the order sent.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Receipts {
    pub results: Vec<Receipt>,
}

/// Take events in.
///
/// One event, an array of events, or `{"events": […]}`, as `application/json` or as `text/plain` carrying JSON
/// (`sendBeacon` sends that without a preflight), as it is or as gzip. The 202 means that every event whose receipt
/// isn't `rejected` is on disk. After a 503 the whole body may be sent again: events with an `event_id`, or with a
/// `timestamp`, count once.
#[utoipa::path(
    post, path = "/events", operation_id = "postEvents", tag = "events",
    params(("key" = Option<String>, Query, description = "A public API key, where no header can be sent")),
    request_body(description = "Events; see `Event`", content(
        (super::openapi::EventsBody = "application/json"), (String = "text/plain"))),
    responses(
        (status = 202, description = "Durable", body = Receipts),
        (status = "4XX", description = "Refused whole, for good", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Not acknowledged; send it again after `Retry-After` seconds", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("basic" = []), ("url_key" = [])),
)]
pub(super) async fn post(State(events): State<Arc<Events>>, request: Request) -> Response {
    let started = Instant::now();
    let response = match events.take(request).await {
        Ok(results) => (StatusCode::ACCEPTED, axum::Json(Receipts { results })).into_response(),
        Err(problem) => problem.into_response(),
    };
    events
        .metrics
        .request(Route::PostEvents, response.status().as_u16(), started.elapsed());
    response
}

impl Events {
    async fn take(&self, request: Request) -> Result<Vec<Receipt>, Problem> {
        let (parts, body) = request.into_parts();
        let presented = presented_key(&parts)?;
        if presented.is_some() {
            // Nobody unknown makes us read a body.
            authenticate(&self.keys, presented.as_ref(), None)?;
        }
        let held = self.bodies.read(&parts.headers, body).await?;
        let body = Body::parse(&held.bytes, self.ingest.limits().max_events)?;
        let key = authenticate(&self.keys, presented.as_ref(), body.key())?;
        let origin = Origin {
            shop: &key.shop,
            source: key.kind.into(),
        };
        Ok(self.ingest.accept(&body, origin, clock::now()).await?)
    }
}

impl From<KeyKind> for Source {
    fn from(kind: KeyKind) -> Source {
        match kind {
            KeyKind::Public => Source::Public,
            KeyKind::Server => Source::Server,
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::Json { .. } | BodyError::Shape => Code::InvalidBody,
            BodyError::TooManyEvents { .. } => Code::TooManyEvents,
        };
        Problem::new(code, error.to_string())
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Full => Code::LogFull,
            IngestError::Closed | IngestError::Unavailable => Code::LogClosed,
            IngestError::TooLarge => Code::EventTooLarge,
            IngestError::Unknown => Code::OutcomeUnknown,
        }
        .into()
    }
}
