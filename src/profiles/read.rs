//! What a read came to.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::profile::{DecodeError, Document};
use crate::hot::HotProfile;
use crate::telemetry::ReadSource;

/// Which stores did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failed {
    pub hot: bool,
    pub warehouse: bool,
}

impl Failed {
    fn or(self, other: Failed) -> Failed {
        Failed {
            hot: self.hot || other.hot,
            warehouse: self.warehouse || other.warehouse,
        }
    }
}

/// What a read found.
#[derive(Debug, Clone)]
pub struct Read {
    /// The profile to decide with; `None` where there is none or it could not be read.
    pub document: Option<Arc<Document>>,
    /// The stored bytes, while `document` is exactly what they hold.
    pub bytes: Option<Bytes>,
    pub source: ReadSource,
    pub failed: Failed,
    /// A profile may exist that could not be read.
    pub incomplete: bool,
}

impl Read {
    /// The answer where nobody is to be read.
    pub const NOBODY: Read = Read {
        document: None,
        bytes: None,
        source: ReadSource::None,
        failed: Failed {
            hot: false,
            warehouse: false,
        },
        incomplete: false,
    };

    /// # Errors
    /// When another build wrote it.
    pub(super) fn of(found: &HotProfile, source: ReadSource) -> Result<Read, DecodeError> {
        let document = Document::decode(&found.bytes)?;
        Ok(Read::with(Arc::new(document), found, source))
    }

    /// What `found` says, decoded already.
    pub(super) fn with(document: Arc<Document>, found: &HotProfile, source: ReadSource) -> Read {
        Read {
            document: Some(document),
            bytes: Some(found.bytes.clone()),
            source,
            ..Read::NOBODY
        }
    }

    /// The profile's bytes as it was decided with, for the decision record.
    pub fn encoded(&self) -> Option<Cow<'_, [u8]>> {
        let made = || Some(Cow::Owned(self.document.as_ref()?.encode()));
        self.bytes.as_deref().map(Cow::Borrowed).or_else(made)
    }

    /// When what was read was stored; `None` where nothing stored was found.
    pub fn stored_at(&self) -> Option<Timestamp> {
        self.document
            .as_ref()
            .map(|document| document.stored_at)
            .filter(|at| *at > Timestamp(0))
    }

    pub(super) fn linked_user(&self) -> Option<&SubjectId> {
        self.document
            .as_ref()
            .and_then(|document| document.linked_user.as_ref())
    }

    /// Joins the profile of another identity of the same person.
    pub(super) fn join(self, other: Read) -> Read {
        let failed = self.failed.or(other.failed);
        let incomplete = self.incomplete || other.incomplete;
        let joined = match (self.document.is_some(), other.document.is_some()) {
            (_, false) => self,
            (false, true) => other,
            (true, true) => {
                let mut joined = self;
                if let (Some(ours), Some(theirs)) = (&mut joined.document, &other.document) {
                    Arc::make_mut(ours).part.merge(&theirs.part);
                }
                Read {
                    bytes: None,
                    ..joined
                }
            }
        };
        Read {
            failed,
            incomplete,
            ..joined
        }
    }
}
