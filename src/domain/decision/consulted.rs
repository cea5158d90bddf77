//! What a decision asks of the population, noted as it asks, so that its record can hold the answers. Notes borrow and
//! look nothing up: most decisions are not recorded.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::domain::profile::Affinity;
use crate::domain::recommend::{ExcerptItemRef, ExcerptRef, Named, Population, WentOn};
use crate::domain::ruleset::{Arrangement, Candidate, ItemRules, Ruleset};

/// The notes of one decision.
#[derive(Debug, Clone, Default)]
pub struct Consulted<'a> {
    rankings: SmallVec<[Compared<'a>; 2]>,
    /// Items that the ruleset names for a place.
    declared: SmallVec<[&'a [Arc<str>]; 4]>,
    /// What similar sessions went on with.
    went_on: SmallVec<[WentOn<'a>; 8]>,
    /// Items whose neighbours were looked at.
    related: SmallVec<[u32; 16]>,
    /// Items shown for being popular, and the one that shares are measured by.
    popular: SmallVec<[u32; 8]>,
    bandits: SmallVec<[&'a Arc<str>; 2]>,
    /// Whether a rule asked for more of an item than whether it can be sold.
    asked_of_items: bool,
}

/// Whose counts a ranking compares.
#[derive(Debug, Clone, Copy)]
struct Compared<'a> {
    by: Affinity,
    declared: &'a [Candidate],
    /// By the shop, right now.
    offered: &'a [&'a str],
}

impl<'a> Consulted<'a> {
    pub(super) fn ranking(&mut self, by: Affinity, declared: &'a [Candidate], offered: &'a [&'a str]) {
        self.rankings.push(Compared {
            by,
            declared,
            offered,
        });
    }

    pub(super) fn declared(
        &mut self,
        fallback: &'a [Arc<str>],
        arrangement: Option<&'a Arrangement>,
        rules: &ItemRules,
    ) {
        self.asked_of_items |= rules.asks_of_items();
        self.declared.push(fallback);
        self.declared
            .extend(arrangement.map(|arrangement| &*arrangement.pin));
    }

    /// Several placements may ask of the same session: an item is noted once.
    pub(super) fn went_on(&mut self, suggestions: &[WentOn<'a>]) {
        let known = self.went_on.len();
        for one in suggestions {
            if !self.went_on.iter().take(known).any(|have| have.id == one.id) {
                self.went_on.push(*one);
            }
        }
    }

    pub(super) fn related(&mut self, items: impl IntoIterator<Item = u32>) {
        self.related.extend(items);
    }

    pub(super) fn popular(&mut self, item: u32) {
        self.popular.push(item);
    }

    /// Every bandit, for an explanation shows what is believed of those that were not chosen, too.
    pub(super) fn bandits(&mut self, ruleset: &'a Ruleset, population: &Population) {
        if population.posteriors().is_empty() {
            return;
        }
        let experiences = ruleset.experiences().iter();
        let bandits = experiences.filter(|experience| experience.bandit.is_some());
        self.bandits.extend(bandits.map(|experience| &experience.id));
    }

    /// The part of `population` with which the same decision is made again, to be serialised.
    pub fn excerpt(&self, population: &'a Population) -> ExcerptRef<'a> {
        let mut excerpt = ExcerptRef {
            posteriors: population
                .posteriors()
                .only(self.bandits.iter().map(|id| Arc::clone(id))),
            went_on: self.went_on.clone(),
            ..ExcerptRef::default()
        };
        let mut numbers: SmallVec<[u32; 32]> = self.popular.iter().copied().collect();
        for item in &self.related {
            numbers.push(*item);
            let neighbours = population.neighbours(*item).iter();
            numbers.extend(neighbours.map(|(other, _)| *other));
        }
        for ranking in &self.rankings {
            let declared = ranking.declared.iter().map(|candidate| &*candidate.id);
            for id in declared.chain(ranking.offered.iter().copied()) {
                let count = population.count(ranking.by, id);
                match ranking.by {
                    Affinity::PaymentMethod => note(&mut excerpt.payment_methods, id, count),
                    Affinity::ShippingMethod => note(&mut excerpt.shipping_methods, id, count),
                    Affinity::Item => numbers.extend(population.find(id)),
                    Affinity::Category | Affinity::Device => {}
                }
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        // The order is that of one answer to all placements that asked.
        excerpt.went_on.sort_by(|a, b| {
            let rank = |one: &WentOn<'_>| population.rank_in_sessions(one.id);
            b.score.total_cmp(&a.score).then_with(|| rank(a).cmp(&rank(b)))
        });

        let suggested = self.went_on.iter().map(|one| one.id);
        let bought = numbers.iter().filter_map(|number| population.id(*number));
        let declared = self.declared.iter().flat_map(|ids| ids.iter().map(|id| &**id));
        for id in suggested.chain(bought).chain(declared) {
            // An item that can be sold is admitted like one of which nothing is known.
            if let Some(facts) = population.catalogue().facts(id)
                && (self.asked_of_items || facts.unavailable)
            {
                excerpt.catalogue.insert(id, facts);
            }
        }
        let place = |number: &u32| {
            numbers
                .binary_search(number)
                .ok()
                .and_then(|at| at.try_into().ok())
        };
        let items = numbers.iter().filter_map(|number| {
            let with = match self.related.contains(number) {
                true => population.neighbours(*number),
                false => &[],
            };
            // Every neighbour was gathered with its item.
            let with = with
                .iter()
                .filter_map(|(other, similarity)| Some((place(other)?, *similarity)));
            Some(ExcerptItemRef {
                id: population.id(*number)?,
                orders: population.orders(*number),
                with: with.collect(),
            })
        });
        excerpt.items = items.collect();
        excerpt
    }
}

fn note<'a>(counts: &mut Named<'a, u32>, id: &'a str, count: u32) {
    if count > 0 {
        counts.insert(id, count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::consent::Choice;
    use crate::domain::decision::{Decision, Filling, ProfileState, Request, Terms, decide};
    use crate::domain::ids::Timestamp;
    use crate::domain::product::CatalogueItem;
    use crate::domain::profile::{Cart, CartLine};
    use crate::domain::recommend::Catalogue;
    use crate::domain::recommend::sessions::{Interaction, SessionIndex, Tuning};
    use crate::domain::recommend::{Excerpt, PurchasedOrder, Purchases};

    const RULESET: &str = r#"
version: 1
currency: GBP
placements:
  pay: {kind: ranking, by: payment_method, candidates: [card, paypal, klarna, m9]}
  ship: {kind: ranking, by: shipping_method, candidates: [m0, m1, m2]}
  items: {kind: ranking, by: item, candidates: [i0, i7, i11, nothing]}
  upsell: {kind: recommendation, limit: 3, fallback: [i0, i1]}
  arranged: {kind: recommendation, limit: 2, fallback: [i0]}
  ruled: {kind: recommendation, limit: 2, fallback: [i0], exclude: [i3], categories: [c0, c1], price: {min: 1, max: 9}}
experiences:
  - {id: tidy, placement: arranged, hide: [i0, i1, i2], pin: [i9], boost: {i5: 3.0}}
"#;

    fn shown(decision: &Decision<'_>) -> Vec<String> {
        let placements = decision.placements.iter();
        placements
            .map(|placement| {
                let items = match &placement.filling {
                    Filling::Content(_) => String::new(),
                    Filling::Ranking(items) | Filling::Recommendation(items) => format!("{items:?}"),
                };
                format!("{} {} {items}", placement.name, placement.reason.as_str())
            })
            .collect()
    }

    fn name(prefix: &str, number: u8) -> Arc<str> {
        format!("{prefix}{number}").into()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn with_its_excerpt_a_decision_is_made_again(
            orders in prop::collection::vec(
                (prop::collection::vec(0u8..14, 1..6), 0u8..4, 0u8..4), 0..60),
            cart in prop::option::of(prop::collection::vec(0u8..16, 0..9)),
            with_sessions in any::<bool>(),
            with_rules in any::<bool>(),
            stock in prop::collection::vec(prop::option::of(0i64..3), 0..14),
        ) {
            let orders = orders.into_iter().map(|(items, pay, ship)| PurchasedOrder {
                items: items.into_iter().map(|item| name("i", item)).collect(),
                payment_method: Some(if pay == 0 { "card".into() } else { name("m", pay) }),
                shipping_method: Some(name("m", ship)),
            });
            let orders: Vec<PurchasedOrder> = orders.collect();
            let touched = orders.iter().zip(0u64..).flat_map(|(order, session)| {
                order.items.iter().zip(0i64..).map(move |(item, at)| Interaction {
                    session,
                    item: Arc::clone(item),
                    at,
                })
            });
            let sessions = SessionIndex::build(touched.collect(), Tuning::default());
            let mut population = Population::build(&Purchases { orders });
            if with_sessions {
                population = population.with_sessions(Arc::new(sessions));
            }
            let products = stock.iter().zip(0u8..).map(|(stock, item)| CatalogueItem {
                item: name("i", item),
                category: Some(name("c", item % 3)),
                price: Some((i64::from(item) * 100, "GBP".into())),
                stock: *stock,
                is_charge: false,
            });
            let population = population.with_catalogue(Catalogue::of(products.collect()));
            let ruleset = Ruleset::parse(RULESET, 1).unwrap();
            let names: Vec<Arc<str>> = cart.iter().flatten().map(|item| name("i", *item)).collect();
            let lines = names.iter().map(|item| CartLine { item, quantity: 1, price_minor: None });
            let cart = cart.as_ref().map(|_| Cart { lines: lines.collect(), ..Cart::default() });
            let without_rules = ["pay", "ship", "items", "upsell", "arranged"];
            let placements = (!with_rules).then_some(&without_rules[..]);
            let request = Request { cart: cart.as_ref(), placements, ..Request::default() };
            let terms = Terms { consent_default: Choice::Granted, record_permit: true, explain: false };

            let decision = decide(&ruleset, &population, ProfileState::Absent, &request, Timestamp(0), &terms);
            // Through the log, then through the warehouse.
            let bytes = postcard::to_stdvec(&decision.consulted.excerpt(&population)).unwrap();
            let excerpt: Excerpt = postcard::from_bytes(&bytes).unwrap();
            let json = serde_json::to_string(&excerpt).unwrap();
            prop_assert_eq!(&excerpt, &serde_json::from_str::<Excerpt>(&json).unwrap());
            prop_assert_eq!(excerpt.went_on.len(), decision.consulted.went_on.len());
            let has_facts = |id: &str| excerpt.catalogue.contains_key(id);
            prop_assert_eq!(has_facts("i9"), with_rules && stock.len() > 9 || stock.get(9) == Some(&Some(0)));
            let recorded = Population::of_excerpt(&excerpt);
            let again = decide(&ruleset, &recorded, ProfileState::Absent, &request, Timestamp(0), &terms);
            prop_assert_eq!(shown(&decision), shown(&again));
        }
    }
}
