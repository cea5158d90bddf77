//! Which experiences may be served, and why not the others.

use std::cell::OnceCell;

use smallvec::SmallVec;

use super::{Request, Terms, bandit, bucketing};
use crate::domain::consent::Choice;
use crate::domain::experiment::Posteriors;
use crate::domain::ids::Timestamp;
use crate::domain::profile::{CapWindow, Snapshot};
use crate::domain::ruleset::fields::Facts;
use crate::domain::ruleset::{
    CapPeriod, ConditionId, Experience, FrequencyCap, HELD_OUT, Placement, Ruleset,
};

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
    /// Switched off by an operator.
    Paused,
    /// Not yet, or not any more.
    OffSchedule,
    /// Of its group the shopper sees another one.
    OtherOfGroup,
    /// Not in the share of shoppers that can take part.
    OutsideTraffic,
    /// Kept from it, to compare with; it takes part in the experiment as such.
    HeldOut {
        stored: bool,
    },
    /// Kept from all experiences, to compare with.
    GloballyHeldOut,
    /// An experiment on a shopper without any id.
    NoSubject,
    NoPermit,
    /// It needs the profile, which may not or cannot be read.
    ProfileUnusable,
}

/// The first experience that may be served, and those that were held back before it.
#[derive(Debug, Clone)]
pub(super) struct Selection<'a> {
    pub(super) chosen: Option<Chosen<'a>>,
    /// Those that would have been served otherwise, with what kept them from it.
    pub(super) held_back: SmallVec<[(&'a Experience, Verdict); 1]>,
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
    pub(super) part: Option<&'f Snapshot>,
    pub(super) access: Access,
    pub(super) request: &'f Request<'a>,
    pub(super) now: Timestamp,
    pub(super) terms: Terms,
    posteriors: &'a Posteriors,
    /// Whether the shopper is kept from all experiences but the exempt ones.
    in_global_holdout: bool,
    /// By condition: 0 where it was not asked for yet, 1 false, 2 true.
    values: SmallVec<[u8; 512]>,
    pub(super) errors: u32,
    /// What the profile remembers of experiments, gathered when one first asks: each asks for its own.
    assignments: OnceCell<Vec<(&'f str, &'f str)>>,
}

impl<'a, 'f> Eligibility<'a, 'f> {
    #[allow(clippy::too_many_arguments, reason = "everything that a verdict depends on")]
    pub(super) fn new(
        ruleset: &'a Ruleset,
        facts: Facts<'f>,
        part: Option<&'f Snapshot>,
        access: Access,
        request: &'f Request<'a>,
        now: Timestamp,
        terms: Terms,
        posteriors: &'a Posteriors,
    ) -> Self {
        let share = ruleset.holdout();
        let in_global_holdout = share > 0.0
            && subject_of(request)
                .is_some_and(|subject| bucketing::is_among(share, "#global", subject, HELD_OUT));
        let values = SmallVec::from_elem(0, ruleset.conditions().len());
        Eligibility {
            ruleset,
            facts,
            part,
            access,
            request,
            now,
            terms,
            posteriors,
            in_global_holdout,
            values,
            errors: 0,
            assignments: OnceCell::new(),
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

    pub(super) fn posteriors(&self) -> &'a Posteriors {
        self.posteriors
    }

    /// The shopper's pseudonym for bucketing.
    pub(super) fn subject(&self) -> Option<&'a str> {
        subject_of(self.request)
    }

    pub(super) fn select(&mut self, placement: &'a Placement) -> Selection<'a> {
        let mut held_back = SmallVec::new();
        if !self.request.forced.is_empty()
            && let Some(chosen) = self.forced(placement)
        {
            return Selection {
                chosen: Some(chosen),
                held_back,
            };
        }
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
                Verdict::NotMatched
                | Verdict::Paused
                | Verdict::OffSchedule
                | Verdict::OtherOfGroup
                | Verdict::OutsideTraffic
                | Verdict::NoSubject => {}
                verdict => held_back.push((experience, verdict)),
            }
        }
        Selection {
            chosen: None,
            held_back,
        }
    }

    /// The first experience of the placement that the request forces.
    fn forced(&self, placement: &'a Placement) -> Option<Chosen<'a>> {
        let slots = placement.experiences.iter();
        let mut experiences =
            slots.filter_map(|slot| self.ruleset.experiences().get(slot.experience as usize));
        experiences.find_map(|experience| {
            let mut forced = self.request.forced.iter();
            let (_, wanted) = forced.find(|(id, _)| *id == &*experience.id)?;
            let is_wanted = |variant: &usize| {
                experience.label(*variant) == *wanted || (wanted.is_empty() && experience.variants.len() == 1)
            };
            Some(Chosen {
                experience,
                variant: (0..experience.variants.len()).find(is_wanted)?,
                // Nobody is assigned by it.
                stored: true,
            })
        })
    }

    pub(super) fn judge(&mut self, experience: &Experience) -> Verdict {
        if experience.paused {
            return Verdict::Paused;
        }
        if !experience.schedule.holds_at(self.now) {
            return Verdict::OffSchedule;
        }
        if let Some(when) = experience.when {
            if self.is_unanswerable(when) {
                return Verdict::ProfileUnusable;
            }
            if !self.holds(when) {
                return Verdict::NotMatched;
            }
        }
        let needs_profile = experience.cap.is_some() || experience.needs_subject();
        if needs_profile && self.access != Access::Usable {
            return Verdict::ProfileUnusable;
        }
        if experience.cap.is_some_and(|cap| self.is_reached(experience, cap)) {
            return Verdict::Capped;
        }
        if self.in_global_holdout && !experience.holdout_exempt {
            return Verdict::GloballyHeldOut;
        }
        match self.subject() {
            _ if !experience.needs_subject() => Verdict::Eligible {
                variant: 0,
                stored: false,
            },
            None => Verdict::NoSubject,
            Some(subject) => self.assign(experience, subject),
        }
    }

    /// Whether the shopper takes part, and with which variant: the one remembered, else by hash.
    fn assign(&self, experience: &Experience, subject: &str) -> Verdict {
        if experience.is_experiment() && !self.terms.record_permit {
            return Verdict::NoPermit;
        }
        if let Some(verdict) = self.stored(experience) {
            return verdict;
        }
        if experience
            .group
            .is_some_and(|group| !self.is_of_group(group, experience, subject))
        {
            return Verdict::OtherOfGroup;
        }
        let among = |share, purpose| bucketing::is_among(share, &experience.id, subject, purpose);
        if !among(experience.traffic, "#traffic") {
            return Verdict::OutsideTraffic;
        }
        if experience.holdout > 0.0 && among(experience.holdout, HELD_OUT) {
            return Verdict::HeldOut { stored: false };
        }
        let variants = &experience.variants;
        let variant = match experience.bandit {
            _ if variants.len() == 1 => Some(0),
            Some(bandit) => bandit::choose(bandit, &experience.id, subject, variants, self.posteriors),
            None => bucketing::choose(&experience.id, subject, variants),
        };
        match variant {
            Some(variant) => Verdict::Eligible {
                variant,
                stored: false,
            },
            None => Verdict::NotMatched,
        }
    }

    /// The variant that the shopper was first assigned in `experiment`.
    fn assignment(&self, experiment: &str) -> Option<&'f str> {
        let part = self.part?;
        let all = self.assignments.get_or_init(|| part.assignments().collect());
        let at = all.binary_search_by(|(have, _)| (*have).cmp(experiment)).ok()?;
        all.get(at).map(|(_, variant)| *variant)
    }

    /// What the profile remembers of an experiment, where its variant still exists.
    fn stored(&self, experience: &Experience) -> Option<Verdict> {
        let assigned = self.assignment(&experience.id)?;
        if !experience.is_experiment() {
            return None;
        }
        if assigned == HELD_OUT {
            let is_open = experience.holdout > 0.0;
            return is_open.then_some(Verdict::HeldOut { stored: true });
        }
        let count = experience.variants.len();
        let variant = (0..count).find(|variant| experience.label(*variant) == assigned)?;
        Some(Verdict::Eligible {
            variant,
            stored: true,
        })
    }

    /// Whether `experience` is the one of its group that the shopper may see: the first that the profile remembers, else by
    /// hash. It does not depend on conditions, so that one member's audience cannot change another's.
    fn is_of_group(&self, group: u32, experience: &Experience, subject: &str) -> bool {
        let Some(group) = self.ruleset.groups().get(group as usize) else {
            return true;
        };
        let members = || {
            let experiences = group
                .members
                .iter()
                .filter_map(|member| Some((*member, self.ruleset.experiences().get(*member as usize)?)));
            experiences.map(|(index, member)| (index, &*member.id))
        };
        let remembered = members().find(|(_, id)| self.assignment(id).is_some());
        let allowed = match remembered {
            Some((index, _)) => Some(index),
            None => bucketing::member(&group.name, subject, members()),
        };
        let allowed = allowed.and_then(|index| self.ruleset.experiences().get(index as usize));
        allowed.is_some_and(|allowed| allowed.id == experience.id)
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

/// The shopper's pseudonym for bucketing.
fn subject_of<'r>(request: &Request<'r>) -> Option<&'r str> {
    request.anonymous.or(request.user).map(|subject| subject.as_str())
}
