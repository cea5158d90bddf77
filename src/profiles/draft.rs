//! A read that is being completed: with the events that the stores do not show yet, and with the profile of another
//! identity of the same person.
//!
//! Nothing is decoded before there is something to fold or merge, and it is encoded once, at the end: nearly all reads are what the
//! stores gave, and are never decoded at all.

use std::sync::Arc;

use super::read::Read;
use crate::domain::consent::Choice;
use crate::domain::profile::{AsOf, Document, ProfilePart, Snapshot};

/// See the module.
#[derive(Debug)]
pub(super) struct Draft {
    read: Read,
    /// The profile in place of the one that was read, once it is another.
    changed: Option<Box<Document>>,
}

impl From<Read> for Draft {
    fn from(read: Read) -> Self {
        Draft { read, changed: None }
    }
}

impl Draft {
    /// How far the profile is folded; `None` where there is none.
    pub(super) fn as_of(&self) -> Option<&AsOf> {
        match &self.changed {
            Some(document) => Some(&document.as_of),
            None => self.read.profile.as_deref().map(Snapshot::as_of),
        }
    }

    /// Whether the profile remembers that analytics was denied.
    pub(super) fn is_analytics_denied(&self) -> bool {
        let consent = match &self.changed {
            Some(document) => Some(document.part.consent()),
            None => self.read.profile.as_deref().map(Snapshot::consent),
        };
        consent.is_some_and(|consent| !consent.allows_analytics(Choice::Granted))
    }

    /// The part to fold into, of a new document where there is none.
    pub(super) fn part(&mut self) -> &mut ProfilePart {
        let read = &mut self.read;
        let decode = || Box::new(decode(read));
        &mut self.changed.get_or_insert_with(decode).part
    }

    fn is_absent(&self) -> bool {
        self.changed.is_none() && self.read.profile.is_none()
    }

    /// Joins the profile of another identity of the same person.
    pub(super) fn join(mut self, mut other: Draft) -> Draft {
        if !self.is_absent() && !other.is_absent() {
            self.part().merge(other.part());
        }
        let failed = self.read.failed.or(other.read.failed);
        let incomplete = self.read.incomplete || other.read.incomplete;
        let mut joined = if self.is_absent() && !other.is_absent() {
            other
        } else {
            self
        };
        joined.read.failed = failed;
        joined.read.incomplete = incomplete;
        joined
    }

    pub(super) fn finish(self) -> Read {
        let profile = match self.changed {
            Some(document) => Some(Arc::new(Snapshot::of(&document))),
            None => self.read.profile,
        };
        Read { profile, ..self.read }
    }
}

/// The whole profile that was read. One that is damaged counts as one that could not be read; what it says of consent could be, and
/// holds.
fn decode(read: &mut Read) -> Document {
    let Some(profile) = &read.profile else {
        return Document::default();
    };
    profile.document().unwrap_or_else(|error| {
        tracing::warn!(error = %error, "a profile is damaged, and counts as not read");
        read.incomplete = true;
        Document {
            part: ProfilePart::remembering(*profile.consent()),
            ..Document::default()
        }
    })
}
