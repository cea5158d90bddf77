//! What a read came to.

use std::sync::Arc;

use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::profile::Snapshot;
use crate::telemetry::ReadSource;

/// Which stores did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failed {
    pub hot: bool,
    pub warehouse: bool,
}

impl Failed {
    pub(super) fn or(self, other: Failed) -> Failed {
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
    pub profile: Option<Arc<Snapshot>>,
    pub source: ReadSource,
    pub failed: Failed,
    /// A profile may exist that could not be read.
    pub incomplete: bool,
}

impl Read {
    /// The answer where nobody is to be read.
    pub const NOBODY: Read = Read {
        profile: None,
        source: ReadSource::None,
        failed: Failed {
            hot: false,
            warehouse: false,
        },
        incomplete: false,
    };

    pub(super) fn of(profile: Arc<Snapshot>, source: ReadSource) -> Read {
        Read {
            profile: Some(profile),
            source,
            ..Read::NOBODY
        }
    }

    /// The profile's bytes as it was decided with, for the decision record.
    pub fn encoded(&self) -> Option<&[u8]> {
        self.profile.as_ref().map(|profile| &**profile.bytes())
    }

    /// When what was read was stored; `None` where nothing stored was found.
    pub fn stored_at(&self) -> Option<Timestamp> {
        let stored_at = self.profile.as_ref().map(|profile| profile.stored_at());
        stored_at.filter(|at| *at > Timestamp(0))
    }

    pub(super) fn linked_user(&self) -> Option<&SubjectId> {
        self.profile.as_ref().and_then(|profile| profile.linked_user())
    }
}
