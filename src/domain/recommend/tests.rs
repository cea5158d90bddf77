//! The model against small sales that can be checked by hand, and against a plain count.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::profile::Affinity;

fn order(items: &[&str]) -> PurchasedOrder {
    PurchasedOrder {
        items: items.iter().map(|item| Arc::from(*item)).collect(),
        ..PurchasedOrder::default()
    }
}

fn build(orders: &[&[&str]]) -> Population {
    Population::build(&Purchases {
        orders: orders.iter().map(|items| order(items)).collect(),
    })
}

#[test]
fn what_is_bought_together_is_similar_by_cosine() {
    let tea_for_two: &[&str] = &["tea", "cup"];
    let population = build(&[tea_for_two, tea_for_two, tea_for_two, &["tea"], &["bag", "tea"]]);
    let similar: Vec<_> = population.similar("tea").collect();
    assert_eq!(similar.len(), 1, "two orders in common are chance: {similar:?}");
    assert_eq!(similar[0].0, "cup");
    assert!((f64::from(similar[0].1) - 3.0 / (5.0f64 * 3.0).sqrt()).abs() < 1e-6);
    assert_eq!(population.similar("bag").count(), 0);
    assert_eq!(population.similar("unknown").count(), 0);
}

#[test]
fn popular_items_go_by_orders_and_then_by_name() {
    let population = build(&[&["b", "b", "b"], &["a"], &["c"], &["c", "a"]]);
    let popular: Vec<_> = population.popular().collect();
    assert_eq!(
        popular,
        [("a", 1.0), ("c", 1.0), ("b", 0.5)],
        "an order counts an item once"
    );
}

#[test]
fn methods_are_counted_by_order() {
    let paid = |method: &str| PurchasedOrder {
        payment_method: Some(method.into()),
        ..order(&["x"])
    };
    let population = Population::build(&Purchases {
        orders: vec![paid("card"), paid("paypal"), paid("card")],
    });
    assert_eq!(population.count(Affinity::PaymentMethod, "card"), 2);
    assert_eq!(population.count(Affinity::PaymentMethod, "cash"), 0);
    assert_eq!(population.count(Affinity::ShippingMethod, "card"), 0);
    assert_eq!(population.count(Affinity::Item, "x"), 3);
}

#[test]
fn an_empty_shop_has_an_empty_model() {
    let population = build(&[]);
    assert!(population.is_empty());
    assert_eq!(population.popular().count(), 0);
}

#[test]
fn the_model_is_bounded() {
    let names: Vec<String> = (0..MAX_BASKET * 3).map(|n| format!("item-{n:04}")).collect();
    let basket: Vec<&str> = names.iter().map(String::as_str).collect();
    let population = build(&[&basket, &basket, &basket]);
    assert_eq!(population.item_count(), names.len());
    for name in &names {
        assert!(population.similar(name).count() <= MAX_NEIGHBOURS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_model_agrees_with_a_plain_count_in_any_order_of_orders(
        mut orders in prop::collection::vec(prop::collection::vec(0u8..12, 0..6), 0..40)
    ) {
        let model = |orders: &[Vec<u8>]| {
            let orders = orders.iter().map(|items| PurchasedOrder {
                items: items.iter().map(|item| Arc::from(format!("i{item}"))).collect(),
                ..PurchasedOrder::default()
            });
            Population::build(&Purchases { orders: orders.collect() })
        };
        let population = model(&orders);
        let sets: Vec<HashSet<u8>> = orders.iter().map(|items| items.iter().copied().collect()).collect();
        let count = |wanted: &[u8]| sets.iter().filter(|set| wanted.iter().all(|i| set.contains(i))).count() as f64;
        for a in 0..12u8 {
            for b in (0..12u8).filter(|b| *b != a) {
                let together = count(&[a, b]);
                let expected = (together >= f64::from(MIN_TOGETHER))
                    .then(|| together / (count(&[a]) * count(&[b])).sqrt());
                let name = format!("i{b}");
                let found = population.similar(&format!("i{a}")).find(|(id, _)| *id == name);
                match (expected, found) {
                    (None, None) => {}
                    (Some(expected), Some((_, found))) => prop_assert!((expected - f64::from(found)).abs() < 1e-6),
                    other => prop_assert!(false, "{a} {b}: {other:?}"),
                }
            }
        }
        orders.reverse();
        let reversed = model(&orders);
        prop_assert_eq!(population.popular().collect::<Vec<_>>(), reversed.popular().collect::<Vec<_>>());
        for item in 0..12u8 {
            let name = format!("i{item}");
            prop_assert_eq!(
                population.similar(&name).collect::<Vec<_>>(), reversed.similar(&name).collect::<Vec<_>>()
            );
        }
    }
}
