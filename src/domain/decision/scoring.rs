//! Orders and scores: rankings by smoothed affinity, recommendations by what is bought together.
//!
//! **Ranking.** With the shopper's own decayed weight `w` of each candidate, their sum `W`, the population's share
//! `p = (orders + 1) / (all orders of the candidates + candidates)` and the placement's `smoothing` `k`,
//! `score = (w + k·p) / (W + k)`, times the boost. A new shopper sees the population's order, and each order of
//! their own counts as one of `W + k` observations. Scores are compared in millionths, ties as declared.
//!
//! **Recommendation.** The session is the last [`CART_ITEMS`] of the cart, each of weight 1, and the
//! [`RECENT_ITEMS`] seen latest of the others, of weight 1, 1/2, 1/3 …. An item scores the mean of its
//! similarities to the session's items, by those weights. What is in the cart is left out. Missing places are
//! filled with what is popular, scored below.

use smallvec::SmallVec;

use super::{Item, Items};
use crate::domain::ids::Timestamp;
use crate::domain::profile::{Affinity, ProfilePart};
use crate::domain::recommend::{MAX_NEIGHBOURS, Population};
use crate::domain::ruleset::{Arrangement, Candidate};

/// Items of the cart that count: the tastes of one visit.
pub(super) const CART_ITEMS: usize = 6;
/// Recent items that count besides.
pub(super) const RECENT_ITEMS: usize = 4;

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
    part: Option<&ProfilePart>,
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
    let mut enter = |id: &'a str| {
        let own = part.map_or(0.0, |part| part.score(ranking.by, id, now)).max(0.0);
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

/// One recommendation's inputs.
pub(super) struct Recommendation<'a, 'f> {
    pub(super) limit: usize,
    pub(super) fallback: &'a [std::sync::Arc<str>],
    pub(super) arrangement: Option<&'a Arrangement>,
    /// In the order in which they came in.
    pub(super) cart: &'f [&'f str],
    /// The latest first.
    pub(super) recent: &'f [&'f str],
    /// Whether cart and recent items may be looked at, other than to leave them out.
    pub(super) personal: bool,
}

/// Recommends items. Never empty.
pub(super) fn recommend<'a>(
    input: &Recommendation<'a, '_>,
    population: &'a Population,
) -> (Items<'a>, Basis) {
    let excluded = |id: &str| {
        input.cart.contains(&id)
            || input
                .arrangement
                .is_some_and(|a| a.hide.iter().any(|hide| **hide == *id))
    };
    let mut items = Items::new();
    if input.personal {
        similar(input, population, &excluded, &mut items);
    }
    let mut basis = if items.is_empty() {
        Basis::Population
    } else {
        Basis::Own
    };
    let ceiling = items.last().map_or(1.0, Item::score);
    for (id, share) in population.popular() {
        if items.len() >= input.limit {
            break;
        }
        if !excluded(id) && !items.iter().any(|item| item.id == id) {
            items.push(Item {
                id,
                micros: micros(ceiling * share),
            });
        }
    }
    if items.is_empty() {
        basis = Basis::Declared;
        items.extend(
            input
                .fallback
                .iter()
                .filter(|id| !excluded(id))
                .take(input.limit)
                .map(|id| unscored(id)),
        );
    }
    if let Some(arrangement) = input.arrangement {
        for id in arrangement.pin.iter().rev().filter(|id| !excluded(id)) {
            let known = items.iter().position(|item| item.id == &**id);
            let item = known.map_or_else(|| unscored(id), |at| items.remove(at));
            items.insert(0, item);
        }
        items.truncate(input.limit);
    }
    if items.is_empty() {
        // Everything is in the cart already: better that than an empty place.
        items.extend(input.fallback.iter().take(input.limit).map(|id| unscored(id)));
    }
    (items, basis)
}

/// Fills `items` with what goes with the session, the best first.
fn similar<'a>(
    input: &Recommendation<'a, '_>,
    population: &'a Population,
    excluded: &impl Fn(&str) -> bool,
    items: &mut Items<'a>,
) {
    let cart = input.cart.iter().rev().take(CART_ITEMS).map(|item| (*item, 1.0));
    let recent = input
        .recent
        .iter()
        .filter(|item| !input.cart.contains(item))
        .take(RECENT_ITEMS);
    let recent = recent
        .zip(1u8..)
        .map(|(item, rank)| (*item, 1.0 / f64::from(rank)));
    let mut scores = Scores::default();
    let mut weights = 0.0;
    for (item, weight) in cart.chain(recent) {
        let Some(item) = population.find(item) else {
            continue;
        };
        weights += weight;
        for (other, similarity) in population.neighbours(item) {
            scores.add(*other, weight * f64::from(*similarity));
        }
    }
    // What is clearly below the last place needs no closer look, unless a boost could lift it.
    let margin = if input.arrangement.is_none() {
        weights * 2e-6
    } else {
        f64::INFINITY
    };
    let mut least = f64::NEG_INFINITY;
    for (item, score) in scores.entries() {
        if score < least - margin {
            continue;
        }
        let Some(id) = population.id(item) else { continue };
        let micros = micros(score / weights * boost(input.arrangement, id));
        // The last place is reached by the better score, and by the more popular of two equals.
        let at = items.partition_point(|have| {
            have.micros > micros || (have.micros == micros && population.find(have.id) < Some(item))
        });
        if at < input.limit && micros > 0 && !excluded(id) {
            items.insert(at, Item { id, micros });
            items.truncate(input.limit);
            if let (true, Some(last)) = (items.len() == input.limit, items.last()) {
                least = last.score() * weights;
            }
        }
    }
}

/// Sums by item: a dense list with an open-addressed index, all on the stack. No allocation, no hashing of strings.
struct Scores {
    /// The place in `entries`, plus one.
    index: [u8; Scores::SLOTS],
    entries: [(u32, f64); Scores::ENTRIES],
    used: usize,
}

impl Default for Scores {
    fn default() -> Self {
        Scores {
            index: [0; Scores::SLOTS],
            entries: [(0, 0.0); Scores::ENTRIES],
            used: 0,
        }
    }
}

impl Scores {
    const ENTRIES: usize = (CART_ITEMS + RECENT_ITEMS) * MAX_NEIGHBOURS;
    /// More than twice the entries, so that probing ends soon.
    const SLOTS: usize = 512;

    #[inline]
    fn add(&mut self, item: u32, score: f64) {
        let mut at = (item.wrapping_mul(0x9e37_79b1) >> 23) as usize;
        loop {
            let Some(place) = self.index.get_mut(at % Scores::SLOTS) else {
                return;
            };
            if *place == 0 {
                if let Some(entry) = self.entries.get_mut(self.used) {
                    *entry = (item, score);
                    self.used += 1;
                    *place = self.used as u8;
                }
                return;
            }
            if let Some(entry) = self.entries.get_mut(usize::from(*place) - 1)
                && entry.0 == item
            {
                entry.1 += score;
                return;
            }
            at += 1;
        }
    }

    fn entries(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.entries.iter().copied().take(self.used)
    }
}

// A place has to fit a byte, and the index must never fill up.
const _: () = assert!(Scores::ENTRIES < 256 && Scores::ENTRIES < Scores::SLOTS);

fn unscored(id: &str) -> Item<'_> {
    Item { id, micros: 0 }
}

fn boost(arrangement: Option<&Arrangement>, id: &str) -> f64 {
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
