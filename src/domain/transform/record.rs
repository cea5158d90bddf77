//! Decision records, on their way through the log as events of Cartwright's own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PlacementServed;
use crate::domain::consent::ConsentStatement;
use crate::domain::event::{DECISION_SERVED, Event, Source};
use crate::domain::ids::{Shop, SubjectId, Timestamp};

/// The record of one answer, as `Decision Served` carries it through the log. Made where decisions are served,
/// read by [`transform`](super::transform).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecisionRecord {
    pub decision_id: Arc<str>,
    pub decided_at: Timestamp,
    pub ruleset_version: u64,
    pub placements: Vec<PlacementServed>,
    /// First assignments made by this answer; only these and `capped` touch the profile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assigned: Vec<AssignmentMade>,
    /// The experiments that this answer took part in, with the variant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposures: Vec<AssignmentMade>,
    /// The experiences with a frequency cap that this answer served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capped: Vec<Arc<str>>,
    /// Experiments that could not take part in decisions for want of a record permit, with how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<(Arc<str>, u64)>,
    /// Enough to recompute the decision: the request's facts, the profile bytes as read and its version. Without
    /// raw identifiers.
    pub facts: Box<serde_json::value::RawValue>,
}

/// A shopper in a variant of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentMade {
    pub experiment: Arc<str>,
    pub variant: Arc<str>,
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

impl DecisionRecord {
    /// The event to append. Its id is the decision's id, so that a record appended twice counts once.
    pub fn to_event(
        &self,
        shop: &Shop,
        subject: DecisionSubject,
        consent: ConsentStatement,
        received_at: Timestamp,
    ) -> Event {
        #[derive(Serialize)]
        struct Body<'a> {
            properties: &'a DecisionRecord,
        }
        // Our own struct of strings and numbers always serialises.
        let body = serde_json::to_vec(&Body { properties: self }).unwrap_or_default();
        Event {
            shop: shop.clone(),
            source: Source::Internal,
            event_id: Arc::clone(&self.decision_id),
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
