//! Pseudonyms of one body, remembered: a batch names the same shopper again and again, and each pseudonym costs
//! two hash compressions.

use std::sync::Arc;

use crate::domain::ids::{IdKind, PseudonymKey, Shop, SubjectId};

/// Remembered values; found by a scan, so few. A batch is mostly about one shopper or about all different ones.
const REMEMBERED: usize = 8;

pub(super) struct Pseudonyms<'c> {
    key: &'c PseudonymKey,
    shop: &'c Shop,
    values: Ring<(IdKind, Box<str>, Arc<str>)>,
    subjects: Ring<(bool, Box<str>, SubjectId)>,
}

/// The last few entries; the oldest goes first.
struct Ring<T> {
    entries: Vec<T>,
    next: usize,
}

impl<T> Ring<T> {
    fn new() -> Self {
        Ring {
            entries: Vec::new(),
            next: 0,
        }
    }

    fn remember(&mut self, entry: T) {
        match self.entries.get_mut(self.next) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        self.next = (self.next + 1) % REMEMBERED;
    }
}

impl<'c> Pseudonyms<'c> {
    pub(super) fn new(key: &'c PseudonymKey, shop: &'c Shop) -> Self {
        Pseudonyms {
            key,
            shop,
            values: Ring::new(),
            subjects: Ring::new(),
        }
    }

    pub(super) fn of(&mut self, kind: IdKind, raw: &str) -> Arc<str> {
        if let Some((_, _, known)) = self
            .values
            .entries
            .iter()
            .find(|(k, r, _)| *k == kind && **r == *raw)
        {
            return Arc::clone(known);
        }
        let pseudonym: Arc<str> = self.key.pseudonym(kind, self.shop, raw).into();
        self.values.remember((kind, raw.into(), Arc::clone(&pseudonym)));
        pseudonym
    }

    pub(super) fn user(&mut self, raw: &str) -> SubjectId {
        self.subject(true, raw)
    }

    pub(super) fn anonymous(&mut self, raw: &str) -> SubjectId {
        self.subject(false, raw)
    }

    fn subject(&mut self, is_user: bool, raw: &str) -> SubjectId {
        if let Some((_, _, known)) = self
            .subjects
            .entries
            .iter()
            .find(|(u, r, _)| *u == is_user && **r == *raw)
        {
            return known.clone();
        }
        let subject = if is_user {
            self.key.user(self.shop, raw)
        } else {
            self.key.anonymous(self.shop, raw)
        };
        self.subjects.remember((is_user, raw.into(), subject.clone()));
        subject
    }
}
