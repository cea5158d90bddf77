//! Events that come along with a request.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Personalize;
use crate::deadline::Deadline;
use crate::domain::event::Body;
use crate::domain::ids::Timestamp;
use crate::http::ask::Ask;
use crate::http::error::{Code, Problem};
use crate::ingest::{Origin, Receipt};
use crate::keys::ApiKey;

impl Personalize {
    /// Makes events durable that came along. They are in the overlay then, where the read finds them.
    pub(super) async fn take(
        &self,
        key: &ApiKey,
        ask: &Ask<'_>,
        events: &[&RawValue],
        now: Timestamp,
        deadline: Deadline,
    ) -> Result<Vec<Receipt>, Problem> {
        let bytes = with_ids(events, ask);
        let body = Body::parse(&bytes, self.ingest.limits().max_events)?;
        let origin = Origin {
            shop: &key.shop,
            source: key.kind.into(),
        };
        let accepted = deadline.bound(self.ingest.accept(&body, origin, now)).await;
        Ok(accepted.map_err(|_| Code::OutcomeUnknown)??)
    }
}

/// What an event says for itself.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Own<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    anonymous_id: Option<&'a RawValue>,
    session_id: Option<IgnoredAny>,
    consent: Option<IgnoredAny>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
}

impl Own<'_> {
    fn names_nobody(&self) -> bool {
        self.user_id.is_none() && self.anonymous_id.is_none()
    }

    /// Whether it is about the shopper of the request.
    fn is_of(&self, ask: &Ask<'_>) -> bool {
        let same = |own: Option<&RawValue>, asked: Option<&str>| {
            own.is_none_or(|own| serde_json::from_str::<String>(own.get()).ok().as_deref() == asked)
        };
        same(self.user_id, ask.user_id.as_deref()) && same(self.anonymous_id, ask.anonymous_id.as_deref())
    }

    fn states_consent(&self) -> bool {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Context {
            consent: Option<IgnoredAny>,
        }
        let context = self
            .context
            .and_then(|context| serde_json::from_str::<Context>(context.get()).ok());
        self.consent.is_some() || context.is_some_and(|context| context.consent.is_some())
    }
}

/// Events of `POST /personalize` as a body of `POST /events`. An event that names nobody takes the request's ids, one
/// of the same shopper the request's consent where it states none. An event that cannot be read is passed on as it is, for
/// validation to say what is wrong with it.
fn with_ids(events: &[&RawValue], ask: &Ask<'_>) -> Vec<u8> {
    let mut out = b"[".to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let text = event.get();
        match (text.strip_prefix('{'), serde_json::from_str::<Own<'_>>(text)) {
            (Some(members), Ok(own)) => complete(&mut out, members, &own, ask),
            _ => out.extend_from_slice(text.as_bytes()),
        }
    }
    out.push(b']');
    out
}

/// Writes the event of `members` with what it takes from the request in front.
fn complete(out: &mut Vec<u8>, members: &str, own: &Own<'_>, ask: &Ask<'_>) {
    let mut taken = Vec::new();
    let mut take = |name: &str, value: serde_json::Result<String>| {
        taken.extend(value.ok().map(|value| format!("\"{name}\":{value}")));
    };
    if own.names_nobody() {
        let ids = [
            ("user_id", &ask.user_id),
            ("user_token", &ask.user_token),
            ("anonymous_id", &ask.anonymous_id),
        ];
        for (name, id) in ids {
            if let Some(id) = id {
                take(name, serde_json::to_string(id));
            }
        }
    }
    if let Some(session) = ask.session_id.as_ref().filter(|_| own.session_id.is_none()) {
        take("session_id", serde_json::to_string(session));
    }
    if own.is_of(ask) && !ask.consent.is_unstated() && !own.states_consent() {
        take("consent", serde_json::to_string(&ask.consent));
    }
    out.push(b'{');
    out.extend_from_slice(taken.join(",").as_bytes());
    if !taken.is_empty() && !members.trim_start().starts_with('}') {
        out.push(b',');
    }
    out.extend_from_slice(members.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::consent::ConsentStatement;

    #[test]
    fn events_that_name_nobody_take_the_requests_ids() {
        let ask = Ask {
            anonymous_id: Some("a\"1".into()),
            session_id: Some("s".into()),
            ..Ask::default()
        };
        let texts = [
            "{}",
            r#"{"event":"x","price":1.10}"#,
            r#"{"user_id":"u","session_id":"t"}"#,
            "7",
            r#"{"user_id":null}"#,
        ];
        let events: Vec<Box<RawValue>> = texts
            .iter()
            .map(|text| RawValue::from_string((*text).into()).unwrap())
            .collect();
        let events: Vec<&RawValue> = events.iter().map(|event| &**event).collect();
        let expected = concat!(
            r#"[{"anonymous_id":"a\"1","session_id":"s"},"#,
            r#"{"anonymous_id":"a\"1","session_id":"s","event":"x","price":1.10},"#,
            r#"{"user_id":"u","session_id":"t"},7,"#,
            r#"{"anonymous_id":"a\"1","session_id":"s","user_id":null}]"#,
        );
        assert_eq!(String::from_utf8(with_ids(&events, &ask)).unwrap(), expected);
    }

    #[test]
    fn the_requests_consent_holds_for_the_same_shoppers_events_that_state_none() {
        let ask = Ask {
            anonymous_id: Some("a".into()),
            consent: ConsentStatement::parse_list("analytics:denied"),
            ..Ask::default()
        };
        let stated = r#","consent":{"analytics":"denied"}"#;
        let cases = [
            ("{}", format!(r#"{{"anonymous_id":"a"{stated}}}"#)),
            (
                r#"{"anonymous_id":"a"}"#,
                format!(r#"{{{},"anonymous_id":"a"}}"#, &stated[1..]),
            ),
            // Somebody else's, and what states its own.
            (r#"{"anonymous_id":"b"}"#, r#"{"anonymous_id":"b"}"#.to_owned()),
            (
                r#"{"anonymous_id":"a","consent":{}}"#,
                r#"{"anonymous_id":"a","consent":{}}"#.to_owned(),
            ),
            (
                r#"{"anonymous_id":"a","context":{"consent":{}}}"#,
                r#"{"anonymous_id":"a","context":{"consent":{}}}"#.to_owned(),
            ),
        ];
        for (event, expected) in cases {
            let event = RawValue::from_string(event.into()).unwrap();
            let whole = String::from_utf8(with_ids(&[&event], &ask)).unwrap();
            assert_eq!(whole, format!("[{expected}]"));
        }
    }
}
