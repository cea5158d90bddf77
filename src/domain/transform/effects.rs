//! `transform`: what each known event does.
//!
//! | event | profile | views |
//! |---|---|---|
//! | Product Viewed, Clicked, Added, wishlist | weights of item and category, recent item; Added and Removed change the cart | product |
//! | Product List Viewed, Filtered | weight of the list's category, a little for its first items | products |
//! | Cart Viewed, Checkout Started | the cart is replaced where `products` are listed | products |
//! | Checkout …, Payment Info Entered | step; weights of the methods chosen | |
//! | Order Completed | cart emptied, step 0, last order | order report, products |
//! | Order Updated | | order report where it has an amount |
//! | Order Refunded, Cancelled | | refund, cancellation |
//! | any other of the shopper's own | seen, device | |
//!
//! What an order itself adds (revenue, affinities) depends on stored rows: see [`crate::domain::order`].
//!
//! Consent comes first. A quarantined event, or one with analytics denied, still folds its consent, and nothing else.

use std::sync::Arc;

use super::reports::{order, products_seen, rank, refund};
use super::{CancellationReport, DecisionRecord, DecisionServed, Effect, IdentityClaim, Proof};
use crate::domain::commerce::{Commerce, Product};
use crate::domain::consent::Choice;
use crate::domain::event::{
    ALIAS, DECISION_SERVED, Event, IDENTITY_UNLINKED, KnownEvent, QuarantineCode, Source,
};
use crate::domain::json::{Reader, Value};
use crate::domain::profile::{Affinity, CartOp, Contribution, Delta};

/// Weights, relative to one view of a product. A click only announces the view that follows it; an addition to
/// the cart is a decision; an order (see `order`) weighs most.
const VIEWED: f64 = 1.0;
const CLICKED: f64 = 0.5;
const ADDED: f64 = 2.0;
const WISHED: f64 = 1.5;
const LIST_CATEGORY: f64 = 0.5;
const LISTED: f64 = 0.1;
/// Items of a list that count: those a shopper sees without scrolling.
const LISTED_ITEMS: usize = 8;
/// A method chosen at a checkout step; the order that follows adds its own weight.
const METHOD_CHOSEN: f64 = 0.5;
const DEVICE_USED: f64 = 1.0;

/// Everything that `event` does to the views. Total: whatever the body holds, there is an effect.
pub fn transform(event: &Event) -> Effect {
    let mut effect = Effect {
        event: event.clone(),
        subject: event.subject().cloned(),
        contribution: Contribution {
            stamp: event.stamp(),
            deltas: Vec::new(),
            resets: false,
        },
        order: None,
        cancellation: None,
        refund: None,
        identity: identity(event),
        products: Vec::new(),
        decision: None,
        quarantine: None,
    };
    if *event.name == *DECISION_SERVED && event.source == Source::Internal {
        effect.served(event);
    } else {
        effect.state_consent(event);
        match &event.quarantine {
            Some(code) => effect.quarantine = Some((Arc::clone(code), detail(event, code))),
            None => effect.happened(event),
        }
    }
    if event.consent.analytics == Some(Choice::Denied) {
        return effect.without_analytics();
    }
    if effect.contribution.deltas.is_empty() {
        effect.subject = None;
    }
    effect
}

impl Effect {
    /// The effect where the shopper denied analytics, in this event or, as the part remembers, before: facts stay
    /// without a subject, and of the profile only consent changes. A server's statements on identity stand.
    pub fn without_analytics(mut self) -> Effect {
        self.contribution
            .deltas
            .retain(|delta| matches!(delta, Delta::Consent { .. }));
        if self.contribution.deltas.is_empty() {
            self.subject = None;
        }
        if let Some(order) = &mut self.order {
            order.subject = None;
        }
        if let Some(refund) = &mut self.refund {
            refund.subject = None;
        }
        if matches!(self.identity, Some(IdentityClaim::Link { .. })) {
            self.identity = None;
        }
        self.event.anonymous = None;
        self.event.user = None;
        self.event.claimed_user = None;
        self.event.session = None;
        self
    }

    fn state_consent(&mut self, event: &Event) {
        if !event.consent.is_unstated() {
            self.contribution.deltas.push(Delta::Consent {
                statement: event.consent,
                received_at: event.received_at,
                import: event.source == Source::Import,
            });
            self.contribution.resets = event.consent.personalization == Some(Choice::Denied);
        }
    }

    /// A decision touches the profile only where it assigned someone or served what is capped.
    fn served(&mut self, event: &Event) {
        let Some((record, facts)) = DecisionRecord::from_event(event) else {
            let code = QuarantineCode::InvalidRecord.as_str();
            self.quarantine = Some((code.into(), detail(event, code)));
            return;
        };
        self.event.body = record.to_json().into();
        let deltas = &mut self.contribution.deltas;
        deltas.extend(record.assigned.into_iter().map(|made| Delta::Assigned {
            experiment: made.experiment,
            variant: made.variant,
            is_guest: event.user.is_none(),
        }));
        deltas.extend(record.capped.into_iter().map(|experience| Delta::Served {
            experience,
            session: event.session.clone(),
        }));
        self.decision = Some(DecisionServed {
            decision_id: Arc::clone(&event.event_id),
            decided_at: record.decided_at,
            ruleset_version: record.ruleset_version,
            placements: record.placements.into_vec(),
            exposures: record.exposures.into_vec(),
            withheld: record.withheld,
            facts: facts.map_or_else(String::new, |facts| facts.to_json()),
        });
    }

    fn happened(&mut self, event: &Event) {
        let known = KnownEvent::from_name(&event.name);
        let (properties, context) = event.sections();
        let of_the_shop = matches!(
            known,
            Some(
                KnownEvent::OrderUpdated
                    | KnownEvent::OrderRefunded
                    | KnownEvent::OrderCancelled
                    | KnownEvent::ProductUpdated
            )
        ) || [ALIAS, IDENTITY_UNLINKED].contains(&&*event.name);
        if !of_the_shop {
            self.contribution.deltas.push(Delta::Seen);
            if let Some(device) = context.and_then(device_type) {
                self.weigh(Affinity::Device, &device, DEVICE_USED);
            }
        }
        let Some(known) = known else { return };
        match Commerce::read(known, properties) {
            Ok(commerce) => self.shopped(event, known, &commerce),
            Err(code) => {
                self.contribution
                    .deltas
                    .retain(|delta| matches!(delta, Delta::Consent { .. }));
                self.quarantine = Some((code.as_str().into(), detail(event, code.as_str())));
            }
        }
    }

    fn shopped(&mut self, event: &Event, known: KnownEvent, commerce: &Commerce<'_>) {
        use KnownEvent as Known;
        let product = &commerce.product;
        match known {
            Known::ProductViewed => self.looked_at(product, VIEWED),
            Known::ProductClicked => self.looked_at(product, CLICKED),
            Known::ProductAddedToWishlist => self.looked_at(product, WISHED),
            Known::ProductAdded | Known::WishlistProductAddedToCart => {
                self.looked_at(product, ADDED);
                self.add_to_cart(product, commerce);
            }
            Known::ProductRemoved => {
                if let Some(item) = product.item() {
                    let quantity = quantity(product);
                    self.contribution.deltas.push(Delta::Cart(CartOp::Remove {
                        item: item.into(),
                        quantity,
                    }));
                }
            }
            Known::ProductListViewed | Known::ProductListFiltered => {
                if let Some(category) = product.category.as_deref() {
                    self.weigh(Affinity::Category, category, LIST_CATEGORY);
                }
                for item in commerce
                    .products
                    .iter()
                    .take(LISTED_ITEMS)
                    .filter_map(Product::item)
                {
                    self.weigh(Affinity::Item, item, LISTED);
                }
            }
            Known::CartViewed => self.replace_cart(commerce),
            Known::CheckoutStarted => {
                self.replace_cart(commerce);
                self.reach_step(Some(commerce.step.unwrap_or(1)));
            }
            Known::CheckoutStepViewed => self.reach_step(Some(commerce.step.unwrap_or(1))),
            Known::CheckoutStepCompleted | Known::PaymentInfoEntered => {
                self.reach_step(commerce.step);
                if let Some(method) = commerce.payment_method.as_deref() {
                    self.weigh(Affinity::PaymentMethod, method, METHOD_CHOSEN);
                }
                if let Some(method) = commerce.shipping_method.as_deref() {
                    self.weigh(Affinity::ShippingMethod, method, METHOD_CHOSEN);
                }
            }
            Known::OrderCompleted => {
                self.contribution.deltas.extend([
                    Delta::OrderSeen,
                    Delta::CartCleared,
                    Delta::CheckoutStep(0),
                ]);
                self.order = order(event, commerce);
            }
            Known::OrderUpdated if commerce.has_amount() => self.order = order(event, commerce),
            Known::OrderRefunded => self.refund = refund(event, commerce),
            Known::OrderCancelled => {
                self.cancellation = commerce.order_id.as_deref().map(|order_id| CancellationReport {
                    order_id: order_id.into(),
                    rank: rank(event),
                });
            }
            _ => {}
        }
        self.products = products_seen(event, commerce);
    }

    fn weigh(&mut self, affinity: Affinity, key: &str, weight: f64) {
        self.contribution.deltas.push(Delta::Weight {
            affinity,
            key: key.into(),
            weight,
        });
    }

    fn looked_at(&mut self, product: &Product<'_>, weight: f64) {
        let Some(item) = product.item().filter(|_| !product.is_charge()) else {
            return;
        };
        self.weigh(Affinity::Item, item, weight);
        if let Some(category) = product.category.as_deref() {
            self.weigh(Affinity::Category, category, weight);
        }
        self.contribution
            .deltas
            .push(Delta::RecentItem { item: item.into() });
    }

    fn add_to_cart(&mut self, product: &Product<'_>, commerce: &Commerce<'_>) {
        let Some(item) = product.item() else { return };
        let price_minor = product.price_minor(commerce.currency.as_deref().unwrap_or_default());
        let add = CartOp::Add {
            item: item.into(),
            quantity: quantity(product),
            price_minor,
        };
        self.contribution.deltas.push(Delta::Cart(add));
    }

    /// A snapshot: clear, then add. Without a list nothing is known of the cart.
    fn replace_cart(&mut self, commerce: &Commerce<'_>) {
        if commerce.lists_products {
            self.contribution.deltas.push(Delta::CartCleared);
            for product in &commerce.products {
                self.add_to_cart(product, commerce);
            }
        }
    }

    fn reach_step(&mut self, step: Option<u16>) {
        self.contribution.deltas.extend(step.map(Delta::CheckoutStep));
    }
}

fn quantity(product: &Product<'_>) -> u32 {
    u32::try_from(product.quantity.unwrap_or(1)).unwrap_or(u32::MAX)
}

fn detail(event: &Event, code: &str) -> String {
    format!("{} {:?}: {code}", event.name, event.event_id)
}

/// An identity claim needs proof: a proven user next to an anonymous id, or a server's own statement.
fn identity(event: &Event) -> Option<IdentityClaim> {
    let user = event.user.clone()?;
    let by_the_shop = matches!(event.source, Source::Server | Source::Import);
    if *event.name == *ALIAS {
        let previous = event
            .claimed_user
            .clone()
            .filter(|previous| by_the_shop && *previous != user)?;
        return Some(IdentityClaim::Alias { user, previous });
    }
    let anonymous = event.anonymous.clone()?;
    if *event.name == *IDENTITY_UNLINKED {
        return by_the_shop.then_some(IdentityClaim::Unlink { anonymous, user });
    }
    let proof = match event.source {
        Source::Server | Source::Import => Proof::ServerKey,
        Source::Public => Proof::UserToken,
        // A decision is served to identities that are linked already, or not at all.
        Source::Internal => return None,
    };
    Some(IdentityClaim::Link {
        anonymous,
        user,
        proof,
    })
}

/// The items that a stored event touches, charges left out: the product it is about, or those of an order.
pub fn items_touched(event: &str, body: &str) -> Vec<Arc<str>> {
    let properties = member(&mut Reader::new(body), "properties");
    let read =
        KnownEvent::from_name(event).and_then(|known| Some((known, Commerce::read(known, properties).ok()?)));
    let products = match &read {
        Some((KnownEvent::OrderCompleted, commerce)) => commerce.products.as_slice(),
        Some((
            KnownEvent::ProductViewed
            | KnownEvent::ProductClicked
            | KnownEvent::ProductAdded
            | KnownEvent::ProductAddedToWishlist
            | KnownEvent::WishlistProductAddedToCart,
            commerce,
        )) => std::slice::from_ref(&commerce.product),
        _ => &[],
    };
    let items = products.iter().filter(|product| !product.is_charge());
    items.filter_map(Product::item).map(Arc::from).collect()
}

/// `context.device.type`, in lower case.
fn device_type(context: &str) -> Option<String> {
    let mut reader = Reader::new(context);
    let device = member(&mut reader, "device")?;
    let kind = member(&mut Reader::new(device), "type")?;
    match Reader::new(kind).value() {
        Ok(Value::Text(text)) if (1..=32).contains(&text.raw.len()) => Some(text.decode().to_lowercase()),
        _ => None,
    }
}

/// The text of one member of the object that `reader` stands before.
fn member<'a>(reader: &mut Reader<'a>, name: &str) -> Option<&'a str> {
    if reader.value() != Ok(Value::Object) {
        return None;
    }
    let mut first = true;
    while let Some(key) = reader.key(&mut first).ok()? {
        let value = reader.skip().ok()?;
        if key.raw == name {
            return Some(value);
        }
    }
    None
}
