//! What events say of a product, joined field by field: the latest statement of each field stays.
//!
//! A semilattice by `(time, event id)`, so every order of arrival ends in the same row.

use std::sync::Arc;

use super::ids::Stamp;
use super::transform::ProductSeen;

/// A value with the event that stated it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated<T> {
    pub value: T,
    pub stamp: Stamp,
}

/// All that is known of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub name: Option<Stated<Arc<str>>>,
    pub category: Option<Stated<Arc<str>>>,
    /// The unit price in minor units, and its currency.
    pub price: Option<Stated<(i64, Arc<str>)>>,
    pub is_charge: Stated<bool>,
    /// Pieces that can be sold.
    pub stock: Option<Stated<i64>>,
    pub image_url: Option<Stated<Arc<str>>>,
}

/// What a recommender has to know of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueItem {
    pub item: Arc<str>,
    pub category: Option<Arc<str>>,
    /// The unit price in minor units, and its currency.
    pub price: Option<(i64, Arc<str>)>,
    pub stock: Option<i64>,
    pub is_charge: bool,
}

impl Product {
    /// What one event says. A price without a currency says nothing.
    pub fn seen(seen: &ProductSeen) -> Self {
        let text = |value: &Option<Arc<str>>| {
            let value = value.clone().filter(|value| !value.is_empty())?;
            Some(Stated {
                value,
                stamp: seen.stamp.clone(),
            })
        };
        let price = seen.price_minor.zip(seen.currency.clone());
        Product {
            name: text(&seen.name),
            category: text(&seen.category),
            price: price.map(|value| Stated {
                value,
                stamp: seen.stamp.clone(),
            }),
            is_charge: Stated {
                value: seen.is_charge,
                stamp: seen.stamp.clone(),
            },
            stock: seen.stock.map(|value| Stated {
                value,
                stamp: seen.stamp.clone(),
            }),
            image_url: text(&seen.image_url),
        }
    }

    pub fn merge(&mut self, other: Product) {
        later_option(&mut self.name, other.name);
        later_option(&mut self.category, other.category);
        later_option(&mut self.price, other.price);
        later(&mut self.is_charge, other.is_charge);
        later_option(&mut self.stock, other.stock);
        later_option(&mut self.image_url, other.image_url);
    }
}

/// One event may state a field twice (two lines of one order), so ties go to the greater value.
fn later<T: Ord>(have: &mut Stated<T>, other: Stated<T>) {
    if (&other.stamp, &other.value) > (&have.stamp, &have.value) {
        *have = other;
    }
}

fn later_option<T: Ord>(have: &mut Option<Stated<T>>, other: Option<Stated<T>>) {
    match (have.as_mut(), other) {
        (Some(have), Some(other)) => later(have, other),
        (None, Some(other)) => *have = Some(other),
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Timestamp;

    fn seen(time: i64, name: Option<&str>, price_minor: Option<i64>) -> Product {
        Product::seen(&ProductSeen {
            item: "sku".into(),
            name: name.map(Into::into),
            category: None,
            price_minor,
            currency: price_minor.map(|_| "EUR".into()),
            is_charge: false,
            stock: None,
            image_url: None,
            stamp: Stamp {
                time: Timestamp(time),
                event_id: "e".into(),
            },
        })
    }

    #[test]
    fn the_latest_value_of_each_field_stays_in_every_order() {
        let statements = [
            seen(1, Some("old"), Some(5)),
            seen(2, Some("new"), None),
            seen(3, None, Some(7)),
            seen(3, Some(""), Some(6)),
        ];
        let mut expected: Option<Product> = None;
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let mut merged = statements[order[0]].clone();
            for at in &order[1..] {
                merged.merge(statements[*at].clone());
            }
            assert_eq!(merged.name.as_ref().map(|name| &*name.value), Some("new"));
            assert_eq!(merged.price.as_ref().map(|price| price.value.0), Some(7));
            assert_eq!(*expected.get_or_insert_with(|| merged.clone()), merged);
        }
    }
}
