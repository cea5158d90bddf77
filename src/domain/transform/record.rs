//! Decision records, on their way through the log as events of Cartwright's own.
//!
//! A record is the better part of what an API node writes, so it is compact: its body in the log is [`FORMAT`] and then postcard,
//! with the profile's bytes as they were read. The lane makes JSON of it, for whoever queries the warehouse.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::PlacementServed;
use crate::domain::compact;
use crate::domain::consent::ConsentStatement;
use crate::domain::decision::RecordedFacts;
use crate::domain::event::{DECISION_SERVED, Event, EventHead, Source};
use crate::domain::ids::{Shop, SubjectId, Timestamp};

/// The first byte of a record's body.
const FORMAT: u8 = 1;

/// The record of one answer, as `Decision Served` carries it through the log. Made where decisions are served,
/// read by [`transform`](super::transform()). `S` are its texts: borrowed where it is written, owned where it is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord<S = Arc<str>> {
    pub decided_at: Timestamp,
    pub ruleset_version: u64,
    pub placements: SmallVec<[PlacementServed<S>; 4]>,
    /// First assignments made by this answer; only these and `capped` touch the profile.
    pub assigned: SmallVec<[AssignmentMade<S>; 2]>,
    /// The experiments that this answer took part in, with the variant.
    pub exposures: SmallVec<[AssignmentMade<S>; 2]>,
    /// The experiences with a frequency cap that this answer served.
    pub capped: SmallVec<[S; 2]>,
    /// Experiments that could not take part in decisions for want of a record permit, with how many.
    pub withheld: Vec<(S, u64)>,
}

/// A shopper in a variant of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentMade<S = Arc<str>> {
    pub experiment: S,
    pub variant: S,
}

/// Whose decision a [`DecisionRecord`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecisionSubject<'a> {
    pub anonymous: Option<&'a SubjectId>,
    /// Proven by a server key or a token.
    pub user: Option<&'a SubjectId>,
    /// The pseudonym of the session.
    pub session: Option<&'a str>,
}

impl<S: Serialize> DecisionRecord<S> {
    /// The head of the event to append. The decision's id is the event's, so that a record appended twice counts once.
    pub fn head<'e>(
        &self,
        decision_id: &'e str,
        shop: &'e Shop,
        subject: DecisionSubject<'e>,
        consent: ConsentStatement,
        received_at: Timestamp,
    ) -> EventHead<'e> {
        EventHead {
            shop,
            source: Source::Internal,
            event_id: decision_id,
            name: DECISION_SERVED,
            anonymous: subject.anonymous,
            user: subject.user,
            claimed_user: None,
            session: subject.session,
            event_time: self.decided_at,
            received_at,
            consent,
            quarantine: None,
        }
    }

    /// Appends the event's body. `facts` are what [`RecordedFacts`] reads back: enough to recompute the decision, without raw
    /// identifiers. A record of losses alone has none.
    pub fn write_body<F: Serialize>(&self, facts: Option<&F>, out: &mut Vec<u8>) {
        out.push(FORMAT);
        compact::append(&(self, facts), out);
    }

    /// As a body of the events of others, for `fact_event`.
    pub(super) fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a, S> {
            properties: &'a DecisionRecord<S>,
        }
        serde_json::to_vec(&Body { properties: self }).unwrap_or_default()
    }
}

impl DecisionRecord {
    /// Reads the record and its facts back from [`Event::body`]; `None` where it is none of ours.
    pub fn from_event(event: &Event) -> Option<(DecisionRecord, Option<RecordedFacts>)> {
        let (format, record) = event.body.split_first()?;
        if *format != FORMAT {
            return None;
        }
        postcard::from_bytes(record).ok()
    }
}
