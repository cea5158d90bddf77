//! What a recommender has to know of the products: whether they can be sold, what they cost, and what they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::domain::product::CatalogueItem;

/// Facts of one product: part of a decision record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemFacts {
    pub category: Option<Arc<str>>,
    /// The unit price in minor units, and its currency.
    pub price: Option<(i64, Arc<str>)>,
    /// Sold out, or no product but a charge.
    pub unavailable: bool,
}

/// The products by id.
#[derive(Debug, Clone, Default)]
pub struct Catalogue(HashMap<Arc<str>, ItemFacts, FixedState>);

impl Catalogue {
    /// A stock that was never said is one that can be sold.
    pub fn of(items: Vec<CatalogueItem>) -> Catalogue {
        let facts = items.into_iter().map(|item| {
            let facts = ItemFacts {
                category: item.category,
                price: item.price,
                unavailable: item.is_charge || item.stock == Some(0),
            };
            (item.item, facts)
        });
        Catalogue(facts.collect())
    }

    pub(super) fn of_excerpt(facts: &BTreeMap<Arc<str>, ItemFacts>) -> Catalogue {
        let facts = facts.iter().map(|(id, facts)| (Arc::clone(id), facts.clone()));
        Catalogue(facts.collect())
    }

    /// `None` where nothing was ever said of it.
    pub fn facts(&self, item: &str) -> Option<&ItemFacts> {
        self.0.get(item)
    }
}
