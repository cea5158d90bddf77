//! `GET` and `POST /personalize`: identify, read, decide, answer, record.
//!
//! A valid request is answered 200 within its deadline whatever is broken, with every requested placement filled
//! (invariant 5). Only what the caller got wrong is an error, and events sent along that could not be made durable,
//! since an answer would acknowledge them.
//!
//! Who sees what (invariant 8):
//!
//! | key | ids | sees |
//! |---|---|---|
//! | public | `anonymous_id` | the guest's own part |
//! | public | `user_id` and its `user_token` | that user; with `anonymous_id` also that guest, unless it is somebody else's |
//! | public | `user_id` alone | a 403 |
//! | server | any | everything; a guest who belongs to a user is that user |

mod along;
mod case;
pub(super) mod ofrep;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use smallvec::SmallVec;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use self::case::{Case, Shopper};
use super::Settings;
use super::answer::{Answer, Degraded, Frame, Timing, respond};
use super::ask::{Ask, AskBody};
use super::decision_id::decision_id;
use super::error::{Code, Problem, ProblemBody};
use super::extract::{BodyLimits, authenticate, presented_key};
use crate::clock;
use crate::deadline::Deadline;
use crate::domain::decision::{self, Decision, Filling, PlacementDecision, Reason, Terms};
use crate::domain::ids::{Environment, IdKind, PseudonymKey, Timestamp};
use crate::domain::recommend::Population;
use crate::domain::ruleset::Ruleset;
use crate::domain::user_token::UserTokenKey;
use crate::ingest::Ingest;
use crate::keys::{ApiKey, KeyKind, KeyRing};
use crate::population::Populations;
use crate::profiles::{ProfileReader, Read};
use crate::recorder::{Permit, Recorder};
use crate::rulesets::Rulesets;
use crate::telemetry::{Metrics, Route};

pub(super) const PATH: &str = "/personalize";

#[derive(Debug)]
pub(super) struct Personalize {
    pub(super) settings: Settings,
    pub(super) keys: Arc<KeyRing>,
    pub(super) pseudonym_key: PseudonymKey,
    pub(super) user_token_key: Option<UserTokenKey>,
    pub(super) profiles: Arc<ProfileReader>,
    pub(super) rulesets: Arc<Rulesets>,
    pub(super) populations: Arc<Populations>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) recorder: Recorder,
    pub(super) bodies: Arc<BodyLimits>,
    /// Requests that may read profiles at once. Beyond it an answer does without.
    pub(super) places: Semaphore,
    pub(super) metrics: Metrics,
}

/// What to show this shopper now.
///
/// A valid request is answered within its deadline whatever is broken, with every requested placement filled, if
/// only with its fallback; `degraded` says what could not be taken into account. Without any id the answer depends
/// on the cart and the page alone, and nothing is stored.
#[utoipa::path(
    get, path = PATH, operation_id = "getPersonalize", tag = "personalize",
    params(
        ("key" = Option<String>, Query, description = "A public API key, where no header can be sent"),
        ("user_id" = Option<String>, Query, description = "With a public key it needs `user_token`"),
        ("user_token" = Option<String>, Query, description = "`kid.exp.mac`, made by the shop's back end; proves `user_id`"),
        ("anonymous_id" = Option<String>, Query, description = "With a public key it shows what this guest did, nobody else"),
        ("session_id" = Option<String>, Query, description = "Counts frequency caps per session"),
        ("placements" = Option<String>, Query, description = "Names, separated by commas; all, where absent or empty", example = "payment_methods,promo"),
        ("cart" = Option<String>, Query, description = "`SKU:QTY[:PRICE],…`, each SKU percent-encoded; at most 200 lines. Goes before the profile's cart", example = "85123A:2:2.55,22423:1"),
        ("currency" = Option<String>, Query, description = "Of the cart's prices, ISO 4217; the ruleset's, where absent", example = "GBP"),
        ("country" = Option<String>, Query, description = "ISO 3166-1 alpha-2", example = "GB"),
        ("locale" = Option<String>, Query, description = "BCP 47", example = "en-GB"),
        ("device" = Option<String>, Query, description = "Such as `mobile`"),
        ("candidates.{placement}" = Option<String>, Query, description = "What a ranking may show, such as the ways to pay that the shop offers right now: names, separated by commas", example = "card,paypal"),
        ("force" = Option<String>, Query, description = "`experience:variant,…`: shows these whatever holds them back, and records nothing; keys of a test environment only"),
        ("consent" = Option<String>, Query, description = "`purpose:choice,…`; what cannot be read is denied", example = "analytics:granted,personalization:denied"),
        ("deadline_ms" = Option<u64>, Query, description = "1 to 60000; may shorten the configured budget, never lengthen it"),
        ("explain" = Option<bool>, Query, description = "How the decision came about; server key only"),
    ),
    responses(
        (status = 200, description = "Every requested placement", body = Answer, headers(
            ("Server-Timing" = String, description = "How long the steps took"))),
        (status = 400, description = "A parameter is not valid", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "No key, or an unknown one", body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "The key, or the `user_token`, does not allow this", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("basic" = []), ("url_key" = [])),
)]
pub(super) async fn get(State(service): State<Arc<Personalize>>, request: Request) -> Response {
    service.get(request.into_parts().0).await
}

/// What to show this shopper now, after what they just did.
///
/// Says the same as `GET /personalize`, as JSON, plus `events`: these are appended durably *and* counted in this
/// answer, which carries a receipt for each. If they cannot be made durable, the answer is a 503.
#[utoipa::path(
    post, path = PATH, operation_id = "postPersonalize", tag = "personalize",
    params(("key" = Option<String>, Query, description = "A public API key, where no header can be sent")),
    request_body(content((super::openapi::PersonalizeBody = "application/json"), (String = "text/plain"))),
    responses(
        (status = 200, description = "Every requested placement", body = Answer, headers(
            ("Server-Timing" = String, description = "How long the steps took"))),
        (status = "4XX", description = "The request is not valid", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The events are not acknowledged; send them again after `Retry-After` seconds", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("basic" = []), ("url_key" = [])),
)]
pub(super) async fn post(State(service): State<Arc<Personalize>>, request: Request) -> Response {
    let started = Instant::now();
    let answer = service.answer_body(request).await;
    service.respond(Route::PostPersonalize, started, answer)
}

impl Personalize {
    /// `GET /personalize`, however it was routed.
    pub(super) async fn get(&self, parts: Parts) -> Response {
        let started = Instant::now();
        let answer = self.answer_query(&parts, started).await;
        self.respond(Route::GetPersonalize, started, answer)
    }

    async fn answer_query(&self, parts: &Parts, started: Instant) -> Result<Response, Problem> {
        let key = authenticate(&self.keys, presented_key(parts)?.as_ref(), None)?;
        let ask = Ask::from_query(parts.uri.query().unwrap_or_default())?;
        let now = clock::now();
        let shopper = self.identify(key, &ask, now)?;
        let deadline = self.deadline(&ask, started);
        let case = Case::new(&key.shop, &ask, shopper, now);
        Ok(self.answer_whole(case, deadline).await)
    }

    async fn answer_body(&self, request: Request) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let presented = presented_key(&parts)?;
        let known = match &presented {
            // Nobody unknown makes us read a body.
            Some(_) => Some(authenticate(&self.keys, presented.as_ref(), None)?),
            None => None,
        };
        let held = self.bodies.read(&parts.headers, body).await?;
        let mut body = AskBody::parse(&held.bytes)?;
        let key = match known {
            Some(key) => key,
            None => authenticate(&self.keys, None, body.key.as_deref())?,
        };
        let events = body.events.take().unwrap_or_default();
        let ask = body.into_ask()?;
        // The budget is for our part, not for the shopper's uplink.
        let deadline = self.deadline(&ask, Instant::now());
        let now = clock::now();
        let shopper = self.identify(key, &ask, now)?;
        let receipts = if events.is_empty() {
            None
        } else {
            Some(self.take(key, &ask, &events, now, deadline).await?)
        };
        let case = Case {
            receipts: receipts.as_deref(),
            ..Case::new(&key.shop, &ask, shopper, now)
        };
        Ok(self.answer_whole(case, deadline).await)
    }

    fn respond(&self, route: Route, started: Instant, answer: Result<Response, Problem>) -> Response {
        let response = answer.unwrap_or_else(Problem::into_response);
        self.metrics
            .request(route, response.status().as_u16(), started.elapsed());
        response
    }

    fn deadline(&self, ask: &Ask<'_>, started: Instant) -> Deadline {
        let asked = ask.deadline_ms.map_or(Duration::MAX, Duration::from_millis);
        Deadline::at(started, self.settings.budget.min(asked))
    }

    /// Pseudonyms of whoever the request may speak for.
    fn identify(&self, key: &ApiKey, ask: &Ask<'_>, now: Timestamp) -> Result<Shopper, Problem> {
        let is_server = key.kind == KeyKind::Server;
        if ask.explain && !is_server {
            return Err(Code::ServerKeyRequired.into());
        }
        if !ask.force.is_empty() && key.shop.environment() != Environment::Test {
            return Err(Code::TestKeyRequired.into());
        }
        if let (Some(user_id), false) = (&ask.user_id, is_server) {
            let token = ask.user_token.as_deref().ok_or(Code::UserTokenRequired)?;
            let verified = self
                .user_token_key
                .as_ref()
                .map(|k| k.verify(&key.shop, user_id, token, now));
            match verified {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(Problem::new(Code::InvalidUserToken, error.to_string())),
                None => return Err(Code::InvalidUserToken.into()),
            }
        }
        let session = ask.session_id.as_deref();
        Ok(Shopper {
            user: ask
                .user_id
                .as_deref()
                .map(|id| self.pseudonym_key.user(&key.shop, id)),
            anonymous: ask
                .anonymous_id
                .as_deref()
                .map(|id| self.pseudonym_key.anonymous(&key.shop, id)),
            session: session.map(|id| self.pseudonym_key.pseudonym(IdKind::Session, &key.shop, id)),
            follows_link: is_server,
        })
    }

    /// From here on nothing fails.
    async fn answer_whole(&self, case: Case<'_, '_>, deadline: Deadline) -> Response {
        let ruleset = self.rulesets.current();
        let write =
            |_: &Case<'_, '_>, frame: &Frame<'_>, decision: &Decision<'_>| Some(frame.write(decision));
        let (body, timing) = self.answer(case, ruleset, deadline, write).await;
        respond(body.unwrap_or_default(), timing)
    }

    /// Reads, decides and records. `write` makes the body; where it makes none, since the caller has it already, nothing was
    /// served, and nothing is recorded or counted.
    async fn answer(
        &self,
        mut case: Case<'_, '_>,
        ruleset: Option<Arc<Ruleset>>,
        deadline: Deadline,
        write: impl FnOnce(&Case<'_, '_>, &Frame<'_>, &Decision<'_>) -> Option<Vec<u8>>,
    ) -> (Option<Vec<u8>>, Timing) {
        let started = Instant::now();
        let place = self.places.try_acquire();
        case.overloaded = place.is_err();
        case.read = match &place {
            Ok(_) => self.profiles.read(case.shopper.viewer(), deadline).await,
            Err(_) => Read {
                incomplete: case.shopper.has_id(),
                ..Read::NOBODY
            },
        };
        let read_at = Instant::now();
        let body = match ruleset {
            Some(ruleset) => self.decide(&case, &ruleset, write),
            None => self.without_ruleset(&case, write),
        };
        let timing = Timing {
            profile_us: micros(read_at - started),
            decide_us: micros(read_at.elapsed()),
        };
        (body, timing)
    }

    /// Decides, hands the record over, and writes the answer.
    fn decide(
        &self,
        case: &Case<'_, '_>,
        ruleset: &Ruleset,
        write: impl FnOnce(&Case<'_, '_>, &Frame<'_>, &Decision<'_>) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let population = self.populations.current();
        // Taken before anything is decided; nobody unknown is recorded.
        let permit = if case.shopper.has_id() {
            self.recorder.permit()
        } else {
            None
        };
        let id = decision_id(case.now);
        self.fill(case, id, ruleset, &population, permit, write)
    }

    /// The answer; its record is made where there is to be one.
    fn fill(
        &self,
        case: &Case<'_, '_>,
        id: Uuid,
        ruleset: &Ruleset,
        population: &Population,
        permit: Option<Permit<'_>>,
        write: impl FnOnce(&Case<'_, '_>, &Frame<'_>, &Decision<'_>) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let cart = case.cart(ruleset);
        let names = case.ask.placements.as_ref();
        let names: Option<SmallVec<[&str; 4]>> =
            names.map(|names| names.iter().map(|name| &**name).collect());
        let lists = case.ask.candidates.lists();
        let offered: Vec<(&str, &[&str])> = lists.iter().map(|(name, list)| (*name, &**list)).collect();
        let forced = case.ask.force.iter();
        let forced: Vec<(&str, &str)> = forced.map(|(id, variant)| (&**id, &**variant)).collect();
        let request = decision::Request {
            forced: &forced,
            ..case.request(cart.as_ref(), names.as_deref(), &offered)
        };
        let terms = Terms {
            consent_default: self.settings.consent_default,
            record_permit: permit.is_some(),
            explain: case.ask.explain,
        };
        let decision = decision::decide(ruleset, population, case.profile(), &request, case.now, &terms);
        self.recorder.withhold(case.shop, &decision.withheld);
        // What is tried out is in no results.
        let recorded = case.shopper.has_id() && forced.is_empty() && self.is_recorded(&decision, id);
        let mut degraded = case.degraded();
        degraded.note(
            Degraded::DECISIONS,
            !decision.withheld.is_empty() || (recorded && permit.is_none()),
        );
        let body = write(case, &case.frame(id, degraded), &decision)?;
        self.count(&decision, degraded);
        match (permit, recorded) {
            (Some(permit), true) => {
                case.record(permit, &decision, &request, &terms, id, ruleset, population);
            }
            (Some(permit), false) => permit.skip(),
            (None, true) => self.recorder.refuse(),
            (None, false) => {}
        }
        Some(body)
    }

    /// Whatever is asked for, with nothing in it: this node has no ruleset yet and isn't ready.
    fn without_ruleset(
        &self,
        case: &Case<'_, '_>,
        write: impl FnOnce(&Case<'_, '_>, &Frame<'_>, &Decision<'_>) -> Option<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let names = case.ask.placements.iter().flatten();
        let placements = names.map(|name| PlacementDecision {
            name,
            experience: None,
            variant: None,
            filling: Filling::Content(None),
            reason: Reason::Degraded,
        });
        let decision = Decision {
            placements: placements.collect(),
            ..Decision::default()
        };
        let mut degraded = case.degraded();
        degraded.note(Degraded::RULESET, true);
        self.count(&decision, degraded);
        write(case, &case.frame(decision_id(case.now), degraded), &decision)
    }

    /// Always what depends on an experiment or touches the profile; of the rest, a share by the id's random bits.
    fn is_recorded(&self, decision: &Decision<'_>, id: Uuid) -> bool {
        let needed = !decision.exposures.is_empty() || !decision.served.is_empty();
        let drawn = (id.as_u128() & u128::from(u32::MAX)) as f64 / (f64::from(u32::MAX) + 1.0);
        needed || drawn < self.settings.record_share
    }

    fn count(&self, decision: &Decision<'_>, degraded: Degraded) {
        for placement in &decision.placements {
            self.metrics.decision(placement.kind(), placement.reason.as_str());
        }
        for name in degraded.names() {
            self.metrics.degraded(name);
        }
        if decision.errors > 0 {
            self.metrics.condition_errors(u64::from(decision.errors));
        }
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
