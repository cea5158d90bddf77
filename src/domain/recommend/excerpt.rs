//! The part of a population that one decision consulted: small enough to be recorded, and enough to decide again.
//!
//! Items keep their order by popularity, and similarities refer to it, so ties fall as they fell. What is written and what is read
//! have the same fields in the same order, since a record's encoding knows them by their place.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use smallvec::SmallVec;

use super::catalogue::ItemFacts;
use super::population::WentOn;
use crate::domain::experiment::Posteriors;

/// See the module. Part of a decision record, where [`ExcerptRef`] is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Excerpt {
    /// In how many orders.
    pub payment_methods: BTreeMap<Arc<str>, u32>,
    pub shipping_methods: BTreeMap<Arc<str>, u32>,
    /// What was believed of the bandits' variants.
    pub posteriors: Posteriors,
    /// What sessions like the shopper's went on with, the best first; a few more than could be shown.
    pub went_on: Vec<Recorded>,
    /// What is known of the items that could be shown, as far as it counted.
    pub catalogue: BTreeMap<Arc<str>, ItemFacts>,
    /// The most bought first.
    pub items: Vec<ExcerptItem>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExcerptItem {
    pub id: Arc<str>,
    /// In how many orders.
    pub orders: u32,
    /// What is bought together with it, as places in the list of items, with the similarity; left out where it was not
    /// asked for.
    pub with: Vec<(u32, f32)>,
}

/// What a session index suggested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub id: Arc<str>,
    pub score: f32,
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

/// An excerpt on its way into a record: what [`Excerpt`] reads, borrowed from the population.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExcerptRef<'a> {
    pub(in crate::domain) payment_methods: Named<'a, u32>,
    pub(in crate::domain) shipping_methods: Named<'a, u32>,
    pub(in crate::domain) posteriors: Posteriors,
    pub(in crate::domain) went_on: SmallVec<[WentOn<'a>; 8]>,
    pub(in crate::domain) catalogue: Named<'a, &'a ItemFacts>,
    pub(in crate::domain) items: Vec<ExcerptItemRef<'a>>,
}

/// See [`ExcerptItem`].
#[derive(Debug, Clone, Serialize)]
pub(in crate::domain) struct ExcerptItemRef<'a> {
    pub(in crate::domain) id: &'a str,
    pub(in crate::domain) orders: u32,
    pub(in crate::domain) with: SmallVec<[(u32, f32); 20]>,
}

/// A few values by name; a map.
#[derive(Debug, Clone)]
pub(in crate::domain) struct Named<'a, V>(SmallVec<[(&'a str, V); 8]>);

impl<V> Default for Named<'_, V> {
    fn default() -> Self {
        Named(SmallVec::new())
    }
}

impl<'a, V> Named<'a, V> {
    /// Each name once.
    pub(in crate::domain) fn insert(&mut self, name: &'a str, value: V) {
        if !self.0.iter().any(|(have, _)| *have == name) {
            self.0.push((name, value));
        }
    }
}

impl<V: Serialize> Serialize for Named<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
