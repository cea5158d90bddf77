//! One body of `POST /events`, split into its events.
//!
//! The split is one strict pass over the bytes that finds the members of every event's envelope, and nothing is
//! copied. Only bytes that aren't JSON fail the whole body; what is wrong with one event is that event's matter.

use std::borrow::Cow;

use super::{IngestContext, Outcome, validate};
use crate::domain::json::{Malformed, Reader, Text, Value};

/// A body split into its events; borrowed from the bytes sent.
#[derive(Debug)]
pub struct Body<'a> {
    key: Option<Cow<'a, str>>,
    /// When the batch was sent, for events that don't say so themselves.
    sent_at: Option<&'a str>,
    events: Vec<Envelope<'a>>,
}

/// Why a whole body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is not JSON (at byte {at})")]
    Json { at: usize },
    #[error("the body is neither an event, nor an array of events, nor {{\"events\":[…]}}")]
    Shape,
    #[error("the body has more than {limit} events")]
    TooManyEvents { limit: usize },
}

impl From<Malformed> for BodyError {
    fn from(malformed: Malformed) -> BodyError {
        BodyError::Json { at: malformed.at }
    }
}

/// The members of one event's envelope, each as JSON text. Of repeated members the first counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Envelope<'a> {
    /// The whole event; empty where it is not an object.
    pub(super) text: &'a str,
    pub(super) event_id: Option<&'a str>,
    pub(super) event: Option<&'a str>,
    /// Segment's kind of call.
    pub(super) kind: Option<&'a str>,
    pub(super) user_id: Option<&'a str>,
    pub(super) previous_id: Option<&'a str>,
    pub(super) user_token: Option<&'a str>,
    pub(super) anonymous_id: Option<&'a str>,
    pub(super) session_id: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
    pub(super) sent_at: Option<&'a str>,
    pub(super) properties: Option<&'a str>,
    pub(super) traits: Option<&'a str>,
    pub(super) context: Option<&'a str>,
    pub(super) consent: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// The place of a member, by our name or Segment's.
    fn member(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        Some(match key {
            "event_id" | "messageId" | "message_id" => &mut self.event_id,
            "event" => &mut self.event,
            "type" => &mut self.kind,
            "user_id" | "userId" => &mut self.user_id,
            "previous_id" | "previousId" => &mut self.previous_id,
            "user_token" | "userToken" => &mut self.user_token,
            "anonymous_id" | "anonymousId" => &mut self.anonymous_id,
            "session_id" | "sessionId" => &mut self.session_id,
            "timestamp" | "originalTimestamp" => &mut self.timestamp,
            "sent_at" | "sentAt" => &mut self.sent_at,
            "properties" => &mut self.properties,
            "traits" => &mut self.traits,
            "context" => &mut self.context,
            "consent" => &mut self.consent,
            _ => return None,
        })
    }
}

impl<'a> Body<'a> {
    /// Splits a body: one event, an array of events, or `{"events":[…], "sent_at"?, "key"?}` (Segment's names
    /// `batch`, `sentAt` and `writeKey` will do).
    ///
    /// # Errors
    /// [`BodyError`] where the bytes are not JSON in UTF-8, or no event can be found in them.
    pub fn parse(bytes: &'a [u8], max_events: usize) -> Result<Self, BodyError> {
        let text = std::str::from_utf8(bytes).map_err(|error| BodyError::Json {
            at: error.valid_up_to(),
        })?;
        let mut reader = Reader::new(text);
        let mut body = Body {
            key: None,
            sent_at: None,
            events: Vec::new(),
        };
        match reader.value()? {
            Value::Array => body.read_events(&mut reader, max_events)?,
            Value::Object => body.read_object(&mut reader, text, max_events)?,
            _ => return Err(BodyError::Shape),
        }
        reader.end()?;
        Ok(body)
    }

    /// The API key in the body, for senders that can set neither header nor query.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Judges every event, in the order sent. `fresh_id` makes an id for an event that has neither an id nor a
    /// timestamp to derive one from.
    pub fn validate(&self, ctx: &IngestContext<'_>, fresh_id: &mut dyn FnMut() -> String) -> Vec<Outcome> {
        let mut judge = validate::Judge::new(ctx, self.sent_at);
        self.events
            .iter()
            .map(|envelope| judge.judge(envelope, fresh_id))
            .collect()
    }

    /// The top object is an event, or holds events.
    fn read_object(
        &mut self,
        reader: &mut Reader<'a>,
        text: &'a str,
        max_events: usize,
    ) -> Result<(), BodyError> {
        let mut event = Envelope {
            text: text.trim_ascii(),
            ..Envelope::default()
        };
        let mut holds_events = false;
        let mut first = true;
        while let Some(key) = reader.key(&mut first)? {
            match &*key.decode() {
                "events" | "batch" if !holds_events => {
                    holds_events = true;
                    if reader.value()? != Value::Array {
                        return Err(BodyError::Shape);
                    }
                    self.read_events(reader, max_events)?;
                }
                "key" | "writeKey" => {
                    let value = reader.skip()?;
                    if let (None, Ok(Value::Text(key))) = (&self.key, Reader::new(value).value()) {
                        self.key = Some(key.decode());
                    }
                }
                name => keep_first(&mut event, name, reader)?,
            }
        }
        if holds_events {
            self.sent_at = event.sent_at;
        } else if max_events == 0 {
            return Err(BodyError::TooManyEvents { limit: 0 });
        } else {
            self.events.push(event);
        }
        Ok(())
    }

    fn read_events(&mut self, reader: &mut Reader<'a>, max_events: usize) -> Result<(), BodyError> {
        let mut first = true;
        while reader.element(&mut first)? {
            if self.events.len() == max_events {
                return Err(BodyError::TooManyEvents { limit: max_events });
            }
            self.events.push(read_event(reader)?);
        }
        Ok(())
    }
}

fn read_event<'a>(reader: &mut Reader<'a>) -> Result<Envelope<'a>, Malformed> {
    let mut event = Envelope::default();
    let start = *reader;
    if reader.value()? == Value::Object {
        let mut first = true;
        while let Some(key) = reader.key(&mut first)? {
            read_member(&mut event, key, reader)?;
        }
        event.text = start.until(reader);
    } else {
        *reader = start;
        reader.skip()?;
    }
    Ok(event)
}

fn read_member<'a>(
    event: &mut Envelope<'a>,
    key: Text<'a>,
    reader: &mut Reader<'a>,
) -> Result<(), Malformed> {
    if key.escaped {
        keep_first(event, &key.decode(), reader)
    } else {
        keep_first(event, key.raw, reader)
    }
}

fn keep_first<'a>(event: &mut Envelope<'a>, key: &str, reader: &mut Reader<'a>) -> Result<(), Malformed> {
    let value = reader.skip()?;
    if let Some(member) = event.member(key) {
        member.get_or_insert(value);
    }
    Ok(())
}
