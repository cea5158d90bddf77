//! Contributions into parts, parts into documents.
//!
//! A document is a pure function of parts and links, so it is written anew whenever one of them changed, and only
//! then: a guest's is its own part, a user's the merge of all parts that belong to the same person.

use std::sync::Arc;

use super::people::People;
use super::{Map, Set};
use crate::domain::consent::Stated;
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::profile::{AsOf, Contribution, Document, ProfilePart, Version};

/// The parts that a batch touches, and those that are merged with them.
#[derive(Debug, Default)]
pub(in crate::warehouse) struct Parts {
    parts: Map<SubjectId, Part>,
}

#[derive(Debug, Default)]
struct Part {
    part: ProfilePart,
    changed: bool,
}

/// Owners and members before a batch, to tell what it changed.
#[derive(Debug, Default)]
pub(in crate::warehouse) struct Before {
    owners: Map<SubjectId, Option<SubjectId>>,
    members: Map<SubjectId, Arc<[SubjectId]>>,
}

impl Before {
    /// Owners and members now.
    pub(in crate::warehouse) fn of(people: &mut People) -> Self {
        let users: Vec<SubjectId> = people.users().cloned().collect();
        let members = users
            .into_iter()
            .map(|user| (user.clone(), people.members(&user)))
            .collect();
        let guests = people.touched().filter(|subject| !subject.is_user());
        let owners = guests.map(|guest| (guest.clone(), people.owner(guest))).collect();
        Before { owners, members }
    }

    /// Every subject whose part must be read, in order.
    ///
    /// An identity that joins a group during the batch was named by the batch or belongs to another group here.
    pub(in crate::warehouse) fn subjects(&self, people: &People) -> Vec<SubjectId> {
        let mut subjects: Set<&SubjectId> = people.touched().collect();
        subjects.extend(self.members.values().flat_map(|members| members.iter()));
        let mut subjects: Vec<SubjectId> = subjects.into_iter().cloned().collect();
        subjects.sort_unstable();
        subjects
    }
}

impl Parts {
    pub(in crate::warehouse) fn add_stored(&mut self, subject: SubjectId, part: ProfilePart) {
        self.parts.insert(subject, Part { part, changed: false });
    }

    /// Folds a contribution into a part, in the generation given or else in the current one of the person it
    /// belongs to. Returns that generation.
    pub(super) fn fold(
        &mut self,
        shop: &Shop,
        subject: &SubjectId,
        contribution: &Contribution,
        generation: Option<u32>,
        people: &mut People,
    ) -> u32 {
        people.touch(shop, subject);
        let generation = match generation {
            Some(generation) => generation,
            None => self.generation(subject, people),
        };
        if !contribution.deltas.is_empty() || contribution.resets {
            let part = match self.parts.get_mut(subject) {
                Some(part) => part,
                None => self.parts.entry(subject.clone()).or_default(),
            };
            part.part.fold(contribution, generation);
            part.changed = true;
        }
        generation
    }

    /// The highest generation of the person's parts.
    fn generation(&self, subject: &SubjectId, people: &mut People) -> u32 {
        let person = people.person(subject);
        let parts = person
            .identities()
            .iter()
            .filter_map(|member| self.parts.get(member));
        let highest = parts.map(|part| part.part.generation()).max().unwrap_or(0);
        // A part may lie outside its person's document when that is full.
        let own = self.parts.get(subject).map_or(0, |part| part.part.generation());
        highest.max(own)
    }

    /// What the person last said of analytics.
    pub(super) fn analytics(&self, subject: &SubjectId, people: &mut People) -> Option<Stated> {
        let person = people.person(subject);
        let parts = person
            .identities()
            .iter()
            .filter_map(|member| self.parts.get(member));
        parts.filter_map(|part| part.part.consent().analytics).max()
    }

    /// The parts to write, by subject.
    pub(in crate::warehouse) fn changed(&self) -> Vec<(&SubjectId, &ProfilePart)> {
        let changed = self.parts.iter().filter(|(_, part)| part.changed);
        let mut rows: Vec<_> = changed.map(|(subject, part)| (subject, &part.part)).collect();
        rows.sort_unstable_by_key(|(subject, _)| *subject);
        rows
    }

    fn is_changed(&self, subject: &SubjectId) -> bool {
        self.parts.get(subject).is_some_and(|part| part.changed)
    }

    /// The documents to write, by subject; version and `as_of` are for the backend to set.
    pub(in crate::warehouse) fn documents(
        mut self,
        before: &Before,
        people: &mut People,
    ) -> Vec<(SubjectId, Document)> {
        let mut documents = Vec::new();
        let users: Vec<SubjectId> = people.users().cloned().collect();
        for user in users {
            let members = people.members(&user);
            let regrouped = before.members.get(&user).is_some_and(|before| *before != members);
            if regrouped || members.iter().any(|member| self.is_changed(member)) {
                documents.push((user, document(self.merged(&members), None)));
            }
        }
        for guest in people.touched().filter(|subject| !subject.is_user()) {
            let linked_user = people.owner(guest);
            let moved = before
                .owners
                .get(guest)
                .is_some_and(|owner| *owner != linked_user);
            if moved || self.is_changed(guest) {
                let part = self.parts.remove(guest).unwrap_or_default().part;
                documents.push((guest.clone(), document(part, linked_user)));
            }
        }
        documents.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        documents
    }

    /// In the order of the subjects, so that sums of floats do not depend on who was linked last.
    fn merged(&self, members: &[SubjectId]) -> ProfilePart {
        let mut members: Vec<&SubjectId> = members.iter().collect();
        members.sort_unstable();
        let mut merged = ProfilePart::default();
        for part in members.into_iter().filter_map(|member| self.parts.get(member)) {
            merged.merge(&part.part);
        }
        merged
    }
}

fn document(part: ProfilePart, linked_user: Option<SubjectId>) -> Document {
    Document {
        version: Version::default(),
        as_of: AsOf::default(),
        linked_user,
        stored_at: Timestamp::default(),
        part,
    }
}
