//! The part of a population that one decision consulted: small enough to be recorded, and enough to decide again.
//!
//! Items keep their order by popularity, and similarities refer to it, so ties fall as they fell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::catalogue::ItemFacts;
use super::population::{Population, WentOn};
use crate::domain::experiment::Posteriors;
use crate::domain::profile::Affinity;

/// See the module. As JSON it is part of a decision record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Excerpt {
    /// In how many orders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub payment_methods: BTreeMap<Arc<str>, u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shipping_methods: BTreeMap<Arc<str>, u32>,
    /// What was believed of the bandits' variants.
    #[serde(default, skip_serializing_if = "Posteriors::is_empty")]
    pub posteriors: Posteriors,
    /// What sessions like the shopper's went on with, the best first; a few more than could be shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub went_on: Vec<Recorded>,
    /// What is known of the items that could be shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub catalogue: BTreeMap<Arc<str>, ItemFacts>,
    /// The most bought first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ExcerptItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExcerptItem {
    pub id: Arc<str>,
    /// In how many orders.
    pub orders: u32,
    /// What is bought together with it, as places in the list of items, with the similarity; left out where it was not
    /// asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<(u32, f32)>,
}

/// What a session index suggested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub id: Arc<str>,
    pub score: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<Arc<str>>,
}

impl Recorded {
    pub(super) fn as_suggested(&self) -> WentOn<'_> {
        WentOn {
            id: &self.id,
            score: self.score,
            because: self.because.as_deref(),
        }
    }
}

/// Gathers an excerpt.
#[derive(Debug)]
pub(in crate::domain) struct Excerpting<'a> {
    population: &'a Population,
    excerpt: Excerpt,
    items: BTreeSet<u32>,
    /// Those whose neighbours were consulted.
    related: BTreeSet<u32>,
}

impl<'a> Excerpting<'a> {
    pub(in crate::domain) fn of(population: &'a Population) -> Self {
        Excerpting {
            population,
            excerpt: Excerpt::default(),
            items: BTreeSet::new(),
            related: BTreeSet::new(),
        }
    }

    /// What is believed of the variants of `experiments`.
    pub(in crate::domain) fn believed(&mut self, experiments: impl Iterator<Item = Arc<str>>) {
        self.excerpt.posteriors = self.population.posteriors().only(experiments);
    }

    /// The count of `key`.
    pub(in crate::domain) fn count(&mut self, affinity: Affinity, key: &Arc<str>) {
        let count = self.population.count(affinity, key);
        let counts = match affinity {
            Affinity::PaymentMethod => &mut self.excerpt.payment_methods,
            Affinity::ShippingMethod => &mut self.excerpt.shipping_methods,
            Affinity::Item => {
                self.items.extend(self.population.find(key));
                return;
            }
            Affinity::Category | Affinity::Device => return,
        };
        if count > 0 {
            counts.insert(Arc::clone(key), count);
        }
    }

    /// The first `count` items that sessions like `session` went on with and that `admits` lets in.
    pub(in crate::domain) fn went_on(
        &mut self,
        session: &[&str],
        count: usize,
        admits: impl Fn(&str) -> bool,
    ) {
        for one in self.population.goes_on(session, count, admits) {
            if !self.excerpt.went_on.iter().any(|known| *known.id == *one.id) {
                self.excerpt.went_on.push(Recorded {
                    id: one.id.into(),
                    score: one.score,
                    because: one.because.map(Into::into),
                });
            }
        }
    }

    /// What is known of `item`.
    pub(in crate::domain) fn known(&mut self, item: &Arc<str>) {
        if let Some(facts) = self.population.catalogue().facts(item) {
            self.excerpt.catalogue.insert(Arc::clone(item), facts.clone());
        }
    }

    /// What is bought together with `item`.
    pub(in crate::domain) fn related(&mut self, item: &str) {
        let Some(item) = self.population.find(item) else {
            return;
        };
        self.items.insert(item);
        self.related.insert(item);
        let neighbours = self.population.neighbours(item);
        self.items.extend(neighbours.iter().map(|(other, _)| *other));
    }

    /// The `count` most popular items that `admits` lets in.
    pub(in crate::domain) fn popular(&mut self, count: usize, admits: impl Fn(&str) -> bool) {
        let population = self.population;
        // Shares are of the most popular one, whether or not it can be shown.
        self.items.extend((population.item_count() > 0).then_some(0));
        let admitted = (0u32..)
            .zip(population.popular())
            .filter(|(_, (id, _))| admits(id));
        self.items.extend(admitted.take(count).map(|(number, _)| number));
    }

    pub(in crate::domain) fn finish(mut self) -> Excerpt {
        // Several placements may have asked: the order is that of one answer to all of them.
        let population = self.population;
        self.excerpt.went_on.sort_by(|a, b| {
            let rank = |one: &Recorded| population.rank_in_sessions(&one.id);
            b.score.total_cmp(&a.score).then_with(|| rank(a).cmp(&rank(b)))
        });
        let suggested: Vec<Arc<str>> = self
            .excerpt
            .went_on
            .iter()
            .map(|one| Arc::clone(&one.id))
            .collect();
        let bought = self.items.iter().filter_map(|number| population.id(*number));
        let bought: Vec<Arc<str>> = bought.map(Arc::from).collect();
        for item in suggested.iter().chain(&bought) {
            self.known(item);
        }
        let numbers: Vec<u32> = self.items.into_iter().collect();
        // Every neighbour was gathered with its item.
        let place = |number: &u32| {
            numbers
                .binary_search(number)
                .ok()
                .and_then(|at| at.try_into().ok())
        };
        let items = numbers.iter().filter_map(|number| {
            let with = match self.related.contains(number) {
                true => self.population.neighbours(*number),
                false => &[],
            };
            Some(ExcerptItem {
                id: self.population.id(*number)?.into(),
                orders: self.population.orders(*number),
                with: with
                    .iter()
                    .filter_map(|(other, similarity)| Some((place(other)?, *similarity)))
                    .collect(),
            })
        });
        Excerpt {
            items: items.collect(),
            ..self.excerpt
        }
    }
}
