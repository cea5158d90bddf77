//! The parsers of this room, for the fuzz targets; no other build has this module.
//!
//! Each takes what arrived and says whether it was accepted. A refusal is always a 4xx.

use super::ask::{Ask, AskBody};
use super::error::Problem;
use super::extract;

/// The query of `GET /personalize`.
pub fn query(query: &str) -> bool {
    judge(Ask::from_query(query))
}

/// The body of `POST /personalize`, without its events.
pub fn personalize_body(bytes: &[u8]) -> bool {
    judge(AskBody::parse(bytes).and_then(AskBody::into_ask))
}

/// A compressed body.
pub fn inflate(sent: &[u8], limit: usize) -> bool {
    let inflated = extract::inflate(sent, limit);
    assert!(inflated.as_ref().is_ok_and(|bytes| bytes.len() <= limit) || inflated.is_err());
    judge(inflated)
}

fn judge<T>(result: Result<T, Problem>) -> bool {
    if let Err(problem) = &result {
        let status = problem.code.status();
        assert!(status.is_client_error(), "{status}");
    }
    result.is_ok()
}
