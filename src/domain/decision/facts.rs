//! The facts that conditions see, gathered on the stack from a profile and a request.
//!
//! Only what some condition of the ruleset reads is gathered: scores of sixty items cost more than all the rest
//! of a decision.

use smallvec::SmallVec;

use super::Request;
use crate::domain::ids::Timestamp;
use crate::domain::profile::{Affinity, Cart, Snapshot};
use crate::domain::ruleset::fields::{CartFacts, Facts, ProfileFacts, RequestFacts};
use crate::domain::ruleset::{Reads, Ruleset};

/// More recent items than a condition has any use for are not shown to it.
const RECENT_ITEMS: usize = 20;

/// The lists that [`Facts`] borrows.
#[derive(Default)]
pub(super) struct Lists<'a> {
    request_cart: SmallVec<[&'a str; 8]>,
    profile_cart: SmallVec<[&'a str; 8]>,
    recent_items: SmallVec<[&'a str; 8]>,
    items: Vec<(&'a str, f64)>,
    categories: Vec<(&'a str, f64)>,
    payment_methods: Vec<(&'a str, f64)>,
    shipping_methods: Vec<(&'a str, f64)>,
    devices: Vec<(&'a str, f64)>,
}

/// What is gathered from: the carts are evaluated already, since a decision needs them too.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) ruleset: &'a Ruleset,
    /// The profile, where it is there and may be used.
    pub(super) part: Option<&'a Snapshot>,
    pub(super) profile_cart: Option<&'a Cart<'a>>,
    /// The request's cart, else the profile's.
    pub(super) cart: Option<&'a Cart<'a>>,
    pub(super) request: &'a Request<'a>,
    pub(super) now: Timestamp,
}

impl<'a> Lists<'a> {
    pub(super) fn gather(sources: &Sources<'a>, reads: Reads) -> Self {
        let mut lists = Lists::default();
        if reads.cart {
            lists.request_cart = items_of(sources.cart);
        }
        if reads.profile_cart {
            lists.profile_cart = items_of(sources.profile_cart);
        }
        let Some(part) = sources.part else { return lists };
        if reads.recent_items {
            lists.recent_items = part.recent_items().take(RECENT_ITEMS).collect();
        }
        let top = |wanted: bool, affinity| {
            if wanted {
                part.top(affinity, sources.now)
            } else {
                Vec::new()
            }
        };
        lists.items = top(reads.items, Affinity::Item);
        lists.categories = top(reads.categories, Affinity::Category);
        lists.payment_methods = top(reads.payment_methods, Affinity::PaymentMethod);
        lists.shipping_methods = top(reads.shipping_methods, Affinity::ShippingMethod);
        lists.devices = top(reads.devices, Affinity::Device);
        lists
    }

    /// The facts without the segments, which are told from them.
    pub(super) fn facts<'f>(&'f self, sources: &Sources<'f>) -> Facts<'f> {
        let request = sources.request;
        Facts {
            now: sources.now,
            profile: self.profile(sources),
            request: RequestFacts {
                cart: cart_facts(sources, sources.cart, &self.request_cart),
                currency: Some(request.currency.unwrap_or(sources.ruleset.currency())),
                country: request.country,
                locale: request.locale,
                device: request.device,
            },
        }
    }

    fn profile<'f>(&'f self, sources: &Sources<'f>) -> ProfileFacts<'f> {
        let Some(part) = sources.part else {
            return ProfileFacts::default();
        };
        let ruleset = sources.ruleset;
        let purchases = part.purchases(ruleset.currency());
        ProfileFacts {
            known: true,
            orders: purchases.orders,
            cancelled: purchases.cancelled_orders,
            revenue: ruleset.major_units(purchases.revenue_minor),
            average_order_value: purchases
                .average_order_minor
                .map_or(0.0, |minor| ruleset.major_units(minor)),
            refunds: purchases.refunds,
            events: part.events(),
            first_seen: part.first_seen(),
            last_seen: part.last_seen(),
            last_order: part.last_order(),
            checkout_step: i64::from(part.checkout_step()),
            items: self.items.as_slice().into(),
            categories: self.categories.as_slice().into(),
            payment_methods: self.payment_methods.as_slice().into(),
            shipping_methods: self.shipping_methods.as_slice().into(),
            devices: self.devices.as_slice().into(),
            recent_items: self.recent_items.as_slice().into(),
            cart: cart_facts(sources, sources.profile_cart, &self.profile_cart),
            ..ProfileFacts::default()
        }
    }
}

fn items_of<'a>(cart: Option<&'a Cart<'a>>) -> SmallVec<[&'a str; 8]> {
    cart.map_or_else(SmallVec::new, |cart| {
        cart.lines.iter().map(|line| line.item).collect()
    })
}

/// An amount in another currency than the ruleset's has no value here: comparing it fails, and the condition is
/// false.
fn cart_facts<'f>(sources: &Sources<'f>, cart: Option<&'f Cart<'f>>, items: &'f [&'f str]) -> CartFacts<'f> {
    let Some(cart) = cart else {
        return CartFacts::default();
    };
    let is_foreign = sources
        .request
        .currency
        .is_some_and(|currency| currency != sources.ruleset.currency());
    let total = if is_foreign {
        f64::NAN
    } else {
        sources.ruleset.major_units(cart.total_minor)
    };
    CartFacts {
        total,
        count: cart.count,
        items: items.into(),
    }
}
