//! Errors in OFREP's shape, with the statuses and headers that they have everywhere.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::http::error::{Code, Problem};

/// Why a flag, or all of them, could not be evaluated.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OfrepFailure)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure<'a> {
    /// The flag asked for, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// `PARSE_ERROR`, `INVALID_CONTEXT`, `FLAG_NOT_FOUND`, `GENERAL`.
    error_code: &'static str,
    /// For people; may change.
    error_details: &'a str,
}

/// The answer, about `flag` where one was asked for.
pub(super) fn respond(flag: Option<&str>, problem: Problem) -> Response {
    let failure = Failure {
        key: flag,
        error_code: error_code(problem.code),
        error_details: problem.detail.as_deref().unwrap_or(problem.code.title()),
    };
    // A struct of strings always serialises.
    let body = serde_json::to_vec(&failure).unwrap_or_default();
    let mut response = problem.into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(body);
    response
}

/// The protocol's code. Whom it does not tell anything more exact, it tells to use the code's default.
fn error_code(code: Code) -> &'static str {
    match code {
        Code::InvalidBody | Code::InvalidGzip | Code::IncompleteBody => "PARSE_ERROR",
        Code::InvalidParameter | Code::InvalidCart => "INVALID_CONTEXT",
        Code::NotFound => "FLAG_NOT_FOUND",
        _ => "GENERAL",
    }
}
