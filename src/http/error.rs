//! The one table from what went wrong to what the client is told.
//!
//! - Every error is an RFC 9457 problem (`application/problem+json`) with a stable `code`; a code is never renamed
//!   or reused. `detail` is for people and may change.
//! - What is transient is a 503 with an integer `Retry-After`, never a 4xx: clients drop a batch for good on 4xx
//!   (invariant 1).
//! - No internal text reaches a client; what an operator has to know is logged here, once.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};

/// Declares the table: variant, code, status, title.
macro_rules! problems {
    ($($(#[$doc:meta])* $variant:ident => $code:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong, as a stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)* }
            }

            pub fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status,)* }
            }

            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* }
            }
        }
    };
}

problems! {
    InvalidParameter => "invalid_parameter", BAD_REQUEST, "A parameter is not valid";
    InvalidCart => "invalid_cart", BAD_REQUEST, "The cart is not valid";
    InvalidPlacements => "invalid_placements", BAD_REQUEST, "The list of placements is not valid";
    InvalidDeadline => "invalid_deadline", BAD_REQUEST, "The deadline is not valid";
    InvalidBody => "invalid_body", BAD_REQUEST, "The body is not what this endpoint takes";
    InvalidGzip => "invalid_gzip", BAD_REQUEST, "The body is not gzip";
    TooManyEvents => "too_many_events", BAD_REQUEST, "The body has too many events";
    /// The client went away, or broke the framing, before the body was complete.
    IncompleteBody => "incomplete_body", BAD_REQUEST, "The body ended early";
    InvalidRuleset => "invalid_ruleset", UNPROCESSABLE_ENTITY, "The ruleset is not valid";
    MissingKey => "missing_key", UNAUTHORIZED, "An API key is required";
    UnknownKey => "unknown_key", UNAUTHORIZED, "The API key is not known";
    /// A server key in a URL ends up in logs and histories.
    ServerKeyInUrl => "server_key_in_url", FORBIDDEN, "A server key may not be part of a URL";
    ServerKeyRequired => "server_key_required", FORBIDDEN, "This needs a server key";
    TestKeyRequired => "test_key_required", FORBIDDEN, "This needs a key of a test environment";
    UserTokenRequired => "user_token_required", FORBIDDEN, "With a public key, user_id needs a user_token";
    InvalidUserToken => "invalid_user_token", FORBIDDEN, "The user_token does not prove this user_id";
    NotFound => "not_found", NOT_FOUND, "There is nothing here";
    MethodNotAllowed => "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    BodyTooLarge => "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    EventTooLarge => "event_too_large", PAYLOAD_TOO_LARGE, "An event is too large for the log";
    UnsupportedMediaType => "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Send application/json or text/plain";
    UnsupportedEncoding => "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, "Send the body as it is, or as gzip";
    /// More requests under way than this node takes.
    Overloaded => "overloaded", SERVICE_UNAVAILABLE, "Too many requests are under way";
    BodyTimeout => "body_timeout", SERVICE_UNAVAILABLE, "The body did not arrive in time";
    LogFull => "log_full", SERVICE_UNAVAILABLE, "The log is full";
    LogClosed => "log_closed", SERVICE_UNAVAILABLE, "The log takes no events now";
    /// The events may or may not be stored. Sending them again with the same ids counts them once.
    OutcomeUnknown => "outcome_unknown", SERVICE_UNAVAILABLE, "It is not known whether the events were stored";
    StoreUnavailable => "store_unavailable", SERVICE_UNAVAILABLE, "A store does not answer";
    NotReady => "not_ready", SERVICE_UNAVAILABLE, "This node takes no traffic now";
    Internal => "internal", INTERNAL_SERVER_ERROR, "This is our mistake";
}

/// How soon a client may try again, in seconds: longer than a fast lane needs to make room or a node to restart
/// its connections, short enough for a page that is still open.
const RETRY_AFTER_S: u8 = 2;

/// An error on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) detail: Option<Cow<'static, str>>,
}

/// The JSON form of a problem.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `urn:cartwright:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// Stable; never renamed or reused.
    pub code: String,
    /// For people; may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Problem {
            code,
            detail: Some(detail.into()),
        }
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Problem { code, detail: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = ProblemBody {
            kind: format!("urn:cartwright:problem:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: status.as_u16(),
            code: self.code.as_str().to_owned(),
            detail: self.detail.map(Cow::into_owned),
        };
        // A struct of strings always serialises.
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(u16::from(RETRY_AFTER_S)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer, or a 500 where making it panics.
pub(super) fn caught(answer: impl Future<Output = Response>) -> impl Future<Output = Response> {
    let answered = AssertUnwindSafe(answer).catch_unwind();
    answered.map(|answered| answered.unwrap_or_else(panicked))
}

/// The answer of a route that panicked. The payload may hold anything, so it goes to the log, never to the client.
pub(super) fn panicked(payload: Box<dyn std::any::Any + Send>) -> Response {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = text, "a request handler panicked");
    Problem::from(Code::Internal).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_words() {
        let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        assert!(
            codes
                .iter()
                .all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_without_its_text() {
        use axum::routing::get;
        use http_body_util::BodyExt as _;
        use tower::ServiceExt as _;
        async fn handler() -> StatusCode {
            panic!("secret text")
        }
        let router = axum::Router::new()
            .route("/", get(handler))
            .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked));
        let request = axum::extract::Request::new(axum::body::Body::empty());
        let by_layer = router.oneshot(request).await.unwrap().map(axum::body::Body::new);
        let directly = caught(async { handler().await.into_response() }).await;
        for response in [by_layer, directly] {
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let problem: ProblemBody = serde_json::from_slice(&body).unwrap();
            assert_eq!((&*problem.code, problem.detail), ("internal", None));
        }
    }

    #[test]
    fn a_transient_problem_says_when_to_come_back() {
        for code in Code::ALL {
            let response = Problem::from(*code).into_response();
            let retry = response
                .headers()
                .get(header::RETRY_AFTER)
                .map(|v| v.to_str().unwrap().parse::<u32>());
            assert_eq!(
                matches!(retry, Some(Ok(1..))),
                code.status() == StatusCode::SERVICE_UNAVAILABLE,
                "{code:?}"
            );
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "application/problem+json"
            );
        }
    }
}
