//! Judges one event: its envelope, its time, its identities, its properties.
//!
//! Order matters in one place only: consent is read before anything is pseudonymised, for with analytics denied
//! no identifier may stay but the one whose consent this is.

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::body::Envelope;
use super::pseudonyms::Pseudonyms;
use super::scrub::Scrubber;
use super::traces::has_email;
use super::{
    ALIAS, DECISION_SERVED, Event, IDENTITY_UNLINKED, IngestContext, KnownEvent, Outcome, QuarantineCode,
    RejectCode, Source,
};
use crate::domain::commerce::Commerce;
use crate::domain::consent::{Choice, ConsentStatement};
use crate::domain::ids::{IdKind, SubjectId, Timestamp};
use crate::domain::json::{Reader, Value};
use crate::domain::time::parse_rfc3339;

/// Characters of an event id or a name.
const MAX_NAME_CHARS: usize = 128;

/// Bytes of a user, anonymous or session id.
const MAX_ID_BYTES: usize = 256;

/// Judges the events of one body in turn.
pub(super) struct Judge<'c> {
    ctx: &'c IngestContext<'c>,
    batch_sent_at: Option<&'c str>,
    pseudonyms: Pseudonyms<'c>,
    /// The last user id and token compared, with the verdict.
    token: Option<(Box<str>, Box<str>, bool)>,
}

/// The identities of one event, as far as it may keep them.
#[derive(Default)]
struct Identities {
    anonymous: Option<SubjectId>,
    user: Option<SubjectId>,
    claimed_user: Option<SubjectId>,
    session: Option<Arc<str>>,
}

/// An event's name, known or not.
struct Name {
    text: Arc<str>,
    known: Option<KnownEvent>,
}

impl<'c> Judge<'c> {
    pub(super) fn new(ctx: &'c IngestContext<'c>, batch_sent_at: Option<&'c str>) -> Self {
        Judge {
            ctx,
            batch_sent_at,
            pseudonyms: Pseudonyms::new(ctx.key, ctx.shop),
            token: None,
        }
    }

    pub(super) fn judge(&mut self, envelope: &Envelope<'_>, fresh_id: &mut dyn FnMut() -> String) -> Outcome {
        let event_id = read_text(envelope.event_id, RejectCode::InvalidEventId).and_then(|id| match id {
            Some(id) if !is_printable(&id) || has_email(&id) => Err(RejectCode::InvalidEventId),
            id => Ok(id),
        });
        let verdict = match &event_id {
            Ok(id) => self.read(envelope, id.as_deref(), fresh_id),
            Err(code) => Err(*code),
        };
        match verdict {
            Ok(event) if event.quarantine.is_some() => Outcome::Quarantined(event),
            Ok(event) => Outcome::Accepted(event),
            Err(code) => Outcome::Rejected {
                event_id: event_id.ok().flatten().map(Cow::into_owned),
                code,
            },
        }
    }

    fn read(
        &mut self,
        envelope: &Envelope<'_>,
        event_id: Option<&str>,
        fresh_id: &mut dyn FnMut() -> String,
    ) -> Result<Event, RejectCode> {
        let ctx = self.ctx;
        if envelope.text.is_empty() {
            return Err(RejectCode::MalformedEvent);
        }
        if envelope.text.len() > ctx.limits.max_event_bytes {
            return Err(RejectCode::EventTooLarge);
        }
        let name = self.name(envelope)?;
        let timestamp = read_time(envelope.timestamp, RejectCode::InvalidTimestamp)?;
        let sent_at = read_time(envelope.sent_at.or(self.batch_sent_at), RejectCode::InvalidSentAt)?;
        let event_time = self.event_time(timestamp, sent_at);
        let consent = consent(envelope);
        let analytics = consent.analytics != Some(Choice::Denied);
        let identities = self.identities(envelope, &name, analytics)?;

        let mut quarantine = None;
        let mut scrubber = Scrubber {
            limits: ctx.limits,
            pseudonyms: &mut self.pseudonyms,
            keep_ids: analytics,
            out: Vec::with_capacity(envelope.text.len()),
            flaw: None,
        };
        scrubber.out.push(b'{');
        let properties = match (present(envelope.properties), present(envelope.traits)) {
            (None, Some(traits)) => Some((traits, true)),
            (properties, _) => properties.map(|properties| (properties, false)),
        };
        let mut properties_at = None;
        if let Some((text, personal)) = properties {
            if text.starts_with('{') {
                scrubber.out.extend_from_slice(b"\"properties\":");
                let start = scrubber.out.len();
                scrubber.object_text(text, personal)?;
                properties_at = Some(start..scrubber.out.len());
            } else {
                quarantine = Some(QuarantineCode::InvalidProperties);
            }
        }
        if let Some(text) = present(envelope.context).filter(|text| text.starts_with('{')) {
            if scrubber.out.len() > 1 {
                scrubber.out.push(b',');
            }
            scrubber.out.extend_from_slice(b"\"context\":");
            scrubber.object_text(text, false)?;
        }
        scrubber.out.push(b'}');
        quarantine = quarantine.or(scrubber.flaw);
        let body = scrubber.out;

        if let (None, Some(known)) = (quarantine, name.known) {
            let properties = properties_at.and_then(|range| body.get(range));
            let properties = properties.and_then(|bytes| std::str::from_utf8(bytes).ok());
            quarantine = Commerce::read(known, properties).err();
        }
        let event_id: Arc<str> = match (event_id, timestamp) {
            (Some(id), _) => id.into(),
            (None, Some(time)) => self.derived_id(&name, &identities, time, &body).into(),
            (None, None) => fresh_id().into(),
        };
        Ok(Event {
            shop: ctx.shop.clone(),
            source: ctx.source,
            event_id,
            name: name.text,
            anonymous: identities.anonymous,
            user: identities.user,
            claimed_user: identities.claimed_user,
            session: identities.session,
            event_time,
            received_at: ctx.received_at,
            consent,
            quarantine: quarantine.map(|code| code.as_str().into()),
            body: body.into(),
        })
    }

    fn name(&self, envelope: &Envelope<'_>) -> Result<Name, RejectCode> {
        let name = match read_text(envelope.event, RejectCode::InvalidName)? {
            Some(name) => name,
            // Segment's calls other than `track` have no event name.
            None => match read_text(envelope.kind, RejectCode::InvalidName)?.as_deref() {
                Some("page") => "Page Viewed".into(),
                Some("screen") => "Screen Viewed".into(),
                Some("identify") => "Identify".into(),
                Some("group") => "Group".into(),
                Some("alias") => ALIAS.into(),
                _ => return Err(RejectCode::MissingName),
            },
        };
        let name = name.trim();
        if !is_printable(name) || has_email(name) {
            return Err(RejectCode::InvalidName);
        }
        if let Some(known) = KnownEvent::from_name(name) {
            if known == KnownEvent::ProductUpdated && self.ctx.source == Source::Public {
                return Err(RejectCode::ServerOnly);
            }
            return Ok(Name {
                text: known.as_str().into(),
                known: Some(known),
            });
        }
        if name.eq_ignore_ascii_case(DECISION_SERVED) {
            return Err(RejectCode::ReservedName);
        }
        for server_only in [ALIAS, IDENTITY_UNLINKED] {
            if name.eq_ignore_ascii_case(server_only) {
                return match self.ctx.source {
                    Source::Public => Err(RejectCode::ServerOnly),
                    _ => Ok(Name {
                        text: server_only.into(),
                        known: None,
                    }),
                };
            }
        }
        Ok(Name {
            text: name.into(),
            known: None,
        })
    }

    /// `received_at − clamp(sent_at − timestamp, 0, max age)`; without `sent_at`, the smaller of `timestamp` and
    /// `received_at`, no older than that age either.
    fn event_time(&self, timestamp: Option<Timestamp>, sent_at: Option<Timestamp>) -> Timestamp {
        let limits = self.ctx.limits;
        let received_at = self.ctx.received_at.0;
        let max_age_ms = match self.ctx.source {
            Source::Public => limits.max_age_ms,
            _ => limits.max_import_age_ms,
        }
        .max(0);
        let age_ms = match (timestamp, sent_at) {
            (Some(timestamp), Some(sent_at)) => sent_at.0.saturating_sub(timestamp.0),
            (Some(timestamp), None) => received_at.saturating_sub(timestamp.0),
            (None, _) => 0,
        };
        Timestamp(received_at.saturating_sub(age_ms.clamp(0, max_age_ms)))
    }

    fn identities(
        &mut self,
        envelope: &Envelope<'_>,
        name: &Name,
        analytics: bool,
    ) -> Result<Identities, RejectCode> {
        let user_id = read_id(envelope.user_id, RejectCode::InvalidUserId)?;
        let anonymous_id = read_id(envelope.anonymous_id, RejectCode::InvalidAnonymousId)?;
        let session_id = read_id(envelope.session_id, RejectCode::InvalidSessionId)?;
        let mut found = Identities::default();
        if let Some(user_id) = user_id.as_deref() {
            let user = self.pseudonyms.user(user_id);
            if self.is_proven(envelope, user_id) {
                found.user = Some(user);
            } else {
                found.claimed_user = Some(user);
            }
        }
        found.anonymous = anonymous_id.map(|id| self.pseudonyms.anonymous(&id));
        if *name.text == *ALIAS {
            let previous = read_id(envelope.previous_id, RejectCode::InvalidUserId)?;
            found.claimed_user = previous.map(|id| self.pseudonyms.user(&id));
            if found.user.is_none() || found.claimed_user.is_none() {
                return Err(RejectCode::MissingIdentity);
            }
        } else if *name.text == *IDENTITY_UNLINKED {
            if found.user.is_none() || found.anonymous.is_none() {
                return Err(RejectCode::MissingIdentity);
            }
        } else if !analytics {
            // Only the identity whose consent this is.
            found.claimed_user = None;
            if found.user.is_some() {
                found.anonymous = None;
            }
            return Ok(found);
        }
        found.session = session_id.map(|id| self.pseudonyms.of(IdKind::Session, &id));
        Ok(found)
    }

    fn is_proven(&mut self, envelope: &Envelope<'_>, user_id: &str) -> bool {
        let ctx = self.ctx;
        if ctx.source != Source::Public {
            return true;
        }
        let (Some(key), Ok(Some(token))) = (
            ctx.user_token_key,
            read_text(envelope.user_token, RejectCode::MalformedEvent),
        ) else {
            return false;
        };
        match &self.token {
            Some((user, text, verdict)) if **user == *user_id && **text == *token => *verdict,
            _ => {
                let verdict = key.verify(ctx.shop, user_id, &token, ctx.received_at).is_ok();
                self.token = Some((user_id.into(), (*token).into(), verdict));
                verdict
            }
        }
    }

    /// The same event sent again gets the same id. Times of sending and of receipt are left out, as they change.
    fn derived_id(&self, name: &Name, identities: &Identities, time: Timestamp, body: &[u8]) -> String {
        let mut hash = Sha256::new();
        let subject = |id: &Option<SubjectId>| id.as_ref().map_or(String::new(), |id| id.as_str().to_owned());
        for part in [
            self.ctx.shop.as_str(),
            &name.text,
            &subject(&identities.anonymous),
            &subject(
                &identities
                    .user
                    .clone()
                    .or_else(|| identities.claimed_user.clone()),
            ),
            identities.session.as_deref().unwrap_or_default(),
            &time.0.to_string(),
        ] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(body);
        let mut id = String::with_capacity(34);
        id.push_str("d-");
        for byte in hash.finalize().iter().take(16) {
            for digit in [byte >> 4, byte & 15] {
                id.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        id
    }
}

/// A member that is there and isn't `null`.
fn present(member: Option<&str>) -> Option<&str> {
    member.filter(|text| *text != "null")
}

/// Text or a number; empty is absent.
fn read_text(member: Option<&str>, code: RejectCode) -> Result<Option<Cow<'_, str>>, RejectCode> {
    let Some(member) = member else {
        return Ok(None);
    };
    match Reader::new(member).value() {
        Ok(Value::Text(text)) => Ok(Some(text.decode()).filter(|text| !text.is_empty())),
        Ok(Value::Number(number)) => Ok(Some(Cow::Borrowed(number))),
        Ok(Value::Null) => Ok(None),
        _ => Err(code),
    }
}

fn read_id(member: Option<&str>, code: RejectCode) -> Result<Option<Cow<'_, str>>, RejectCode> {
    match read_text(member, code)? {
        Some(id) if id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) => Err(code),
        id => Ok(id),
    }
}

/// RFC 3339 text, or milliseconds since the epoch as a number.
fn read_time(member: Option<&str>, code: RejectCode) -> Result<Option<Timestamp>, RejectCode> {
    let Some(member) = member else {
        return Ok(None);
    };
    match Reader::new(member).value() {
        Ok(Value::Text(text)) => parse_rfc3339(&text.decode()).map(Some).ok_or(code),
        Ok(Value::Number(number)) => number.parse().map(|ms| Some(Timestamp(ms))).map_err(|_| code),
        Ok(Value::Null) => Ok(None),
        _ => Err(code),
    }
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_NAME_CHARS && !text.chars().any(char::is_control)
}

/// The envelope's own statement, else the one that Segment's consent manager puts into the context.
fn consent(envelope: &Envelope<'_>) -> ConsentStatement {
    if let Some(consent) = present(envelope.consent) {
        return ConsentStatement::read_json(consent);
    }
    let Some(context) = envelope.context.filter(|context| context.contains("consent")) else {
        return ConsentStatement::default();
    };
    let mut reader = Reader::new(context);
    if reader.value() != Ok(Value::Object) {
        return ConsentStatement::default();
    }
    let mut first = true;
    while let Ok(Some(key)) = reader.key(&mut first) {
        let Ok(value) = reader.skip() else { break };
        if key.decode() == "consent" {
            return ConsentStatement::read_json(value);
        }
    }
    ConsentStatement::default()
}
