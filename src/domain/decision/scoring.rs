//! Orders and scores: rankings by smoothed affinity, and what recommendations share with them.
//!
//! **Ranking.** With the shopper's own decayed weight `w` of each candidate, their sum `W`, the population's share
//! `p = (orders + 1) / (all orders of the candidates + candidates)` and the placement's `smoothing` `k`,
//! `score = (w + k·p) / (W + k)`, times the boost. A new shopper sees the population's order, and each order of
//! their own counts as one of `W + k` observations. Scores are compared in millionths, ties as declared.

use smallvec::SmallVec;

use super::{Item, Items};
use crate::domain::ids::Timestamp;
use crate::domain::profile::{Affinity, Snapshot};
use crate::domain::recommend::Population;
use crate::domain::ruleset::{Arrangement, Candidate};

/// What an order rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// The shopper's own behaviour or cart.
    Own,
    Population,
    /// Nothing but the ruleset.
    Declared,
}

/// One ranking's inputs.
pub(super) struct Ranking<'a> {
    pub(super) by: Affinity,
    pub(super) limit: usize,
    pub(super) smoothing: f64,
    pub(super) arrangement: Option<&'a Arrangement>,
    /// What the shop offers right now; `None` is all that is declared.
    pub(super) offered: Option<&'a [&'a str]>,
}

/// Ranks the candidates that `admits` lets in. What is not offered is never shown; what is offered and not declared is ranked
/// like the others, without a condition. Where conditions and hidden ones leave nothing of an offer, the offer itself is
/// shown as it came: a checkout without a way to pay is no checkout.
pub(super) fn rank<'a>(
    ranking: &Ranking<'a>,
    candidates: &'a [Candidate],
    part: Option<&Snapshot>,
    population: &Population,
    now: Timestamp,
    mut admits: impl FnMut(&Candidate) -> bool,
) -> (Items<'a>, Basis) {
    struct Entry<'a> {
        id: &'a str,
        own: f64,
        count: f64,
    }
    let hidden = |id: &str| {
        ranking
            .arrangement
            .is_some_and(|a| a.hide.iter().any(|hide| **hide == *id))
    };
    let mut entries: SmallVec<[Entry<'a>; 8]> = SmallVec::new();
    let (mut own_total, mut count_total) = (0.0, 0.0);
    let weights = part.map(|part| part.weights(ranking.by));
    let mut enter = |id: &'a str| {
        let own = weights.as_ref().map_or(0.0, |weights| weights.score(id, now));
        let own = own.max(0.0);
        let count = f64::from(population.count(ranking.by, id));
        own_total += own;
        count_total += count;
        entries.push(Entry { id, own, count });
    };
    for candidate in candidates {
        let is_offered = ranking
            .offered
            .is_none_or(|offered| offered.contains(&&*candidate.id));
        if is_offered && !hidden(&candidate.id) && admits(candidate) {
            enter(&candidate.id);
        }
    }
    for id in ranking.offered.unwrap_or_default() {
        if !hidden(id) && !candidates.iter().any(|candidate| *candidate.id == **id) {
            enter(id);
        }
    }
    if let (Some(offered), true) = (ranking.offered, entries.is_empty()) {
        let items = offered.iter().take(ranking.limit).map(|id| unscored(id));
        return (items.collect(), Basis::Declared);
    }
    let size = entries.len() as f64;
    let mut items: Items<'a> = entries
        .iter()
        .map(|entry| {
            let share = (entry.count + 1.0) / (count_total + size);
            let score = (entry.own + ranking.smoothing * share) / (own_total + ranking.smoothing);
            Item {
                id: entry.id,
                micros: micros(score * boost(ranking.arrangement, entry.id)),
                because: None,
            }
        })
        .collect();
    // Stable, so that ties stay as declared.
    items.sort_by_key(|item| {
        (
            pinned_at(ranking.arrangement, item.id),
            std::cmp::Reverse(item.micros),
        )
    });
    items.truncate(ranking.limit);
    let basis = match (own_total > 0.0, count_total > 0.0) {
        (true, _) => Basis::Own,
        (false, true) => Basis::Population,
        (false, false) => Basis::Declared,
    };
    (items, basis)
}

pub(super) fn unscored(id: &str) -> Item<'_> {
    Item {
        id,
        micros: 0,
        because: None,
    }
}

pub(super) fn boost(arrangement: Option<&Arrangement>, id: &str) -> f64 {
    let factor = arrangement.and_then(|a| a.boost.iter().find(|(name, _)| **name == *id));
    factor.map_or(1.0, |(_, factor)| *factor)
}

fn pinned_at(arrangement: Option<&Arrangement>, id: &str) -> usize {
    let place = arrangement.and_then(|a| a.pin.iter().position(|pin| **pin == *id));
    place.unwrap_or(usize::MAX)
}

/// A score in millionths. Casts saturate, and not a number becomes 0.
pub(super) fn micros(score: f64) -> u64 {
    (score * 1e6 + 0.5) as u64
}
