//! The API: routers, their layers, and the state that handlers see.
//!
//! - A handler extracts, calls a use case and responds. It sees only its own part of [`State`].
//! - The public listener has as few layers as it can: what one endpoint needs is done in that endpoint.
//! - Nothing in here logs a path, a query or a body (invariant 6): there is no tracing layer.
//!
//! [`openapi::document`] is generated from these handlers; `openapi.yaml` is its committed copy.

mod admin;
mod answer;
mod ask;
mod candidates;
mod cart;
mod decision_id;
mod error;
mod events;
mod extract;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
pub mod openapi;
mod operator;
mod personalize;
mod products;
mod rules;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request};
use axum::http::{HeaderValue, Method, header};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::future::Either;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::admin::Admin;
use self::error::{Code, Problem, caught, panicked};
use self::events::Events;
use self::extract::BodyLimits;
use self::health::Health;
use self::operator::Operator;
use self::personalize::Personalize;
use crate::decisions::Decisions;
use crate::domain::consent::Choice;
use crate::domain::ids::PseudonymKey;
use crate::domain::user_token::UserTokenKey;
use crate::experiments::Experiments;
use crate::ingest::Ingest;
use crate::keys::KeyRing;
use crate::operations::Operations;
use crate::population::Populations;
use crate::profiles::ProfileReader;
use crate::recorder::Recorder;
use crate::rulesets::Rulesets;
use crate::telemetry::Metrics;

pub use answer::{Answer, ItemAnswer, PlacementAnswer, ProfileAnswer};
pub use cart::{CartError, CartLine, parse_cart};
pub use error::{Code as ProblemCode, ProblemBody};
pub use events::Receipts;

/// Bytes of one operator's body: an import sends large batches.
const OPERATOR_BODY_BYTES: usize = 32 << 20;
/// Operator bodies of that size at once; `import` sends a few in parallel.
const OPERATOR_BODIES: usize = 4 * OPERATOR_BODY_BYTES / extract::UNIT_BYTES;

/// Browsers ask again after two hours at the latest, whatever is said here.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(7_200);

/// Bounds and defaults of the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time budget of an answer.
    pub budget: Duration,
    /// What holds for a purpose that a shopper never stated.
    pub consent_default: Choice,
    /// The share of decisions without an experiment that are recorded, 0 to 1.
    pub record_share: f64,
    pub body_bytes: usize,
    pub inflated_bytes: usize,
    pub in_flight: usize,
    /// `scheme://host[:port]`, or `*` for any.
    pub allowed_origins: Vec<String>,
}

/// What the API is made of.
#[derive(Debug)]
pub struct StateParts {
    pub settings: Settings,
    pub keys: KeyRing,
    pub pseudonym_key: PseudonymKey,
    /// Without it no token proves anything.
    pub user_token_key: Option<UserTokenKey>,
    pub profiles: Arc<ProfileReader>,
    pub rulesets: Arc<Rulesets>,
    pub populations: Arc<Populations>,
    pub ingest: Arc<Ingest>,
    pub recorder: Recorder,
    pub operations: Operations,
    pub experiments: Experiments,
    pub decisions: Decisions,
    pub metrics: Metrics,
    /// Cancelled when this node begins to stop.
    pub stopping: CancellationToken,
}

/// The state of both routers; a clone is one more reference.
#[derive(Debug, Clone)]
pub struct State(Arc<Rooms>);

#[derive(Debug)]
struct Rooms {
    personalize: Arc<Personalize>,
    events: Arc<Events>,
    health: Arc<Health>,
    operator: Arc<Operator>,
    admin: Arc<Admin>,
    allowed_origins: Vec<String>,
}

impl From<StateParts> for State {
    fn from(parts: StateParts) -> Self {
        let StateParts {
            settings,
            keys,
            ingest,
            rulesets,
            metrics,
            ..
        } = parts;
        let keys = Arc::new(keys);
        let bodies = Arc::new(BodyLimits::new(
            settings.body_bytes,
            settings.inflated_bytes,
            settings.in_flight,
        ));
        let events = Events {
            keys: Arc::clone(&keys),
            ingest: Arc::clone(&ingest),
            bodies: Arc::clone(&bodies),
            metrics: metrics.clone(),
        };
        let admin = Admin {
            keys: Arc::clone(&keys),
            shop: parts.operations.shop().clone(),
            experiments: parts.experiments,
            decisions: parts.decisions,
            rulesets: Arc::clone(&rulesets),
            metrics: metrics.clone(),
        };
        let operator = Operator {
            operations: parts.operations,
            populations: Arc::clone(&parts.populations),
            ingest: Arc::clone(&ingest),
            bodies: BodyLimits::new(OPERATOR_BODY_BYTES, OPERATOR_BODY_BYTES, OPERATOR_BODIES),
            metrics: metrics.clone(),
        };
        let health = Health {
            rulesets: Arc::clone(&rulesets),
            stopping: parts.stopping,
            metrics: metrics.clone(),
        };
        let allowed_origins = settings.allowed_origins.clone();
        let personalize = Personalize {
            places: tokio::sync::Semaphore::new(settings.in_flight.min(tokio::sync::Semaphore::MAX_PERMITS)),
            settings,
            keys,
            pseudonym_key: parts.pseudonym_key,
            user_token_key: parts.user_token_key,
            profiles: parts.profiles,
            rulesets,
            populations: parts.populations,
            ingest,
            recorder: parts.recorder,
            bodies,
            metrics,
        };
        State(Arc::new(Rooms {
            personalize: Arc::new(personalize),
            events: Arc::new(events),
            health: Arc::new(health),
            operator: Arc::new(operator),
            admin: Arc::new(admin),
            allowed_origins,
        }))
    }
}

impl FromRef<State> for Arc<Personalize> {
    fn from_ref(state: &State) -> Self {
        Arc::clone(&state.0.personalize)
    }
}

impl FromRef<State> for Arc<Events> {
    fn from_ref(state: &State) -> Self {
        Arc::clone(&state.0.events)
    }
}

impl FromRef<State> for Arc<Health> {
    fn from_ref(state: &State) -> Self {
        Arc::clone(&state.0.health)
    }
}

impl FromRef<State> for Arc<Operator> {
    fn from_ref(state: &State) -> Self {
        Arc::clone(&state.0.operator)
    }
}

impl FromRef<State> for Arc<Admin> {
    fn from_ref(state: &State) -> Self {
        Arc::clone(&state.0.admin)
    }
}

/// The public API: one flat service around one direct way, then the router.
pub fn public_service(
    state: State,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    let cors = cors(&state.0.allowed_origins);
    let public = Arc::new(Public {
        personalize: Arc::clone(&state.0.personalize),
        router: public_router(state),
    });
    // Innermost: whatever panics becomes a 500 like any other, and its connection lives on.
    let answer = move |request| Arc::clone(&public).answer(request);
    // Answers preflights, and marks every answer, errors included, as readable for the shop's pages.
    let mut for_browsers = cors.layer(service_fn(answer.clone()));
    service_fn(move |request| match asks_directly(&request) {
        // No page reads this answer, and no cache may keep it, so nothing has to be said of origins.
        true => Either::Left(answer(request)),
        false => Either::Right(for_browsers.call(request)),
    })
}

/// Whether it is a `GET /personalize` of a server, or of a page of the same origin: a browser says where any other page is from.
fn asks_directly(request: &Request<Incoming>) -> bool {
    is_personalize(request) && !request.headers().contains_key(header::ORIGIN)
}

fn is_personalize(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET && request.uri().path() == personalize::PATH
}

/// What the public listener serves.
struct Public {
    personalize: Arc<Personalize>,
    router: Router,
}

impl Public {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response, Infallible> {
        Ok(caught(self.route(request)).await)
    }

    /// `GET /personalize` goes straight to its handler: finding a route, boxing the body and the handler's future
    /// cost more than reading its query. All else, `HEAD` included, goes by the router.
    async fn route(&self, request: Request<Incoming>) -> Response {
        if is_personalize(&request) {
            return self.personalize.get(request.into_parts().0).await;
        }
        let Ok(response) = self.router.clone().oneshot(request.map(Body::new)).await;
        response
    }
}

/// Every route of the public API.
fn public_router(state: State) -> Router {
    let (router, _) = described_routes().split_for_parts();
    router
        // The contract, for client generators.
        .route("/openapi.yaml", get(openapi::serve))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

/// Metrics, health and everything for operators.
pub fn operator_router(state: State) -> Router {
    let operator = Router::new()
        .route("/operator/v1/events", post(operator::import))
        .route("/operator/v1/status", get(operator::status))
        .route(
            "/operator/v1/decisions/{decision_id}",
            get(admin::operator_decision),
        )
        .route("/operator/v1/ruleset/dry-run", post(rules::dry_run))
        .route("/operator/v1/rulesets", get(rules::list))
        .route("/operator/v1/rulesets/{version}", get(rules::version))
        .route("/operator/v1/experiences/{id}/pause", post(rules::pause))
        .route("/operator/v1/experiences/{id}/resume", post(rules::resume))
        .route("/operator/v1/train", post(operator::train))
        .route("/operator/v1/ruleset", post(operator::apply))
        .route(
            "/operator/v1/experiments/{id}/results",
            get(admin::operator_results),
        )
        // A page open in an operator's browser must not reach what has no key.
        .route_layer(axum::middleware::from_fn(operator::refuse_browsers));
    Router::new()
        .merge(operator)
        .route("/metrics", get(operator::metrics))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // Outermost: a panic anywhere below becomes a 500, and its connection lives on.
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

/// The routes that `openapi.yaml` describes.
fn described_routes() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(personalize::get, personalize::post))
        .routes(routes!(events::post))
        .routes(routes!(personalize::ofrep::bulk))
        .routes(routes!(personalize::ofrep::single))
        .routes(routes!(products::put))
        .routes(routes!(admin::results))
        .routes(routes!(admin::decision))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

async fn not_found() -> Problem {
    Code::NotFound.into()
}

async fn method_not_allowed() -> Problem {
    Code::MethodNotAllowed.into()
}

/// The shop's own pages may call with any header that the API reads. No cookies: a key says who calls.
fn cors(allowed_origins: &[String]) -> CorsLayer {
    let origins = if allowed_origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            allowed_origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::IF_NONE_MATCH,
            header::HeaderName::from_static(personalize::ofrep::API_KEY),
        ])
        .expose_headers([header::RETRY_AFTER, header::ETAG, answer::SERVER_TIMING.clone()])
        .max_age(PREFLIGHT_MAX_AGE)
}
