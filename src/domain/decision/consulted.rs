//! What a decision asked of the population, found again from its input. Decisions themselves note nothing: most are
//! not recorded.

use std::sync::Arc;

use smallvec::SmallVec;

use super::recommending::{CART_ITEMS, MOST_BOOSTED, RECENT_ITEMS};
use super::{ProfileState, Request};
use crate::domain::profile::{Cart, ProfilePart};
use crate::domain::recommend::{Excerpt, Excerpting, Population};
use crate::domain::ruleset::{Arrangement, Placement, PlacementKind, Ruleset, VariantEffect};

/// The excerpt of `population` with which [`super::decide()`] makes the same decision; a little more than it consulted.
pub fn consulted(
    ruleset: &Ruleset,
    population: &Population,
    profile: ProfileState<'_>,
    request: &Request<'_>,
) -> Excerpt {
    let part = match profile {
        ProfileState::Known(part) => Some(part),
        ProfileState::Absent | ProfileState::Unavailable => None,
    };
    let stored = match (request.cart, part) {
        (None, Some(part)) => Some(part.cart()),
        _ => None,
    };
    let cart = request.cart.or(stored.as_ref());
    let mut excerpting = Excerpting::of(population);
    let bandits = ruleset
        .experiences()
        .iter()
        .filter(|experience| experience.bandit.is_some());
    excerpting.believed(bandits.map(|experience| Arc::clone(&experience.id)));
    let asked = ruleset.placements().iter().filter(|placement| {
        request
            .placements
            .is_none_or(|names| names.contains(&&*placement.name))
    });
    for placement in asked {
        match &placement.kind {
            PlacementKind::Content { .. } => {}
            PlacementKind::Ranking { by, candidates, .. } => {
                for candidate in candidates {
                    excerpting.count(*by, &candidate.id);
                }
            }
            PlacementKind::Recommendation {
                limit,
                fallback,
                rules,
            } => {
                let lines = cart.map_or(0, |cart| cart.lines.len());
                let hidden = most_hidden(ruleset, placement);
                let admits =
                    |id: &str| rules.admits(id, population.catalogue().facts(id), ruleset.currency());
                // Those shown, those in the cart, and those hidden are passed over on the way to the last place.
                excerpting.popular(2 * limit + lines + hidden, admits);
                let session = relate(&mut excerpting, cart, part);
                let looked_at = match arrangements(ruleset, placement).any(|one| !one.boost.is_empty()) {
                    true => MOST_BOOSTED.max(*limit),
                    false => *limit,
                };
                excerpting.went_on(&session, looked_at + lines + hidden, admits);
                let pinned = arrangements(ruleset, placement).flat_map(|arrangement| &arrangement.pin);
                for item in fallback.iter().chain(pinned) {
                    excerpting.known(item);
                }
            }
        }
    }
    excerpting.finish()
}

/// Notes what is bought together with the session's items, and returns them.
fn relate<'s>(
    excerpting: &mut Excerpting<'_>,
    cart: Option<&'s Cart<'_>>,
    part: Option<&'s ProfilePart>,
) -> SmallVec<[&'s str; 16]> {
    let lines = cart.map_or(&[][..], |cart| &cart.lines);
    let recent = part.into_iter().flat_map(ProfilePart::recent_items);
    let others = recent.filter(|item| !lines.iter().any(|line| line.item == *item));
    let newest = lines.iter().rev().take(CART_ITEMS).map(|line| line.item);
    let session: SmallVec<[&str; 16]> = newest.chain(others.take(RECENT_ITEMS)).collect();
    for item in &session {
        excerpting.related(item);
    }
    session
}

fn arrangements<'r>(ruleset: &'r Ruleset, placement: &'r Placement) -> impl Iterator<Item = &'r Arrangement> {
    let slots = placement.experiences.iter();
    slots
        .filter_map(|slot| ruleset.experiences().get(slot.experience as usize))
        .flat_map(|experience| &experience.variants)
        .filter_map(|variant| match &variant.effect {
            VariantEffect::Arrange(arrangement) => Some(arrangement),
            VariantEffect::Payload(_) => None,
        })
}

fn most_hidden(ruleset: &Ruleset, placement: &Placement) -> usize {
    let hidden = arrangements(ruleset, placement).map(|arrangement| arrangement.hide.len());
    hidden.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::consent::Choice;
    use crate::domain::decision::{Decision, Filling, Terms, decide};
    use crate::domain::ids::Timestamp;
    use crate::domain::product::CatalogueItem;
    use crate::domain::profile::CartLine;
    use crate::domain::recommend::Catalogue;
    use crate::domain::recommend::sessions::{Interaction, SessionIndex, Tuning};
    use crate::domain::recommend::{PurchasedOrder, Purchases};

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
            let request = Request { cart: cart.as_ref(), ..Request::default() };
            let terms = Terms { consent_default: Choice::Granted, record_permit: true, explain: false };

            let excerpt = consulted(&ruleset, &population, ProfileState::Absent, &request);
            let json = serde_json::to_string(&excerpt).unwrap();
            let read: Excerpt = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&read, &excerpt);
            let again = Population::of_excerpt(&read);
            let made = |population: &Population| {
                shown(&decide(&ruleset, population, ProfileState::Absent, &request, Timestamp(0), &terms))
            };
            prop_assert_eq!(made(&population), made(&again));
        }
    }
}
