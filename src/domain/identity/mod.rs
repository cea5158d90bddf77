//! Which identities are one person: links between anonymous ids and users, and aliases between users.
//!
//! - A link exists only on proof (a server key, a user token); see [`super::transform::IdentityClaim`].
//! - For each pair the first claim, the last claim and the last unlink are kept. All three are extremes, so every
//!   order of arrival ends in the same state. A pair is *live* while its last claim is later than its last unlink.
//! - An anonymous id belongs to **one** user: of the live ones, the one who claimed it first (a kiosk or a family's
//!   tablet never joins two people).
//! - Two users are one person only by a server's alias. Aliases are never undone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ids::{Stamp, SubjectId};
use super::transform::Proof;

/// Identities that one document merges at most. Beyond it, those claimed longest ago stay out.
pub const MAX_MEMBERS: usize = 64;

/// What is known of one pair of an anonymous id and a user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkState {
    pub first_claim: Option<Stamp>,
    pub last_claim: Option<Stamp>,
    pub last_unlink: Option<Stamp>,
}

impl LinkState {
    /// The state that one proven claim leads to.
    pub fn claimed(stamp: Stamp) -> Self {
        LinkState {
            first_claim: Some(stamp.clone()),
            last_claim: Some(stamp),
            last_unlink: None,
        }
    }

    /// The state that one unlink leads to.
    pub fn unlinked(stamp: Stamp) -> Self {
        LinkState {
            last_unlink: Some(stamp),
            ..LinkState::default()
        }
    }

    /// Joins what was learned elsewhere or later.
    pub fn merge(&mut self, other: &LinkState) {
        self.first_claim = match (self.first_claim.take(), &other.first_claim) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs.clone())),
            (ours, theirs) => ours.or_else(|| theirs.clone()),
        };
        self.last_claim = self.last_claim.take().max(other.last_claim.clone());
        self.last_unlink = self.last_unlink.take().max(other.last_unlink.clone());
    }

    pub fn is_live(&self) -> bool {
        self.last_claim > self.last_unlink
    }
}

/// One stored pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub anonymous: SubjectId,
    pub user: SubjectId,
    pub state: LinkState,
    /// The proof of the latest claim.
    pub proof: Option<Proof>,
}

/// A server's statement that two users are one person. Symmetric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    pub user: SubjectId,
    pub previous: SubjectId,
}

/// The user to whom `anonymous` belongs, given at least all links of that anonymous id.
pub fn owner<'a>(anonymous: &SubjectId, links: &'a [Link]) -> Option<&'a SubjectId> {
    links
        .iter()
        .filter(|link| link.anonymous == *anonymous && link.state.is_live())
        .min_by(|a, b| (&a.state.first_claim, &a.user).cmp(&(&b.state.first_claim, &b.user)))
        .map(|link| &link.user)
}

/// All users who are one person with `user`, itself included, in order; given at least all aliases that touch any of
/// them. At most [`MAX_MEMBERS`].
pub fn same_person(user: &SubjectId, aliases: &[Alias]) -> Vec<SubjectId> {
    let mut found = BTreeSet::from([user]);
    let mut open = vec![user];
    while let Some(next) = open.pop() {
        for alias in aliases {
            let other = if alias.user == *next {
                &alias.previous
            } else if alias.previous == *next {
                &alias.user
            } else {
                continue;
            };
            if found.len() < MAX_MEMBERS && found.insert(other) {
                open.push(other);
            }
        }
    }
    found.into_iter().cloned().collect()
}

/// The identities whose parts make up the document of `users` (one person, as [`same_person`] tells), given all
/// links of those users and all links of the anonymous ids in them. Users come first, then the anonymous ids they
/// own, the one claimed last first. At most [`MAX_MEMBERS`].
pub fn members(users: &[SubjectId], links: &[Link]) -> Vec<SubjectId> {
    let mut owned: Vec<(&Option<Stamp>, &SubjectId)> = links
        .iter()
        .filter(|link| users.contains(&link.user) && owner(&link.anonymous, links) == Some(&link.user))
        .map(|link| (&link.state.last_claim, &link.anonymous))
        .collect();
    owned.sort_unstable_by(|a, b| b.cmp(a));
    let owned = owned.into_iter().map(|(_, anonymous)| anonymous.clone());
    users.iter().cloned().chain(owned).take(MAX_MEMBERS).collect()
}

#[cfg(test)]
mod tests;
