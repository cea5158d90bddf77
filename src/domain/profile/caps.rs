//! Frequency-cap counters of one experience: per day, per session, for life.
//!
//! Days are exact in any order (the greatest [`MAX_DAYS`] are kept). Of sessions the [`MAX_SESSIONS`] latest are
//! kept: a shopper who serves more of them at once may see a capped experience again in an old one.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use super::cursor::{Cursor, InPlace};
use super::mark::stable_hash;
use crate::domain::ids::Timestamp;

/// Today, yesterday, and one more for events that arrive around midnight.
const MAX_DAYS: usize = 3;

/// A phone, a laptop, a tablet and one to spare.
const MAX_SESSIONS: usize = 4;

/// Reading it allocates nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Cap {
    latest: Timestamp,
    lifetime: u32,
    /// `(day, count)`, sorted.
    days: SmallVec<[(i64, u32); MAX_DAYS]>,
    sessions: SmallVec<[SessionCount; MAX_SESSIONS]>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SessionCount {
    /// A stable hash of the session's pseudonym.
    session: u64,
    latest: Timestamp,
    count: u32,
}

/// Over what a frequency cap counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapWindow<'a> {
    /// The pseudonym of a session.
    Session(&'a str),
    /// A day as in [`Timestamp::day`].
    Day(i64),
    Lifetime,
}

impl<'a> InPlace<'a> for Cap {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let mut cap = Cap {
            latest: Timestamp(cursor.signed()?),
            lifetime: cursor.narrow()?,
            days: SmallVec::new(),
            sessions: SmallVec::new(),
        };
        for _ in 0..cursor.unsigned()? {
            cap.days.push((cursor.signed()?, cursor.narrow()?));
        }
        for _ in 0..cursor.unsigned()? {
            cap.sessions.push(SessionCount {
                session: cursor.unsigned()?,
                latest: Timestamp(cursor.signed()?),
                count: cursor.narrow()?,
            });
        }
        Some(cap)
    }
}

impl Cap {
    pub(super) fn once(time: Timestamp, session: Option<&str>) -> Cap {
        let session = session.map(|name| SessionCount {
            session: stable_hash(name.as_bytes()),
            latest: time,
            count: 1,
        });
        Cap {
            latest: time,
            lifetime: 1,
            days: smallvec![(time.day(), 1)],
            sessions: session.into_iter().collect(),
        }
    }

    pub(super) fn latest(&self) -> Timestamp {
        self.latest
    }

    pub(super) fn merge(&mut self, other: &Cap) {
        self.latest = self.latest.max(other.latest);
        self.lifetime = self.lifetime.wrapping_add(other.lifetime);
        for (day, count) in &other.days {
            match self.days.binary_search_by_key(day, |(have, _)| *have) {
                Ok(at) => self.days[at].1 = self.days[at].1.wrapping_add(*count),
                Err(at) => self.days.insert(at, (*day, *count)),
            }
        }
        let surplus = self.days.len().saturating_sub(MAX_DAYS);
        self.days.drain(..surplus);
        for theirs in &other.sessions {
            match self
                .sessions
                .iter_mut()
                .find(|ours| ours.session == theirs.session)
            {
                Some(ours) => {
                    ours.latest = ours.latest.max(theirs.latest);
                    ours.count = ours.count.wrapping_add(theirs.count);
                }
                None => self.sessions.push(theirs.clone()),
            }
        }
        self.sessions
            .sort_unstable_by_key(|s| (std::cmp::Reverse(s.latest), s.session));
        self.sessions.truncate(MAX_SESSIONS);
    }

    pub(super) fn count(&self, window: CapWindow<'_>) -> u32 {
        match window {
            CapWindow::Lifetime => self.lifetime,
            CapWindow::Day(day) => self
                .days
                .iter()
                .find(|(have, _)| *have == day)
                .map_or(0, |(_, n)| *n),
            CapWindow::Session(name) => {
                let wanted = stable_hash(name.as_bytes());
                self.sessions
                    .iter()
                    .find(|s| s.session == wanted)
                    .map_or(0, |s| s.count)
            }
        }
    }
}
