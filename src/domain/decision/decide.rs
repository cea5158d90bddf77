//! One straight line: consent, facts, segments, then each placement.

use std::sync::Arc;

use smallvec::SmallVec;

use super::consulted::Consulted;
use super::eligibility::{Access, Chosen, Eligibility, Selection, Verdict};
use super::facts::{Lists, Sources};
use super::recommending::{RECENT_ITEMS, Recommendation, recommend};
use super::scoring::{self, Basis, Ranking};
use super::{Decision, Filling, PlacementDecision, ProfileState, Reason, Request, Terms, explain};
use crate::domain::consent::Choice;
use crate::domain::experiment::Posteriors;
use crate::domain::ids::Timestamp;
use crate::domain::profile::{Cart, Snapshot};
use crate::domain::recommend::Population;
use crate::domain::ruleset::{
    Arrangement, Candidate, Experience, HELD_OUT, ItemRules, Placement, PlacementKind, Ruleset, VariantEffect,
};

/// Decides what to show. See the module's documentation for the rules.
pub fn decide<'a>(
    ruleset: &'a Ruleset,
    population: &'a Population,
    profile: ProfileState<'_>,
    request: &Request<'a>,
    now: Timestamp,
    terms: &Terms,
) -> Decision<'a> {
    let access = access(profile, request, terms);
    let part = match profile {
        ProfileState::Known(part) if access == Access::Usable => Some(part),
        _ => None,
    };
    let reads = ruleset.reads();
    let needs_profile_cart = reads.profile_cart || (reads.cart && request.cart.is_none());
    let profile_cart = part.filter(|_| needs_profile_cart).map(Snapshot::cart);
    let cart = request.cart.or(profile_cart.as_ref());
    let sources = Sources {
        ruleset,
        part,
        profile_cart: profile_cart.as_ref(),
        cart,
        request,
        now,
    };
    let lists = Lists::gather(&sources, reads);

    let mut rules = Eligibility::new(
        ruleset,
        lists.facts(&sources),
        part,
        access,
        request,
        now,
        *terms,
        population.posteriors(),
    );
    let segments = segments(&mut rules);
    rules.facts.profile.segments = segments.as_slice().into();

    let mut decision = Decision {
        profile_used: part.is_some(),
        ..Decision::default()
    };
    let mut filler = Filler {
        rules: &mut rules,
        population,
        cart,
        explain: terms.explain.then(Vec::new),
    };
    match request.placements {
        None => {
            for placement in ruleset.placements() {
                filler.fill(placement, &mut decision);
            }
        }
        Some(names) => {
            for name in names {
                if decision
                    .placements
                    .iter()
                    .any(|placement| placement.name == *name)
                {
                    continue;
                }
                match ruleset.placement(name) {
                    Some(placement) => filler.fill(placement, &mut decision),
                    None => decision.placements.push(unknown(name)),
                }
            }
        }
    }
    decision.consulted.bandits(ruleset, population);
    let explained = filler.explain.take();
    decision.errors = rules.errors;
    decision.explanation = explained.map(|placements| explain::whole(&rules, &segments, placements));
    decision.segments = segments;
    decision
}

/// The segments that a profile is in, without any request.
pub fn segments_of(ruleset: &Ruleset, part: &Snapshot, now: Timestamp) -> Vec<Arc<str>> {
    let reads = ruleset.segment_reads();
    let profile_cart = reads.profile_cart.then(|| part.cart());
    let request = Request::default();
    let terms = Terms {
        consent_default: Choice::Granted,
        record_permit: false,
        explain: false,
    };
    let sources = Sources {
        ruleset,
        part: Some(part),
        profile_cart: profile_cart.as_ref(),
        cart: None,
        request: &request,
        now,
    };
    let lists = Lists::gather(&sources, reads);
    let facts = lists.facts(&sources);
    let unknown = Posteriors::default();
    let mut rules = Eligibility::new(
        ruleset,
        facts,
        Some(part),
        Access::Usable,
        &request,
        now,
        terms,
        &unknown,
    );
    let segments = ruleset.segments().iter();
    segments
        .filter(|segment| rules.holds(segment.when))
        .map(|segment| Arc::clone(&segment.name))
        .collect()
}

/// The request's word goes first, then the profile's, then the deployment's.
fn access(profile: ProfileState<'_>, request: &Request<'_>, terms: &Terms) -> Access {
    let allowed = match (request.consent.personalization, profile) {
        (Some(choice), _) => choice == Choice::Granted,
        (None, ProfileState::Known(part)) => part.personalization_allowed(terms.consent_default),
        (None, _) => terms.consent_default == Choice::Granted,
    };
    match profile {
        _ if !allowed => Access::Denied,
        ProfileState::Unavailable => Access::Unavailable,
        ProfileState::Known(_) | ProfileState::Absent => Access::Usable,
    }
}

/// Where the profile cannot be used the shopper is in no segment, not in those of somebody unknown.
fn segments<'a>(rules: &mut Eligibility<'a, '_>) -> SmallVec<[&'a str; 8]> {
    if rules.access != Access::Usable {
        return SmallVec::new();
    }
    let segments = rules.ruleset.segments().iter();
    segments
        .filter(|segment| rules.holds(segment.when))
        .map(|segment| &*segment.name)
        .collect()
}

fn unknown(name: &str) -> PlacementDecision<'_> {
    PlacementDecision {
        name,
        experience: None,
        variant: None,
        filling: Filling::Content(None),
        reason: Reason::NoMatch,
    }
}

/// Fills one placement after the other.
struct Filler<'a, 'f, 'r> {
    rules: &'r mut Eligibility<'a, 'f>,
    population: &'a Population,
    cart: Option<&'f Cart<'f>>,
    explain: Option<Vec<serde_json::Value>>,
}

impl<'a> Filler<'a, '_, '_> {
    fn fill(&mut self, placement: &'a Placement, decision: &mut Decision<'a>) {
        let selection = self.rules.select(placement);
        let (filling, reason) = match &placement.kind {
            PlacementKind::Content { fallback } => {
                let payload = selection.chosen.as_ref().and_then(payload).unwrap_or(fallback);
                (
                    Filling::Content(Some(payload)),
                    self.reason(placement, &selection, None),
                )
            }
            PlacementKind::Ranking {
                by,
                candidates,
                limit,
                smoothing,
            } => {
                let arrangement = selection.chosen.as_ref().and_then(arrangement);
                let offered = self.offered(placement);
                decision
                    .consulted
                    .ranking(*by, candidates, offered.unwrap_or_default());
                let ranking = Ranking {
                    by: *by,
                    limit: *limit,
                    smoothing: *smoothing,
                    arrangement,
                    offered,
                };
                let (part, now) = (self.rules.part, self.rules.now);
                let rules = &mut *self.rules;
                let admits = |candidate: &Candidate| {
                    candidate
                        .when
                        .is_none_or(|when| !rules.is_unanswerable(when) && rules.holds(when))
                };
                let (items, basis) = scoring::rank(&ranking, candidates, part, self.population, now, admits);
                (
                    Filling::Ranking(items),
                    self.reason(placement, &selection, Some(basis)),
                )
            }
            PlacementKind::Recommendation {
                limit,
                fallback,
                rules,
            } => {
                let (items, basis) =
                    self.recommend(*limit, fallback, rules, &selection, &mut decision.consulted);
                (
                    Filling::Recommendation(items),
                    self.reason(placement, &selection, Some(basis)),
                )
            }
        };
        note(&selection, decision);
        let chosen = selection.chosen;
        decision.placements.push(PlacementDecision {
            name: &placement.name,
            experience: chosen.map(|chosen| &*chosen.experience.id),
            variant: chosen.and_then(|chosen| chosen.experience.variants.get(chosen.variant)?.id.as_deref()),
            filling,
            reason,
        });
        if let (Some(explained), Some(filled)) = (&mut self.explain, decision.placements.last()) {
            explained.push(explain::placement(self.rules, placement, filled, self.population));
        }
    }

    fn recommend(
        &self,
        limit: usize,
        fallback: &'a [Arc<str>],
        rules: &'a ItemRules,
        selection: &Selection<'a>,
        notes: &mut Consulted<'a>,
    ) -> (super::Items<'a>, Basis) {
        let lines = self.cart.map_or(&[][..], |cart| &cart.lines);
        let cart: SmallVec<[&str; 16]> = lines.iter().map(|line| line.item).collect();
        // Those in the cart as well are passed over. No more are read than count.
        let mut recent: SmallVec<[&str; RECENT_ITEMS]> = SmallVec::new();
        if let Some(part) = self.rules.part {
            let others = part.recent_items().take(16).filter(|item| !cart.contains(item));
            others.take(RECENT_ITEMS).for_each(|item| recent.push(item));
        }
        let input = Recommendation {
            limit,
            fallback,
            arrangement: selection.chosen.as_ref().and_then(arrangement),
            rules,
            currency: self.rules.ruleset.currency(),
            cart: &cart,
            recent: &recent,
            personal: self.rules.access != Access::Denied,
        };
        recommend(&input, self.population, notes)
    }

    /// The candidates that the shop offers right now, where the request names them.
    fn offered(&self, placement: &Placement) -> Option<&'a [&'a str]> {
        let candidates = self.rules.request.candidates.iter();
        candidates
            .filter(|(name, _)| *name == &*placement.name)
            .map(|(_, offered)| *offered)
            .next()
    }

    /// `basis` is what an order rests on; content has none.
    fn reason(&self, placement: &Placement, selection: &Selection<'_>, basis: Option<Basis>) -> Reason {
        let chosen = selection.chosen.map(|chosen| match chosen.experience {
            Experience { bandit: Some(_), .. } => Some(Reason::Bandit),
            experience => (experience.variants.len() > 1).then_some(Reason::Split),
        });
        let unusable = match self.rules.access {
            Access::Usable => None,
            Access::Denied => Some(Reason::Consent),
            Access::Unavailable => Some(Reason::Degraded),
        };
        match (chosen, basis) {
            (Some(Some(reason)), _) => reason,
            (Some(None), None) => Reason::TargetingMatch,
            (None, None) => match selection.held_back.first() {
                Some((_, Verdict::Capped)) => Reason::Capped,
                Some((_, Verdict::NoPermit)) => Reason::Degraded,
                Some((_, Verdict::HeldOut { .. } | Verdict::GloballyHeldOut)) => Reason::Holdout,
                _ if placement.reads_profile => unusable.unwrap_or(Reason::NoMatch),
                _ => Reason::NoMatch,
            },
            (_, Some(Basis::Own)) => match placement.kind {
                PlacementKind::Ranking { .. } => Reason::Ranked,
                _ => Reason::Recommended,
            },
            (_, Some(Basis::Population)) => unusable.unwrap_or(Reason::Popular),
            (Some(None), Some(Basis::Declared)) => unusable.unwrap_or(Reason::TargetingMatch),
            (None, Some(Basis::Declared)) => unusable.unwrap_or(Reason::NoMatch),
        }
    }
}

fn payload<'a>(chosen: &Chosen<'a>) -> Option<&'a super::Payload> {
    match &chosen.experience.variants.get(chosen.variant)?.effect {
        VariantEffect::Payload(payload) => Some(payload),
        VariantEffect::Arrange(_) => None,
    }
}

fn arrangement<'a>(chosen: &Chosen<'a>) -> Option<&'a Arrangement> {
    match &chosen.experience.variants.get(chosen.variant)?.effect {
        VariantEffect::Arrange(arrangement) => Some(arrangement),
        VariantEffect::Payload(_) => None,
    }
}

/// Notes what has to be recorded of a selection.
fn note<'a>(selection: &Selection<'a>, decision: &mut Decision<'a>) {
    let mut expose = |experience: &'a Experience, variant: &'a str, stored: bool| {
        decision.exposures.push((&experience.id, variant));
        if !stored {
            decision.assigned.push((&experience.id, variant));
        }
    };
    for (experience, verdict) in &selection.held_back {
        match verdict {
            Verdict::HeldOut { stored } => expose(experience, HELD_OUT, *stored),
            Verdict::NoPermit => decision.withheld.push(&experience.id),
            _ => {}
        }
    }
    let Some(chosen) = selection.chosen else { return };
    let experience = chosen.experience;
    if experience.is_experiment() {
        expose(experience, experience.label(chosen.variant), chosen.stored);
    }
    if experience.cap.is_some() {
        decision.served.push(&experience.id);
    }
}
