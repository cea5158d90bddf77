//! The OpenFeature Remote Evaluation Protocol (OFREP 0.3): every content placement is a flag.
//!
//! - An evaluation is a decision like any other: it goes the way of `/personalize`, with its permit, its record and its
//!   metrics. Rankings and recommendations are no flags, so they are neither decided nor counted.
//! - A bulk answer bears an entity tag; see [`tag`]. A caller who has it is told so, and nothing was served then.
//! - A degraded answer has no tag, so that the caller asks again.
//! - Errors have the protocol's shape; see [`failure`].
//!
//! `docs/ofrep.md` is the guide for people.

mod context;
mod failure;
mod flag;
mod tag;

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::time::Instant;

use self::failure::Failure;
use self::flag::{Flag, Flags};
use super::Personalize;
use super::case::Case;
use crate::clock;
use crate::domain::decision::Decision;
use crate::domain::ruleset::{PlacementKind, Ruleset};
use crate::http::answer::{Degraded, Frame, respond};
use crate::http::error::{Code, Problem};
use crate::http::extract::{Presented, authenticate, presented_key};
use crate::telemetry::Route;

/// Where the protocol's own documents put the key.
pub(in crate::http) const API_KEY: &str = "x-api-key";

/// Evaluate all flags for this shopper.
///
/// OFREP's bulk evaluation. Every `content` placement of the ruleset is a flag. Send the answer's `ETag` as `If-None-Match` to
/// be told by a 304 that nothing has changed; that serves nothing again. An answer that had to do without something is marked
/// `degraded` in its flags' metadata and has no `ETag`.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags", operation_id = "evaluateFlagsBulk", tag = "ofrep",
    params(
        ("key" = Option<String>, Query, description = "A public API key, where no header can be sent"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer"),
    ),
    request_body = context::OfrepRequest,
    responses(
        (status = 200, description = "Every flag", body = Flags, headers(
            ("ETag" = String, description = "Absent where the answer is degraded"))),
        (status = 304, description = "What the caller has still holds"),
        (status = "4XX", description = "The request is not valid", body = Failure),
        (status = 503, description = "This node has no ruleset yet, or too much to do; ask again after `Retry-After` seconds", body = Failure),
    ),
    security(("key" = []), ("api_key" = []), ("basic" = []), ("url_key" = [])),
)]
pub(in crate::http) async fn bulk(State(service): State<Arc<Personalize>>, request: Request) -> Response {
    let started = Instant::now();
    let answer = service.evaluate(None, request).await;
    service.told(None, started, answer)
}

/// Evaluate one flag for this shopper.
///
/// OFREP's single evaluation: the `content` placement of that name.
#[utoipa::path(
    post, path = "/ofrep/v1/evaluate/flags/{key}", operation_id = "evaluateFlag", tag = "ofrep",
    params(
        ("key" = String, Path, description = "The placement's name", example = "promo"),
    ),
    request_body = context::OfrepRequest,
    responses(
        (status = 200, description = "The flag", body = Flag<'_>),
        (status = 404, description = "The ruleset has no such content placement", body = Failure),
        (status = "4XX", description = "The request is not valid", body = Failure),
        (status = 503, description = "This node has no ruleset yet, or too much to do; ask again after `Retry-After` seconds", body = Failure),
    ),
    security(("key" = []), ("api_key" = []), ("basic" = []), ("url_key" = [])),
)]
pub(in crate::http) async fn single(
    State(service): State<Arc<Personalize>>,
    key: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let Ok(Path(key)) = key else {
        let problem = Problem::new(Code::NotFound, "the flag's key is not percent-encoded UTF-8");
        return service.told(None, started, Err(problem));
    };
    let answer = service.evaluate(Some(&key), request).await;
    service.told(Some(&key), started, answer)
}

impl Personalize {
    /// Of one flag, or of all.
    async fn evaluate(&self, flag: Option<&str>, request: Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let key = authenticate(&self.keys, presented(&parts)?.as_ref(), None)?;
        let held = self.bodies.read(&parts.headers, body).await?;
        let ruleset = self.rulesets.current().ok_or(Code::NotReady)?;
        let mut ask = context::read(&held.bytes)?;
        // The budget is for our part, not for the shopper's uplink.
        let deadline = self.deadline(&ask, Instant::now());
        let now = clock::now();
        let shopper = self.identify(key, &ask, now)?;
        let names = names(&ruleset, flag).map(Cow::Borrowed);
        let names = ask.placements.insert(names.collect());
        if let (Some(flag), true) = (flag, names.is_empty()) {
            let detail = format!("there is no content placement {flag:?}");
            return Err(Problem::new(Code::NotFound, detail));
        }

        let mut tag = None;
        let write = |case: &Case<'_, '_>, frame: &Frame<'_>, decision: &Decision<'_>| {
            if flag.is_some() {
                return flag::write_one(frame, decision);
            }
            if frame.degraded == Degraded::default() {
                let own = tag::of(case, &ruleset, decision);
                let is_known = tag::is_among(&own, &parts.headers);
                tag = Some(own);
                if is_known {
                    return None;
                }
            }
            Some(flag::write_all(frame, decision))
        };
        let case = Case::new(&key.shop, &ask, shopper, now);
        let (body, timing) = self
            .answer(case, Some(Arc::clone(&ruleset)), deadline, write)
            .await;
        let mut response = match body {
            Some(body) => respond(body, timing),
            None => {
                let mut response = respond(Vec::new(), timing);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response.headers_mut().remove(header::CONTENT_TYPE);
                response
            }
        };
        if let Some(Ok(tag)) = tag.map(HeaderValue::try_from) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    }

    fn told(&self, flag: Option<&str>, started: Instant, answer: Result<Response, Problem>) -> Response {
        let response = answer.unwrap_or_else(|problem| failure::respond(flag, problem));
        self.metrics
            .request(Route::Ofrep, response.status().as_u16(), started.elapsed());
        response
    }
}

/// The key as everywhere, or in `X-API-Key`.
fn presented(parts: &Parts) -> Result<Option<Presented<'_>>, Problem> {
    match parts.headers.get(API_KEY) {
        Some(value) if !parts.headers.contains_key(header::AUTHORIZATION) => {
            let text = value.to_str().map_err(|_| Code::UnknownKey)?;
            Ok(Some(Presented::Header(Cow::Borrowed(text.trim()))))
        }
        _ => presented_key(parts),
    }
}

/// The content placements: all, or the one of that name.
fn names<'r>(ruleset: &'r Ruleset, flag: Option<&str>) -> impl Iterator<Item = &'r str> {
    let placements = ruleset.placements().iter();
    placements
        .filter(|placement| matches!(placement.kind, PlacementKind::Content { .. }))
        .map(|placement| &*placement.name)
        .filter(move |name| flag.is_none_or(|flag| *name == flag))
}
