//! Contributions into parts, parts into documents.
//!
//! A document is a pure function of parts and links, so it is written anew whenever one of them changed, and only
//! then: a guest's is its own part, a user's the merge of all parts that belong to the same person.
//!
//! So of nearly everybody part and document say the same, and the part is kept in the document alone ([`Kept`]). Only of a
//! user with whom somebody else is merged both are stored.

use std::sync::Arc;

use smallvec::SmallVec;

use super::people::People;
use super::{Map, Set};
use crate::domain::consent::Stated;
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::profile::{AsOf, Contribution, Document, ProfilePart, Version};

/// The parts that a batch touches, and those that are merged with them.
#[derive(Debug, Default)]
pub(in crate::warehouse) struct Parts {
    parts: Map<SubjectId, Part>,
    /// Whose effects are being folded.
    partition: u16,
}

/// Partitions of the log, each once and in no order. Nearly always it is one.
pub(in crate::warehouse) type Partitions = SmallVec<[u16; 2]>;

/// Where a part is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::warehouse) enum Kept {
    Nowhere,
    /// In the subject's document, whose part is the same; where there is no document the part is empty.
    InDocument,
    /// In a row of its own.
    Apart,
}

#[derive(Debug)]
struct Part {
    part: ProfilePart,
    changed: bool,
    kept: Kept,
    /// Where it goes, where the document is written as well.
    keep: Option<Kept>,
    /// Whose effects changed it, or whom it belongs to.
    from: Partitions,
}

impl Part {
    fn stored(part: ProfilePart, kept: Kept) -> Self {
        Part {
            part,
            changed: false,
            kept,
            keep: None,
            from: Partitions::new(),
        }
    }
}

impl Default for Part {
    fn default() -> Self {
        Part::stored(ProfilePart::default(), Kept::Nowhere)
    }
}

/// What a batch writes of parts and documents, each by subject.
#[derive(Debug)]
pub(in crate::warehouse) struct Outcome {
    /// Version and `as_of` are for the backend to set.
    pub(in crate::warehouse) documents: Vec<Changed>,
    /// Encoded; `None` for one that is in its document from now on.
    pub(in crate::warehouse) parts: Vec<(SubjectId, Option<Vec<u8>>)>,
}

/// A document that is to be written.
#[derive(Debug)]
pub(in crate::warehouse) struct Changed {
    pub(in crate::warehouse) subject: SubjectId,
    pub(in crate::warehouse) document: Document,
    /// Whose effects changed it.
    pub(in crate::warehouse) from: Partitions,
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

    /// Those whose parts are in somebody else's document.
    pub(in crate::warehouse) fn joined(&self) -> impl Iterator<Item = &SubjectId> {
        let groups = self.members.iter();
        groups.flat_map(|(user, members)| members.iter().filter(move |member| *member != user))
    }
}

impl Parts {
    pub(in crate::warehouse) fn add_stored(&mut self, subject: SubjectId, part: ProfilePart, kept: Kept) {
        self.parts.insert(subject, Part::stored(part, kept));
    }

    /// What follows comes from this partition.
    pub(super) fn turn_to(&mut self, partition: u16) {
        self.partition = partition;
    }

    /// Notes that something was said of whom an identity belongs to.
    pub(super) fn touch(&mut self, subject: &SubjectId) {
        let part = self.parts.entry(subject.clone()).or_default();
        add(&mut part.from, self.partition);
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
            add(&mut part.from, self.partition);
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

    /// Whether its document has to be written for the subject's own sake: the part changed, or something was said of whom it belongs to
    /// and there is no document yet. Whoever says more of that meets it there.
    fn is_changed(&self, subject: &SubjectId) -> bool {
        self.parts
            .get(subject)
            .is_some_and(|part| part.changed || (part.kept == Kept::Nowhere && !part.from.is_empty()))
    }

    /// What to write.
    pub(in crate::warehouse) fn outcome(mut self, before: &Before, people: &mut People) -> Outcome {
        let (mut documents, mut parts) = (Vec::new(), Vec::new());
        let users: Vec<SubjectId> = people.users().cloned().collect();
        for user in users {
            let members = people.members(&user);
            let former = before.members.get(&user).filter(|former| **former != members);
            if former.is_some() || members.iter().any(|member| self.is_changed(member)) {
                let merged = self.merged(&members);
                // Who left has said so as well.
                let from = self.from(
                    members
                        .iter()
                        .chain(former.into_iter().flat_map(|former| former.iter())),
                );
                let own = self.parts.entry(user.clone()).or_default();
                own.keep = Some(match own.part == merged {
                    true => Kept::InDocument,
                    false => Kept::Apart,
                });
                documents.push(Changed {
                    subject: user,
                    document: document(merged, None),
                    from,
                });
            }
        }
        for guest in people.touched().filter(|subject| !subject.is_user()) {
            let linked_user = people.owner(guest);
            let moved = before
                .owners
                .get(guest)
                .is_some_and(|owner| *owner != linked_user);
            if moved || self.is_changed(guest) {
                let own = self.parts.remove(guest).unwrap_or_default();
                if own.kept != Kept::InDocument {
                    parts.push((guest.clone(), None));
                }
                documents.push(Changed {
                    subject: guest.clone(),
                    document: document(own.part, linked_user),
                    from: own.from,
                });
            }
        }
        for (subject, own) in self.parts {
            // A part may lie outside its person's document when that is full.
            let keep = own
                .keep
                .unwrap_or(if own.changed { Kept::Apart } else { own.kept });
            let bytes = match keep {
                Kept::Nowhere => continue,
                Kept::InDocument => None,
                Kept::Apart => Some(own.part.encode()),
            };
            if keep != own.kept || (own.changed && bytes.is_some()) {
                parts.push((subject, bytes));
            }
        }
        documents.sort_unstable_by(|a, b| a.subject.cmp(&b.subject));
        parts.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Outcome { documents, parts }
    }

    /// Whose effects changed the parts of `members`.
    fn from<'m>(&self, members: impl Iterator<Item = &'m SubjectId>) -> Partitions {
        let mut from = Partitions::new();
        for part in members.filter_map(|member| self.parts.get(member)) {
            part.from.iter().for_each(|partition| add(&mut from, *partition));
        }
        from
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

fn add(partitions: &mut Partitions, partition: u16) {
    if !partitions.contains(&partition) {
        partitions.push(partition);
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
