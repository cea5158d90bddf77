//! The profile as JSON, for data engineers: named fields, scores instead of mantissas.
//!
//! A reading, not a storage format: it cannot be folded further.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::{Affinity, Snapshot};
use crate::domain::ids::Timestamp;

impl Snapshot {
    /// The profile as JSON text, its scores as of `now`.
    pub fn to_json(&self, now: Timestamp) -> String {
        // Fails only on maps whose keys aren't strings, which the view doesn't have.
        serde_json::to_string(&View { profile: self, now }).unwrap_or_default()
    }
}

struct View<'a> {
    profile: &'a Snapshot,
    now: Timestamp,
}

/// Pairs as a JSON object.
struct Object<I>(I);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)> + Clone> Serialize for Object<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

#[derive(Serialize)]
struct CurrencyView {
    orders: i64,
    cancelled: i64,
    revenue_minor: i64,
    refunds: i64,
    refunded_minor: i64,
}

#[derive(Serialize)]
struct CartLineView<'a> {
    item: &'a str,
    quantity: i64,
    price_minor: Option<i64>,
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let profile = self.profile;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &profile.version())?;
        map.serialize_entry("as_of", &profile.as_of().iter().collect::<Vec<_>>())?;
        map.serialize_entry("linked_user", &profile.linked_user())?;
        map.serialize_entry("stored_at_ms", &profile.stored_at())?;
        map.serialize_entry("generation", &profile.generation())?;
        map.serialize_entry("events", &profile.events())?;
        map.serialize_entry("first_seen_ms", &profile.first_seen())?;
        map.serialize_entry("last_seen_ms", &profile.last_seen())?;
        map.serialize_entry("last_order_ms", &profile.last_order())?;
        // The amounts follow by currency.
        let counts = profile.purchases("");
        map.serialize_entry("orders", &counts.orders)?;
        map.serialize_entry("cancelled_orders", &counts.cancelled_orders)?;
        map.serialize_entry("refunds", &counts.refunds)?;
        let totals = profile.totals().map(|(currency, totals)| {
            let view = CurrencyView {
                orders: totals.orders,
                cancelled: totals.cancelled,
                revenue_minor: totals.revenue_minor,
                refunds: totals.refunds,
                refunded_minor: totals.refunded_minor,
            };
            (currency, view)
        });
        map.serialize_entry(
            "currencies",
            &totals.collect::<std::collections::BTreeMap<_, _>>(),
        )?;
        for affinity in Affinity::ALL {
            let key = match affinity {
                Affinity::Item => "items",
                Affinity::Category => "categories",
                Affinity::PaymentMethod => "payment_methods",
                Affinity::ShippingMethod => "shipping_methods",
                Affinity::Device => "devices",
            };
            map.serialize_entry(key, &Object(profile.top(affinity, self.now).iter().copied()))?;
        }
        map.serialize_entry("recent_items", &profile.recent_items().collect::<Vec<_>>())?;
        let cart = profile.cart();
        let lines: Vec<CartLineView<'_>> = cart
            .lines
            .iter()
            .map(|line| CartLineView {
                item: line.item,
                quantity: line.quantity,
                price_minor: line.price_minor,
            })
            .collect();
        map.serialize_entry("cart", &lines)?;
        map.serialize_entry("checkout_step", &profile.checkout_step())?;
        map.serialize_entry(
            "assignments",
            &profile
                .assignments()
                .collect::<std::collections::BTreeMap<_, _>>(),
        )?;
        map.serialize_entry("consent", profile.consent())?;
        map.end()
    }
}
