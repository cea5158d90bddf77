//! The answer of `/personalize`: its shape for clients, and how it is written.
//!
//! The types describe the JSON, in `openapi.yaml` and for whoever reads an answer in Rust. The writer doesn't build
//! them: it puts the bytes straight into the response's buffer.

use std::collections::BTreeMap;
use std::io::Write as _;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::decision::Decision;
use crate::ingest::Receipt;
use crate::telemetry::ReadSource;

/// What to show this shopper now.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub struct Answer {
    /// A UUID of version 7.
    pub decision_id: String,
    pub profile: ProfileAnswer,
    /// Every requested placement by name. One that the ruleset doesn't declare has `kind` `content` and a null
    /// `payload`.
    pub placements: BTreeMap<String, PlacementAnswer>,
    /// What this answer could not take into account: `ruleset`, `hot`, `warehouse`, `profile`, `decisions`,
    /// `overload`. Empty when all is well.
    pub degraded: Vec<String>,
    /// How the decision came about; only when asked for.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub explain: Option<serde_json::Value>,
    /// One receipt for each event sent along, in the order sent.
    #[serde(default)]
    pub events: Option<Vec<Receipt>>,
}

/// What was known of the shopper.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub struct ProfileAnswer {
    pub known: bool,
    /// Where the profile was found: `near`, `hot`, `warehouse`, `none`.
    pub source: String,
    /// How long ago the profile was stored; null where there is none.
    pub age_ms: Option<u64>,
    pub segments: Vec<String>,
}

/// What to show in one placement.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub struct PlacementAnswer {
    /// `content`, `ranking`, `recommendation`.
    pub kind: String,
    #[serde(default)]
    pub experience: Option<String>,
    #[serde(default)]
    pub variant: Option<String>,
    /// For rankings and recommendations, the best first.
    #[serde(default)]
    pub items: Option<Vec<ItemAnswer>>,
    /// For content: any JSON value of the ruleset.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<RawValue>>,
    /// Why: `targeting_match`, `split`, `bandit`, `holdout`, `capped`, `ranked`, `recommended`, `popular`,
    /// `no_match`, `consent`, `degraded`.
    pub reason: String,
}

#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
pub struct ItemAnswer {
    pub id: String,
    /// Zero or more, rounded to 1e-6.
    pub score: f64,
    /// Of a recommendation, the item of the cart or seen lately that it goes with most; absent where it is popular.
    #[serde(default)]
    pub because: Option<String>,
}

/// What an answer lacked, as bits; see [`Degraded::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Degraded(u8);

impl Degraded {
    pub(super) const RULESET: Degraded = Degraded(1);
    pub(super) const HOT: Degraded = Degraded(1 << 1);
    pub(super) const WAREHOUSE: Degraded = Degraded(1 << 2);
    pub(super) const PROFILE: Degraded = Degraded(1 << 3);
    pub(super) const DECISIONS: Degraded = Degraded(1 << 4);
    pub(super) const OVERLOAD: Degraded = Degraded(1 << 5);

    /// The names on the wire, by bit.
    const NAMES: [&'static str; 6] = ["ruleset", "hot", "warehouse", "profile", "decisions", "overload"];

    pub(super) fn note(&mut self, what: Degraded, if_so: bool) {
        if if_so {
            self.0 |= what.0;
        }
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }
}

/// All that an answer says besides the decision.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) decision_id: Uuid,
    pub(super) known: bool,
    pub(super) source: ReadSource,
    pub(super) age_ms: Option<u64>,
    pub(super) degraded: Degraded,
    pub(super) receipts: Option<&'a [Receipt]>,
}

/// Enough for three placements of ordinary payloads.
const BUFFER_BYTES: usize = 1_024;

impl Frame<'_> {
    /// The whole body.
    pub(super) fn write(&self, decision: &Decision<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(BUFFER_BYTES);
        out.extend_from_slice(b"{\"decision_id\":\"");
        out.extend_from_slice(
            self.decision_id
                .hyphenated()
                .encode_lower(&mut Uuid::encode_buffer())
                .as_bytes(),
        );
        out.extend_from_slice(b"\",\"profile\":{\"known\":");
        out.extend_from_slice(if self.known { b"true" } else { b"false" });
        out.extend_from_slice(b",\"source\":\"");
        out.extend_from_slice(self.source.as_str().as_bytes());
        out.extend_from_slice(b"\",\"age_ms\":");
        match self.age_ms {
            Some(age_ms) => out.extend_from_slice(itoa::Buffer::new().format(age_ms).as_bytes()),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"segments\":");
        decision.write_segments(&mut out);
        out.extend_from_slice(b"},\"placements\":");
        decision.write_placements(&mut out);
        out.extend_from_slice(b",\"degraded\":[");
        for (index, name) in self.degraded.names().enumerate() {
            out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
        }
        out.push(b']');
        if let Some(explanation) = &decision.explanation {
            out.extend_from_slice(b",\"explain\":");
            out.extend_from_slice(explanation.as_bytes());
        }
        if let Some(receipts) = self.receipts {
            out.extend_from_slice(b",\"events\":");
            // Structs of strings always serialise.
            out.extend(serde_json::to_vec(receipts).unwrap_or_default());
        }
        out.push(b'}');
        out
    }
}

/// How long the steps took, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timing {
    pub(super) profile_us: u64,
    pub(super) decide_us: u64,
}

impl Timing {
    /// `Server-Timing`, in milliseconds with three decimals.
    fn header(self) -> Option<HeaderValue> {
        // Two names and two of the longest numbers.
        let mut text = [0; 80];
        let mut rest = &mut text[..];
        for (name, us) in [
            (&b"profile;dur="[..], self.profile_us),
            (&b", decide;dur="[..], self.decide_us),
        ] {
            let thousandths = us % 1_000;
            let decimals = [
                b'.',
                digit(thousandths / 100),
                digit(thousandths / 10),
                digit(thousandths),
            ];
            rest.write_all(name).ok()?;
            rest.write_all(itoa::Buffer::new().format(us / 1_000).as_bytes())
                .ok()?;
            rest.write_all(&decimals).ok()?;
        }
        let left = rest.len();
        HeaderValue::from_bytes(text.get(..text.len() - left)?).ok()
    }
}

/// How long the steps took, as browsers' tools read it.
pub(super) static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The answer as a response.
pub(super) fn respond(body: Vec<u8>, timing: Timing) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(value) = timing.header() {
        headers.insert(&SERVER_TIMING, value);
    }
    response
}

fn digit(n: u64) -> u8 {
    b'0' + (n % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_its_type_says() {
        let mut degraded = Degraded::default();
        degraded.note(Degraded::HOT, true);
        degraded.note(Degraded::PROFILE, true);
        degraded.note(Degraded::RULESET, false);
        let frame = Frame {
            decision_id: Uuid::nil(),
            known: true,
            source: ReadSource::Warehouse,
            age_ms: Some(1_203),
            degraded,
            receipts: Some(&[]),
        };
        let mut decision = Decision::default();
        decision.segments.push("vip");
        decision.explanation = Some("{\"a\":1}".to_owned());
        let answer: Answer = serde_json::from_slice(&frame.write(&decision)).unwrap();
        assert_eq!(answer.decision_id, Uuid::nil().to_string());
        assert_eq!(
            (answer.profile.age_ms, &*answer.profile.source),
            (Some(1_203), "warehouse")
        );
        assert_eq!(answer.profile.segments, ["vip"]);
        assert_eq!(answer.degraded, ["hot", "profile"]);
        assert_eq!(
            (answer.events, answer.explain),
            (Some(vec![]), Some(serde_json::json!({"a": 1})))
        );
    }

    #[test]
    fn server_timing_is_in_milliseconds() {
        let header = Timing {
            profile_us: 12_034,
            decide_us: 7,
        }
        .header()
        .unwrap();
        assert_eq!(header, "profile;dur=12.034, decide;dur=0.007");
        let longest = Timing {
            profile_us: u64::MAX,
            decide_us: u64::MAX,
        };
        let expected = "profile;dur=18446744073709551.615, decide;dur=18446744073709551.615";
        assert_eq!(longest.header().unwrap(), expected);
    }
}
