//! The population model and how it is built.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::Serialize;
use smallvec::SmallVec;

use super::catalogue::Catalogue;
use super::excerpt::{Excerpt, Recorded};
use super::sessions::{MAX_RECENT, Scratch, SessionIndex};
use super::{MAX_BASKET, MAX_ITEMS, MAX_METHODS, MAX_NEIGHBOURS, MIN_TOGETHER, PurchasedOrder, Purchases};
use crate::domain::experiment::Posteriors;
use crate::domain::profile::Affinity;

thread_local! {
    /// What predictions work on. It carries nothing from one to the next but its memory.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

type Map<V> = HashMap<Arc<str>, V, FixedState>;

/// What all customers of a shop do.
#[derive(Debug, Clone, Default)]
pub struct Population {
    items: Vec<ItemModel>,
    index: Map<u32>,
    /// Neighbours of all items, one stretch for each: `(item, similarity)`, the most similar first.
    neighbours: Vec<(u32, f32)>,
    payment_methods: Shares,
    shipping_methods: Shares,
    posteriors: Posteriors,
    past: Past,
    catalogue: Catalogue,
}

/// The sessions of the past, or what was once suggested from them.
#[derive(Debug, Clone)]
enum Past {
    Sessions(Arc<SessionIndex>),
    /// As a decision recorded it, the best first.
    Recorded(Vec<Recorded>),
}

impl Default for Past {
    fn default() -> Self {
        Past::Recorded(Vec::new())
    }
}

/// An item that sessions like the shopper's went on with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WentOn<'a> {
    pub id: &'a str,
    pub score: f32,
    /// The item of the shopper's session that the most similar one shares.
    pub because: Option<&'a str>,
}

#[derive(Debug, Clone)]
struct ItemModel {
    id: Arc<str>,
    orders: u32,
    /// Where its neighbours begin and end.
    neighbours: (u32, u32),
}

/// Counts by name.
#[derive(Debug, Clone, Default)]
struct Shares {
    counts: Map<u32>,
}

impl Shares {
    fn count(&mut self, name: Option<&Arc<str>>) {
        let Some(name) = name else { return };
        if let Some(count) = self.counts.get_mut(name) {
            *count = count.saturating_add(1);
        } else if self.counts.len() < MAX_METHODS {
            self.counts.insert(Arc::clone(name), 1);
        }
    }

    fn get(&self, name: &str) -> u32 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

impl Population {
    /// Builds the model. About a quarter of a second for 370,000 lines.
    pub fn build(purchases: &Purchases) -> Population {
        let mut population = Population::default();
        for order in &purchases.orders {
            population.payment_methods.count(order.payment_method.as_ref());
            population.shipping_methods.count(order.shipping_method.as_ref());
        }
        population.count_items(&purchases.orders);
        let baskets = population.baskets(&purchases.orders);
        population.relate(&baskets);
        population
    }

    /// The model as far as an excerpt holds it.
    pub fn of_excerpt(excerpt: &Excerpt) -> Population {
        let mut population = Population::default();
        let shares = |counts: &BTreeMap<Arc<str>, u32>| Shares {
            counts: counts
                .iter()
                .map(|(name, count)| (Arc::clone(name), *count))
                .collect(),
        };
        population.payment_methods = shares(&excerpt.payment_methods);
        population.shipping_methods = shares(&excerpt.shipping_methods);
        population.posteriors = excerpt.posteriors.clone();
        population.past = Past::Recorded(excerpt.went_on.clone());
        population.catalogue = Catalogue::of_excerpt(&excerpt.catalogue);
        for (at, item) in (0u32..).zip(&excerpt.items) {
            let from = population.neighbours.len() as u32;
            population.neighbours.extend_from_slice(&item.with);
            population.index.insert(Arc::clone(&item.id), at);
            population.items.push(ItemModel {
                id: Arc::clone(&item.id),
                orders: item.orders,
                neighbours: (from, from + item.with.len() as u32),
            });
        }
        population
    }

    /// The same, with what is believed of the bandits' variants.
    #[must_use]
    pub fn with_posteriors(self, posteriors: Posteriors) -> Population {
        Population { posteriors, ..self }
    }

    /// What is believed of the bandits' variants.
    pub fn posteriors(&self) -> &Posteriors {
        &self.posteriors
    }

    /// The same, with the sessions of the past.
    #[must_use]
    pub fn with_sessions(self, sessions: Arc<SessionIndex>) -> Population {
        Population {
            past: Past::Sessions(sessions),
            ..self
        }
    }

    /// The same, with what is known of the products.
    #[must_use]
    pub fn with_catalogue(self, catalogue: Catalogue) -> Population {
        Population { catalogue, ..self }
    }

    /// What is known of the products.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Where an item stands among those of equal score in [`Population::goes_on`].
    pub(in crate::domain) fn rank_in_sessions(&self, item: &str) -> Option<u32> {
        self.sessions()?.find(item)
    }

    /// The `count` items that sessions like `session` (distinct items, the latest first) went on with and that `keep` admits,
    /// the best first.
    pub fn goes_on(
        &self,
        session: &[&str],
        count: usize,
        keep: impl Fn(&str) -> bool,
    ) -> SmallVec<[WentOn<'_>; 8]> {
        let index = match &self.past {
            Past::Sessions(index) => index,
            Past::Recorded(list) => {
                let admitted = list.iter().filter(|one| keep(&one.id)).take(count);
                return admitted.map(Recorded::as_suggested).collect();
            }
        };
        let known: SmallVec<[u32; MAX_RECENT]> = session
            .iter()
            .filter_map(|item| index.find(item))
            .take(MAX_RECENT)
            .collect();
        if known.is_empty() {
            return SmallVec::new();
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let admits = |item| !known.contains(&item) && index.name(item).is_some_and(&keep);
            let suggestions = index.recall(&known, count, scratch, admits);
            let named = suggestions.iter().filter_map(|one| {
                let because = known.get(usize::from(one.because));
                Some(WentOn {
                    id: index.name(one.item)?,
                    score: one.score,
                    because: because.and_then(|item| index.name(*item)),
                })
            });
            named.collect()
        })
    }

    /// Whether nothing was bought yet.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
            && self.payment_methods.counts.is_empty()
            && self.shipping_methods.counts.is_empty()
    }

    /// The sessions of the past; `None` where the model was made from a record.
    pub fn sessions(&self) -> Option<&SessionIndex> {
        match &self.past {
            Past::Sessions(index) => Some(index),
            Past::Recorded(_) => None,
        }
    }

    /// How many items the model knows.
    pub fn item_count(&self) -> usize {
        self.items.len()
    }

    /// In how many orders `key` occurred; 0 for affinities that orders say nothing of.
    pub fn count(&self, affinity: Affinity, key: &str) -> u32 {
        match affinity {
            Affinity::PaymentMethod => self.payment_methods.get(key),
            Affinity::ShippingMethod => self.shipping_methods.get(key),
            Affinity::Item => self
                .find(key)
                .and_then(|at| self.items.get(at as usize))
                .map_or(0, |i| i.orders),
            Affinity::Category | Affinity::Device => 0,
        }
    }

    /// Items by number of orders, the most first, with their share of the first one's.
    pub fn popular(&self) -> impl Iterator<Item = (&str, f64)> {
        let most = self.items.first().map_or(1, |item| item.orders.max(1));
        self.items
            .iter()
            .map(move |item| (&*item.id, f64::from(item.orders) / f64::from(most)))
    }

    /// The number of an item, for [`Population::neighbours`] and [`Population::id`].
    pub(in crate::domain) fn find(&self, item: &str) -> Option<u32> {
        self.index.get(item).copied()
    }

    pub(in crate::domain) fn id(&self, item: u32) -> Option<&str> {
        self.items.get(item as usize).map(|item| &*item.id)
    }

    pub(in crate::domain) fn orders(&self, item: u32) -> u32 {
        self.items.get(item as usize).map_or(0, |item| item.orders)
    }

    /// What is bought together with an item, the most similar first; similarities lie in (0, 1].
    pub(in crate::domain) fn neighbours(&self, item: u32) -> &[(u32, f32)] {
        let stretch = self
            .items
            .get(item as usize)
            .map_or((0, 0), |item| item.neighbours);
        self.neighbours
            .get(stretch.0 as usize..stretch.1 as usize)
            .unwrap_or(&[])
    }

    /// What is bought together with `item`, by name.
    pub fn similar(&self, item: &str) -> impl Iterator<Item = (&str, f32)> {
        let neighbours = self.find(item).map_or(&[][..], |item| self.neighbours(item));
        neighbours
            .iter()
            .filter_map(|(other, similarity)| Some((self.id(*other)?, *similarity)))
    }

    /// Numbers the items by popularity; ties go to the alphabet, so that the order of orders does not matter.
    fn count_items(&mut self, orders: &[PurchasedOrder]) {
        let mut counts: Map<(u32, u32)> = Map::default();
        for (number, order) in (1u32..).zip(orders) {
            for item in &order.items {
                let (count, last) = counts.entry(Arc::clone(item)).or_default();
                if *last != number {
                    *count += 1;
                    *last = number;
                }
            }
        }
        let mut items: Vec<ItemModel> = counts
            .into_iter()
            .map(|(id, (orders, _))| ItemModel {
                id,
                orders,
                neighbours: (0, 0),
            })
            .collect();
        items.sort_unstable_by(|a, b| b.orders.cmp(&a.orders).then_with(|| a.id.cmp(&b.id)));
        items.truncate(MAX_ITEMS);
        self.index = (0u32..)
            .zip(&items)
            .map(|(at, item)| (Arc::clone(&item.id), at))
            .collect();
        self.items = items;
    }

    /// The distinct known items of each order, as numbers.
    fn baskets(&self, orders: &[PurchasedOrder]) -> Vec<Vec<u32>> {
        let mut baskets = Vec::with_capacity(orders.len());
        for order in orders {
            let mut basket: Vec<u32> = order.items.iter().filter_map(|item| self.find(item)).collect();
            basket.sort_unstable();
            basket.dedup();
            // The least bought are the most telling, and the fewest pairs.
            let surplus = basket.len().saturating_sub(MAX_BASKET);
            basket.drain(..surplus);
            if basket.len() > 1 {
                baskets.push(basket);
            }
        }
        baskets
    }

    /// Counts, for one item after the other, what shares its baskets, and keeps the most similar.
    fn relate(&mut self, baskets: &[Vec<u32>]) {
        let mut baskets_of: Vec<Vec<u32>> = vec![Vec::new(); self.items.len()];
        for (number, basket) in (0u32..).zip(baskets) {
            for item in basket {
                if let Some(list) = baskets_of.get_mut(*item as usize) {
                    list.push(number);
                }
            }
        }
        let mut together = vec![0u32; self.items.len()];
        let mut touched: Vec<u32> = Vec::new();
        let mut best: Vec<(u32, f32)> = Vec::new();
        for (item, numbers) in (0u32..).zip(&baskets_of) {
            let shared = numbers.iter().filter_map(|number| baskets.get(*number as usize));
            for other in shared.flatten() {
                let Some(count) = together.get_mut(*other as usize) else {
                    continue;
                };
                if *count == 0 {
                    touched.push(*other);
                }
                *count += 1;
            }
            best.clear();
            let own = self.items.get(item as usize).map_or(1, |model| model.orders);
            for other in touched.drain(..) {
                let Some(count) = together.get_mut(other as usize).map(std::mem::take) else {
                    continue;
                };
                if other == item || count < MIN_TOGETHER {
                    continue;
                }
                let theirs = self.items.get(other as usize).map_or(1, |model| model.orders);
                let similarity = f64::from(count) / (f64::from(own) * f64::from(theirs)).sqrt();
                best.push((other, similarity as f32));
            }
            // Numbers go by popularity, so ties go to what sells more.
            best.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            best.truncate(MAX_NEIGHBOURS);
            let from = self.neighbours.len() as u32;
            self.neighbours.extend_from_slice(&best);
            if let Some(model) = self.items.get_mut(item as usize) {
                model.neighbours = (from, from + best.len() as u32);
            }
        }
        self.neighbours.shrink_to_fit();
    }
}
