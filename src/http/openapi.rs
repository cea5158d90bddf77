//! The public contract, generated from the handlers: OpenAPI 3.1.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{Modify, OpenApi as _};

use super::error::Code;
use crate::domain::event::{QuarantineCode, RejectCode};

/// The document that `openapi.yaml` is a copy of.
pub fn document() -> OpenApi {
    let mut document = super::described_routes().into_openapi();
    list(
        &mut document,
        "Problem",
        Code::ALL.iter().map(|code| code.as_str()),
    );
    let codes = RejectCode::ALL.iter().map(|code| code.as_str());
    let codes = codes.chain(QuarantineCode::ALL.iter().map(|code| code.as_str()));
    list(&mut document, "Receipt", codes);
    document
}

/// Names the codes of `schema` in the description of its member `code`. They are no `enum`: a new one must not break a
/// client that was generated before.
fn list(document: &mut OpenApi, schema: &str, codes: impl Iterator<Item = &'static str>) {
    let codes: Vec<String> = codes.map(|code| format!("`{code}`")).collect();
    let schemas = document
        .components
        .as_mut()
        .map(|components| &mut components.schemas);
    let Some(RefOr::T(Schema::Object(object))) = schemas.and_then(|schemas| schemas.get_mut(schema)) else {
        return;
    };
    if let Some(RefOr::T(Schema::Object(code))) = object.properties.get_mut("code") {
        let about = code.description.take().unwrap_or_default();
        code.description = Some(format!(
            "{about} Further ones may be added. So far: {}.",
            codes.join(", ")
        ));
    }
}

/// The document as YAML.
///
/// # Errors
/// When it cannot be serialised, which a test would notice.
pub fn yaml() -> Result<String, String> {
    document().to_yaml().map_err(|error| error.to_string())
}

/// `GET /openapi.yaml`.
pub(super) async fn serve() -> Response {
    static YAML: OnceLock<String> = OnceLock::new();
    let text = YAML.get_or_init(|| yaml().unwrap_or_default()).as_str();
    ([(header::CONTENT_TYPE, "application/yaml")], text).into_response()
}

/// Everything but the paths.
pub(super) fn base() -> OpenApi {
    Contract::openapi()
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Cartwright",
        description = "What to show this shopper now, and what shoppers do.\n\nErrors are RFC 9457 problems with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "personalize", description = "Decisions for checkout pages"),
        (name = "ofrep", description = "The same decisions for OpenFeature's SDKs: every `content` placement is a flag"),
        (name = "events", description = "What shoppers do"),
        (name = "health", description = "For orchestrators and balancers"),
    ),
    components(schemas(EventBody)),
    modifiers(&Keys),
)]
struct Contract;

struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let url_key = ApiKeyValue::with_description("key", "Public keys only: URLs end up in logs");
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("basic", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)));
        let api_key = ApiKeyValue::with_description("X-API-Key", "As OFREP's providers may send it");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(api_key)));
        components.add_security_scheme("url_key", SecurityScheme::ApiKey(ApiKey::Query(url_key)));
    }
}

/// The body of `POST /events`.
#[derive(Debug, utoipa::ToSchema)]
#[allow(dead_code, reason = "describes JSON that is read in place")]
pub(super) struct EventsBody {
    /// At most 1,000. A single event, or a bare array of events, is taken as well.
    events: Vec<EventBody>,
    /// The API key, for senders that can set neither header nor query.
    key: Option<String>,
    /// When the body was sent, by the sender's clock; corrects the clock of all events without one of their own.
    #[schema(format = DateTime)]
    sent_at: Option<String>,
}

/// One thing that a shopper did. Names and properties follow the Segment E-commerce Spec V2; other names are taken
/// as custom events.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = Event)]
#[allow(dead_code, reason = "describes JSON that is read in place")]
pub(super) struct EventBody {
    /// Makes sending twice count once. Derived from the event where it has a `timestamp`.
    event_id: Option<String>,
    #[schema(example = "Product Added")]
    event: String,
    /// Counts with a server key or with a `user_token`.
    user_id: Option<String>,
    /// `kid.exp.mac`, made by the shop's back end; proves `user_id`.
    user_token: Option<String>,
    anonymous_id: Option<String>,
    session_id: Option<String>,
    /// When it happened, by the sender's clock.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    #[schema(format = DateTime)]
    sent_at: Option<String>,
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
    #[schema(value_type = Option<Object>)]
    context: Option<serde_json::Value>,
    /// `{"analytics": "granted", "personalization": "denied"}`; what cannot be read is denied.
    consent: Option<BTreeMap<String, String>>,
}

/// The body of `POST /personalize`: the parameters of `GET /personalize`, and events.
#[derive(Debug, utoipa::ToSchema)]
#[allow(dead_code, reason = "describes JSON that is read in place")]
pub(super) struct PersonalizeBody {
    /// The API key, for senders that can set neither header nor query.
    key: Option<String>,
    user_id: Option<String>,
    user_token: Option<String>,
    anonymous_id: Option<String>,
    session_id: Option<String>,
    /// All, where absent or empty.
    placements: Option<Vec<String>>,
    /// Goes before the profile's cart.
    cart: Option<Vec<CartLineBody>>,
    currency: Option<String>,
    country: Option<String>,
    locale: Option<String>,
    device: Option<String>,
    /// As of an event. Holds for this shopper's `events` that state none.
    consent: Option<BTreeMap<String, String>>,
    #[schema(minimum = 1, maximum = 60000)]
    deadline_ms: Option<u64>,
    explain: Option<bool>,
    /// `experience:variant,…`; keys of a test environment only.
    force: Option<String>,
    /// By ranking placement, what the shop offers right now; nothing else is shown there.
    candidates: Option<BTreeMap<String, Vec<String>>>,
    /// Appended durably and counted in this answer. An event without an id of its own takes the request's ids.
    events: Option<Vec<EventBody>>,
}

#[derive(Debug, utoipa::ToSchema)]
#[schema(as = CartLine)]
#[allow(dead_code, reason = "describes JSON that is read in place")]
pub(super) struct CartLineBody {
    sku: String,
    #[schema(minimum = 1, maximum = 1000000)]
    quantity: u32,
    /// The unit price as a decimal, in `currency`.
    #[schema(example = "12.50")]
    price: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_names_every_code() {
        let yaml = yaml().unwrap();
        let problems = Code::ALL.iter().map(|code| code.as_str());
        let rejects = RejectCode::ALL.iter().map(|code| code.as_str());
        let quarantines = QuarantineCode::ALL.iter().map(|code| code.as_str());
        for code in problems.chain(rejects).chain(quarantines) {
            assert!(yaml.contains(&format!("`{code}`")), "{code}");
        }
    }
}
