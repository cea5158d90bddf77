//! Events: what a shopper did, as validated and pseudonymised before it reaches the log.
//!
//! ```text
//! bytes ─▶ Body::parse ─▶ key of the body ─▶ (shop, source) ─▶ Body::validate ─▶ one Outcome per event
//!          one strict pass                                     scrub, check        accepted | quarantined | rejected
//! ```
//!
//! - Parsing comes in two steps, since the key that says whose events these are may be in the body itself.
//! - An event is *rejected* where its envelope is broken: there is nothing to store. It is *quarantined* where its
//!   envelope is fine and a property that its name promises isn't: it is stored, and does not touch the profile.
//! - Whatever is stored has no raw identifier left (invariant 6); see `scrub` for what counts as one.
//! - An event with no id of a shopper is fine: stored, folded into nobody.
//! - No input panics, and no part of an answer depends on anything but the input, the context and `fresh_id`.
//!
//! What it does not do: tell duplicates (the warehouse does), or trust a clock (times are corrected here, once).

mod body;
mod code;
mod members;
mod name;
mod pseudonyms;
mod scrub;
#[cfg(test)]
mod tests;
mod traces;
mod validate;

use std::sync::Arc;

use bytes::Bytes;

pub use body::{Body, BodyError};
pub use code::{QuarantineCode, RejectCode};
pub use name::KnownEvent;

use super::consent::ConsentStatement;
use super::ids::{PseudonymKey, Shop, Stamp, SubjectId, Timestamp};
use super::json::{Reader, Value};
use super::user_token::UserTokenKey;

/// Where an event came in, which decides how far it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A public key: a browser or an app. Its `user_id` counts only with a valid token.
    Public,
    /// A server key: what it says of identity is proof.
    Server,
    /// `cartwright import`, on behalf of a server key; may reach further back in time.
    Import,
    /// Made by Cartwright itself: decision records.
    Internal,
}

/// One accepted event. The fields are the log's plaintext routing header; `body` is its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub shop: Shop,
    pub source: Source,
    pub event_id: Arc<str>,
    /// A name of the Segment E-commerce Spec V2, a custom name, or the reserved name of an internal record.
    pub name: Arc<str>,
    pub anonymous: Option<SubjectId>,
    /// A user whose identity was proven, by a server key or a token.
    pub user: Option<SubjectId>,
    /// A user whose identity was merely claimed; folds into the guest alone. In an [`ALIAS`] event, the previous
    /// user.
    pub claimed_user: Option<SubjectId>,
    /// The pseudonym of the session.
    pub session: Option<Arc<str>>,
    pub event_time: Timestamp,
    pub received_at: Timestamp,
    pub consent: ConsentStatement,
    /// The reason code, where the event is to be quarantined instead of folded.
    pub quarantine: Option<Arc<str>>,
    /// Canonical JSON `{"properties":{…},"context":{…}}` without raw identifiers; an absent member is left out.
    /// Of an internal record, what its own type says.
    pub body: Bytes,
}

/// All of an event but its body, borrowed: for whoever writes one that was never an [`Event`].
#[derive(Debug, Clone, Copy)]
pub struct EventHead<'a> {
    pub shop: &'a Shop,
    pub source: Source,
    pub event_id: &'a str,
    pub name: &'a str,
    pub anonymous: Option<&'a SubjectId>,
    pub user: Option<&'a SubjectId>,
    pub claimed_user: Option<&'a SubjectId>,
    pub session: Option<&'a str>,
    pub event_time: Timestamp,
    pub received_at: Timestamp,
    pub consent: ConsentStatement,
    pub quarantine: Option<&'a str>,
}

impl EventHead<'_> {
    /// The partition of the log, of `partitions`, that the event goes to: its subject's, so that one shopper's events stay in
    /// order; where it is about nobody, any that is always the same for its id.
    pub fn partition(&self, partitions: u16) -> u16 {
        match self.user.or(self.anonymous) {
            Some(subject) => subject.partition(partitions),
            None => (crc32c::crc32c(self.event_id.as_bytes()) % u32::from(partitions.max(1))) as u16,
        }
    }
}

impl Event {
    pub fn of(head: &EventHead<'_>, body: Bytes) -> Event {
        Event {
            shop: head.shop.clone(),
            source: head.source,
            event_id: head.event_id.into(),
            name: head.name.into(),
            anonymous: head.anonymous.cloned(),
            user: head.user.cloned(),
            claimed_user: head.claimed_user.cloned(),
            session: head.session.map(Arc::from),
            event_time: head.event_time,
            received_at: head.received_at,
            consent: head.consent,
            quarantine: head.quarantine.map(Arc::from),
            body,
        }
    }

    pub fn head(&self) -> EventHead<'_> {
        EventHead {
            shop: &self.shop,
            source: self.source,
            event_id: &self.event_id,
            name: &self.name,
            anonymous: self.anonymous.as_ref(),
            user: self.user.as_ref(),
            claimed_user: self.claimed_user.as_ref(),
            session: self.session.as_deref(),
            event_time: self.event_time,
            received_at: self.received_at,
            consent: self.consent,
            quarantine: self.quarantine.as_deref(),
        }
    }

    /// The identity whose part the event folds into: the proven user, else the guest.
    pub fn subject(&self) -> Option<&SubjectId> {
        self.user.as_ref().or(self.anonymous.as_ref())
    }

    /// See [`EventHead::partition`].
    pub fn partition(&self, partitions: u16) -> u16 {
        self.head().partition(partitions)
    }

    /// Whether the event counts as verified when reports of one order compete.
    pub fn is_verified(&self) -> bool {
        !matches!(self.source, Source::Public)
    }

    /// The members `properties` and `context` of the body, as JSON text.
    pub fn sections(&self) -> (Option<&str>, Option<&str>) {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        let mut reader = Reader::new(text);
        let (mut properties, mut context) = (None, None);
        if reader.value() == Ok(Value::Object) {
            let mut first = true;
            while let Ok(Some(key)) = reader.key(&mut first) {
                let Ok(value) = reader.skip() else { break };
                match key.raw {
                    "properties" => properties = Some(value),
                    "context" => context = Some(value),
                    _ => {}
                }
            }
        }
        (properties, context)
    }

    pub fn stamp(&self) -> Stamp {
        Stamp {
            time: self.event_time,
            event_id: Arc::clone(&self.event_id),
        }
    }
}

/// A server's statement that two known users are one person.
pub const ALIAS: &str = "Alias";
/// A server's statement that an anonymous id and a user are not one person after all.
pub const IDENTITY_UNLINKED: &str = "Identity Unlinked";
/// The record of a decision, made by Cartwright itself.
pub const DECISION_SERVED: &str = "Decision Served";

/// What one body and its events may measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLimits {
    pub max_events: usize,
    /// Bytes of one event, as sent.
    pub max_event_bytes: usize,
    /// Nesting below `properties` or `context`.
    pub max_depth: usize,
    /// Members of one object.
    pub max_members: usize,
    /// Bytes of one string.
    pub max_string_bytes: usize,
    /// How far before its receipt a public key's event may lie; earlier ones are moved there.
    pub max_age_ms: i64,
    /// The same for server keys and imports.
    pub max_import_age_ms: i64,
}

impl Default for EventLimits {
    fn default() -> Self {
        const DAY_MS: i64 = 86_400_000;
        EventLimits {
            max_events: 1_000,
            max_event_bytes: 64 * 1024,
            max_depth: 16,
            max_members: 256,
            max_string_bytes: 8 * 1024,
            max_age_ms: 30 * DAY_MS,
            max_import_age_ms: 50 * 366 * DAY_MS,
        }
    }
}

impl EventLimits {
    /// For imports, whose orders can have a thousand lines.
    pub fn for_import() -> Self {
        EventLimits {
            max_event_bytes: 1024 * 1024,
            ..EventLimits::default()
        }
    }
}

/// The facts that an event is judged by.
#[derive(Debug, Clone, Copy)]
pub struct IngestContext<'a> {
    pub shop: &'a Shop,
    pub source: Source,
    pub key: &'a PseudonymKey,
    /// Verifies a public event's `user_token` as of `received_at`; without it no token proves anything.
    pub user_token_key: Option<&'a UserTokenKey>,
    pub received_at: Timestamp,
    pub limits: &'a EventLimits,
}

/// What became of one event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Accepted(Event),
    /// Stored, but not folded: [`Event::quarantine`] says why.
    Quarantined(Event),
    /// Not stored. The id is the client's own, where it could be read.
    Rejected {
        event_id: Option<String>,
        code: RejectCode,
    },
}
