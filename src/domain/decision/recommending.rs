//! Recommendations: what goes with the session.
//!
//! The session is the last [`CART_ITEMS`] of the cart and the [`RECENT_ITEMS`] seen latest of the others. First
//! comes what similar sessions of the past went on with (see [`crate::domain::recommend::sessions`]), scored against the best.
//! Missing places are filled, scored below, with what is bought together with the session: the mean of an item's similarities
//! to the items of the cart, each of weight 1, and to the others, of weight 1, 1/2, 1/3 …. Then with what is popular. What is
//! in the cart is left out.

use smallvec::SmallVec;

use super::consulted::Consulted;
use super::scoring::{Basis, boost, micros, unscored};
use super::{Item, Items};
use crate::domain::recommend::{MAX_NEIGHBOURS, Population};
use crate::domain::ruleset::{Arrangement, ItemRules};

/// Items of the cart that count: the tastes of one visit.
pub(super) const CART_ITEMS: usize = 6;
/// Recent items that count besides.
pub(super) const RECENT_ITEMS: usize = 4;
/// Suggestions looked at where some are boosted.
pub(super) const MOST_BOOSTED: usize = 100;

/// One recommendation's inputs.
pub(super) struct Recommendation<'a, 'f> {
    pub(super) limit: usize,
    pub(super) fallback: &'a [std::sync::Arc<str>],
    pub(super) arrangement: Option<&'a Arrangement>,
    pub(super) rules: &'a ItemRules,
    /// Of the ruleset.
    pub(super) currency: &'a str,
    /// In the order in which they came in.
    pub(super) cart: &'f [&'f str],
    /// The latest first, without those in the cart.
    pub(super) recent: &'f [&'f str],
    /// Whether cart and recent items may be looked at, other than to leave them out.
    pub(super) personal: bool,
}

/// Recommends items, and notes what that rests on. Never empty.
pub(super) fn recommend<'a>(
    input: &Recommendation<'a, '_>,
    population: &'a Population,
    notes: &mut Consulted<'a>,
) -> (Items<'a>, Basis) {
    notes.declared(input.fallback, input.arrangement, input.rules);
    let excluded = |id: &str| {
        !input
            .rules
            .admits(id, population.catalogue().facts(id), input.currency)
            || input.cart.contains(&id)
            || input
                .arrangement
                .is_some_and(|a| a.hide.iter().any(|hide| **hide == *id))
    };
    let mut items = Items::with_capacity(input.limit);
    if input.personal {
        in_sessions(input, population, &excluded, &mut items, notes);
        if items.len() < input.limit {
            bought_together(input, population, &excluded, &mut items, notes);
        }
    }
    let mut basis = if items.is_empty() {
        Basis::Population
    } else {
        Basis::Own
    };
    let ceiling = items.last().map_or(1.0, Item::score);
    for (number, (id, share)) in (0u32..).zip(population.popular()) {
        if items.len() >= input.limit {
            break;
        }
        if number == 0 {
            // Shares are of the most popular one, whether or not it can be shown.
            notes.popular(number);
        }
        if !excluded(id) && !items.iter().any(|item| item.id == id) {
            items.push(Item {
                id,
                micros: micros(ceiling * share),
                because: None,
            });
            notes.popular(number);
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

/// The items that count, the latest first.
fn session<'f>(input: &Recommendation<'_, 'f>) -> impl Iterator<Item = &'f str> {
    let (cart, recent) = (input.cart, input.recent);
    let newest = cart.iter().rev().take(CART_ITEMS);
    newest.chain(recent.iter().take(RECENT_ITEMS)).copied()
}

/// Fills `items` with what similar sessions went on with, the best first.
fn in_sessions<'a>(
    input: &Recommendation<'a, '_>,
    population: &'a Population,
    excluded: &impl Fn(&str) -> bool,
    items: &mut Items<'a>,
    notes: &mut Consulted<'a>,
) {
    let session: SmallVec<[&str; 16]> = session(input).collect();
    // A boost may lift what is further down.
    let count = match input.arrangement {
        Some(arrangement) if !arrangement.boost.is_empty() => MOST_BOOSTED.max(input.limit),
        _ => input.limit,
    };
    let suggestions = population.goes_on(&session, count, |id| !excluded(id));
    notes.went_on(&suggestions);
    let best = suggestions.first().map_or(1.0, |first| f64::from(first.score));
    items.extend(suggestions.iter().map(|one| Item {
        id: one.id,
        micros: micros(f64::from(one.score) / best * boost(input.arrangement, one.id)),
        because: one.because,
    }));
    if count > input.limit {
        items.sort_by_key(|item| std::cmp::Reverse(item.micros));
    }
    items.truncate(input.limit);
}

/// Fills what is left of `items` with what is bought together with the session, scored below what is there.
fn bought_together<'a>(
    input: &Recommendation<'a, '_>,
    population: &'a Population,
    excluded: &impl Fn(&str) -> bool,
    items: &mut Items<'a>,
    notes: &mut Consulted<'a>,
) {
    notes.related(session(input).filter_map(|item| population.find(item)));
    let mut found = Items::new();
    let taken = |id: &str| excluded(id) || items.iter().any(|item| item.id == id);
    similar(input, population, &taken, &mut found);
    let ceiling = items.last().map_or(1.0, Item::score);
    let left = input.limit - items.len();
    items.extend(found.into_iter().take(left).map(|item| Item {
        micros: micros(ceiling * item.score()),
        because: reason(input, population, item.id),
        ..item
    }));
}

/// The item of the session that `id` is bought together with most.
fn reason<'a>(input: &Recommendation<'a, '_>, population: &'a Population, id: &str) -> Option<&'a str> {
    let wanted = population.find(id)?;
    let session = input.cart.iter().rev().take(CART_ITEMS);
    let session = session.chain(input.recent.iter().take(RECENT_ITEMS));
    let mut best: Option<(f32, u32)> = None;
    for item in session.filter_map(|item| population.find(item)) {
        let neighbours = population.neighbours(item).iter();
        for (_, similarity) in neighbours.filter(|(other, _)| *other == wanted) {
            if best.is_none_or(|(most, _)| *similarity > most) {
                best = Some((*similarity, item));
            }
        }
    }
    population.id(best?.1)
}

/// Fills `items` with what is similar to the session's items, the best first.
fn similar<'a>(
    input: &Recommendation<'a, '_>,
    population: &'a Population,
    excluded: &impl Fn(&str) -> bool,
    items: &mut Items<'a>,
) {
    let cart = input.cart.iter().rev().take(CART_ITEMS).map(|item| (*item, 1.0));
    let recent = input.recent.iter().take(RECENT_ITEMS);
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
            items.insert(
                at,
                Item {
                    id,
                    micros,
                    because: None,
                },
            );
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
