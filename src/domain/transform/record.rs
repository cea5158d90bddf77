//! Decision records, on their way through the log as events of Cartwright's own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::PlacementServed;
use crate::domain::consent::ConsentStatement;
use crate::domain::event::{DECISION_SERVED, Event, Source};
use crate::domain::ids::{Shop, SubjectId, Timestamp};

/// Room for the rest of a record of a few placements.
const MOST_BESIDES_FACTS: usize = 1_024;

/// The record of one answer, as `Decision Served` carries it through the log. Made where decisions are served,
/// read by [`transform`](super::transform()). `S` are its texts and `F` its facts: borrowed where it is written, owned where it
/// is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord<S = Arc<str>, F = Box<RawValue>> {
    pub decision_id: S,
    pub decided_at: Timestamp,
    pub ruleset_version: u64,
    pub placements: SmallVec<[PlacementServed<S>; 4]>,
    /// First assignments made by this answer; only these and `capped` touch the profile.
    #[serde(default = "SmallVec::new", skip_serializing_if = "SmallVec::is_empty")]
    pub assigned: SmallVec<[AssignmentMade<S>; 2]>,
    /// The experiments that this answer took part in, with the variant.
    #[serde(default = "SmallVec::new", skip_serializing_if = "SmallVec::is_empty")]
    pub exposures: SmallVec<[AssignmentMade<S>; 2]>,
    /// The experiences with a frequency cap that this answer served.
    #[serde(default = "SmallVec::new", skip_serializing_if = "SmallVec::is_empty")]
    pub capped: SmallVec<[S; 2]>,
    /// Experiments that could not take part in decisions for want of a record permit, with how many.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<(S, u64)>,
    /// Enough to recompute the decision: the request's facts, the profile bytes as read and its version. Without
    /// raw identifiers.
    pub facts: F,
}

/// A shopper in a variant of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentMade<S = Arc<str>> {
    pub experiment: S,
    pub variant: S,
}

/// Whose decision a [`DecisionRecord`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecisionSubject {
    pub anonymous: Option<SubjectId>,
    /// Proven by a server key or a token.
    pub user: Option<SubjectId>,
    /// The pseudonym of the session.
    pub session: Option<Arc<str>>,
}

impl<S: AsRef<str> + Serialize, F: Serialize> DecisionRecord<S, F> {
    /// The event to append. Its id is the decision's id, so that a record appended twice counts once. `facts_bytes` is about as
    /// long as the facts are.
    pub fn to_event(
        &self,
        shop: &Shop,
        subject: DecisionSubject,
        consent: ConsentStatement,
        received_at: Timestamp,
        facts_bytes: usize,
    ) -> Event {
        #[derive(Serialize)]
        struct Body<'a, S, F> {
            properties: &'a DecisionRecord<S, F>,
        }
        let mut body = Vec::with_capacity(MOST_BESIDES_FACTS + facts_bytes);
        // Our own struct of strings and numbers always serialises.
        let _ = serde_json::to_writer(&mut body, &Body { properties: self });
        Event {
            shop: shop.clone(),
            source: Source::Internal,
            event_id: self.decision_id.as_ref().into(),
            name: DECISION_SERVED.into(),
            anonymous: subject.anonymous,
            user: subject.user,
            claimed_user: None,
            session: subject.session,
            event_time: self.decided_at,
            received_at,
            consent,
            quarantine: None,
            body: body.into(),
        }
    }
}

impl DecisionRecord {
    /// Reads the record back from [`Event::body`]; `None` where it is none of ours.
    pub fn from_event(event: &Event) -> Option<DecisionRecord> {
        #[derive(Deserialize)]
        struct Body {
            properties: DecisionRecord,
        }
        serde_json::from_slice::<Body>(&event.body)
            .ok()
            .map(|body| body.properties)
    }
}
