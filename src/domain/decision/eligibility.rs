//! Which experiences may be served, and why not the others.

use smallvec::SmallVec;

use super::{Request, Terms, bucketing};
use crate::domain::consent::Choice;
use crate::domain::ids::Timestamp;
use crate::domain::profile::{CapWindow, ProfilePart};
use crate::domain::ruleset::fields::Facts;
use crate::domain::ruleset::{CapPeriod, ConditionId, Experience, FrequencyCap, Placement, Ruleset};

/// How far the profile may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Usable,
    Denied,
    Unavailable,
}

/// What keeps an experience from being served, or doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Eligible {
        variant: usize,
        stored: bool,
    },
    NotMatched,
    Capped,
    /// An experiment on a shopper without any id.
    NoSubject,
    NoPermit,
    /// It needs the profile, which may not or cannot be read.
    ProfileUnusable,
}

/// The first experience that may be served, and the first that was held back before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) chosen: Option<Chosen<'a>>,
    pub(super) held_back: Option<Verdict>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub(super) experience: &'a Experience,
    /// Index of the variant.
    pub(super) variant: usize,
    /// Whether the profile remembers this assignment.
    pub(super) stored: bool,
}

/// Everything a verdict depends on, with the conditions already evaluated.
pub(super) struct Eligibility<'a, 'f> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) facts: Facts<'f>,
    pub(super) part: Option<&'f ProfilePart>,
    pub(super) access: Access,
    pub(super) request: &'f Request<'f>,
    pub(super) now: Timestamp,
    pub(super) terms: Terms,
    /// By condition: 0 where it was not asked for yet, 1 false, 2 true.
    values: SmallVec<[u8; 512]>,
    pub(super) errors: u32,
}

impl<'a, 'f> Eligibility<'a, 'f> {
    pub(super) fn new(
        ruleset: &'a Ruleset,
        facts: Facts<'f>,
        part: Option<&'f ProfilePart>,
        access: Access,
        request: &'f Request<'f>,
        now: Timestamp,
        terms: Terms,
    ) -> Self {
        let values = SmallVec::from_elem(0, ruleset.conditions().len());
        Eligibility {
            ruleset,
            facts,
            part,
            access,
            request,
            now,
            terms,
            values,
            errors: 0,
        }
    }

    /// Whether a condition holds; evaluated once, and false where it fails.
    #[inline]
    pub(super) fn holds(&mut self, id: ConditionId) -> bool {
        match self.values.get(id.index()) {
            Some(1) => false,
            Some(2) => true,
            _ => self.evaluate(id),
        }
    }

    fn evaluate(&mut self, id: ConditionId) -> bool {
        let Some(condition) = self.ruleset.conditions().get(id.index()) else {
            return false;
        };
        let value = condition.predicate.eval(&self.facts).unwrap_or_else(|_| {
            self.errors += 1;
            false
        });
        if let Some(slot) = self.values.get_mut(id.index()) {
            *slot = 1 + u8::from(value);
        }
        value
    }

    /// Whether a condition cannot be answered, since it reads a profile that may not or cannot be used.
    #[inline]
    pub(super) fn is_unanswerable(&self, id: ConditionId) -> bool {
        self.access != Access::Usable
            && self
                .ruleset
                .conditions()
                .get(id.index())
                .is_some_and(|c| c.predicate.uses_profile())
    }

    /// The shopper's pseudonym for bucketing.
    pub(super) fn subject(&self) -> Option<&'f str> {
        self.request
            .anonymous
            .or(self.request.user)
            .map(|subject| subject.as_str())
    }

    pub(super) fn select(&mut self, placement: &'a Placement) -> Selection<'a> {
        let mut held_back = None;
        for slot in &placement.experiences {
            // Most experiences end here, without a look at the experience itself.
            if let Some(when) = slot.when
                && !self.is_unanswerable(when)
                && !self.holds(when)
            {
                continue;
            }
            let Some(experience) = self.ruleset.experiences().get(slot.experience as usize) else {
                continue;
            };
            match self.judge(experience) {
                Verdict::Eligible { variant, stored } => {
                    return Selection {
                        chosen: Some(Chosen {
                            experience,
                            variant,
                            stored,
                        }),
                        held_back,
                    };
                }
                Verdict::NotMatched | Verdict::NoSubject => {}
                verdict => held_back = held_back.or(Some(verdict)),
            }
        }
        Selection {
            chosen: None,
            held_back,
        }
    }

    pub(super) fn judge(&mut self, experience: &Experience) -> Verdict {
        if let Some(when) = experience.when {
            if self.is_unanswerable(when) {
                return Verdict::ProfileUnusable;
            }
            if !self.holds(when) {
                return Verdict::NotMatched;
            }
        }
        let needs_profile = experience.cap.is_some() || experience.is_experiment();
        if needs_profile && self.access != Access::Usable {
            return Verdict::ProfileUnusable;
        }
        if experience.cap.is_some_and(|cap| self.is_reached(experience, cap)) {
            return Verdict::Capped;
        }
        if !experience.is_experiment() {
            return Verdict::Eligible {
                variant: 0,
                stored: false,
            };
        }
        let Some(subject) = self.subject() else {
            return Verdict::NoSubject;
        };
        if !self.terms.record_permit {
            return Verdict::NoPermit;
        }
        if let Some(variant) = self.stored_variant(experience) {
            return Verdict::Eligible {
                variant,
                stored: true,
            };
        }
        match bucketing::choose(&experience.id, subject, &experience.variants) {
            Some(variant) => Verdict::Eligible {
                variant,
                stored: false,
            },
            None => Verdict::NotMatched,
        }
    }

    /// The variant that the profile remembers, where it still exists.
    fn stored_variant(&self, experience: &Experience) -> Option<usize> {
        let stored = self.part?.assignment(&experience.id)?;
        experience
            .variants
            .iter()
            .position(|variant| variant.id.as_deref() == Some(stored))
    }

    /// How often the experience was served in the cap's period; `None` where nobody can count.
    pub(super) fn served(&self, experience: &Experience, cap: FrequencyCap) -> Option<u32> {
        self.subject().filter(|_| self.is_counted())?;
        let window = match cap.per {
            CapPeriod::Session => CapWindow::Session(self.request.session?),
            CapPeriod::Day => CapWindow::Day(self.now.day()),
            CapPeriod::Lifetime => CapWindow::Lifetime,
        };
        Some(self.part.map_or(0, |part| part.cap_count(&experience.id, window)))
    }

    /// Whether a serving will be folded: not for a shopper who denied analytics, now or before.
    fn is_counted(&self) -> bool {
        let stored = self
            .part
            .is_none_or(|part| part.analytics_allowed(Choice::Granted));
        self.request
            .consent
            .analytics
            .map_or(stored, |choice| choice == Choice::Granted)
    }

    fn is_reached(&self, experience: &Experience, cap: FrequencyCap) -> bool {
        self.served(experience, cap)
            .is_none_or(|served| served >= cap.count)
    }
}
