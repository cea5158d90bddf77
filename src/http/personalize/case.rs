//! One request's facts, gathered, and what is made of them: the decision's input, the frame of the answer, the record.

use smallvec::SmallVec;
use uuid::Uuid;

use crate::domain::consent::Choice;
use crate::domain::decision::{self, Decision, Facts, ProfileState};
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::profile::{Cart, CartLine};
use crate::domain::recommend::Population;
use crate::domain::ruleset::Ruleset;
use crate::domain::transform::{AssignmentMade, DecisionRecord, DecisionSubject, PlacementServed};
use crate::http::answer::{Degraded, Frame};
use crate::http::ask::Ask;
use crate::ingest::Receipt;
use crate::profiles::{Read, Viewer};
use crate::recorder::Permit;

/// Who a request is about, as pseudonyms, as far as it is proven.
pub(super) struct Shopper {
    pub(super) user: Option<SubjectId>,
    pub(super) anonymous: Option<SubjectId>,
    pub(super) session: Option<String>,
    pub(super) follows_link: bool,
}

impl Shopper {
    pub(super) fn has_id(&self) -> bool {
        self.user.is_some() || self.anonymous.is_some()
    }

    pub(super) fn viewer(&self) -> Viewer<'_> {
        Viewer {
            user: self.user.as_ref(),
            anonymous: self.anonymous.as_ref(),
            follows_link: self.follows_link,
        }
    }

    fn subject(&self) -> DecisionSubject<'_> {
        DecisionSubject {
            user: self.user.as_ref(),
            anonymous: self.anonymous.as_ref(),
            session: self.session.as_deref(),
        }
    }
}

/// All facts of one request.
pub(super) struct Case<'a, 'q> {
    pub(super) shop: &'a Shop,
    pub(super) ask: &'a Ask<'q>,
    pub(super) shopper: Shopper,
    pub(super) read: Read,
    pub(super) now: Timestamp,
    pub(super) overloaded: bool,
    pub(super) receipts: Option<&'a [Receipt]>,
}

impl<'a, 'q> Case<'a, 'q> {
    /// Before anything is read.
    pub(super) fn new(shop: &'a Shop, ask: &'a Ask<'q>, shopper: Shopper, now: Timestamp) -> Self {
        Case {
            shop,
            ask,
            shopper,
            read: Read::NOBODY,
            now,
            overloaded: false,
            receipts: None,
        }
    }

    /// The request's cart, in minor units of the request's currency, else of the ruleset's.
    pub(super) fn cart<'c>(&'c self, ruleset: &Ruleset) -> Option<Cart<'c>> {
        let lines = self.ask.cart.as_ref()?;
        let currency = self.ask.currency.as_deref().unwrap_or(ruleset.currency());
        let mut cart = Cart {
            lines: Vec::with_capacity(lines.len()),
            ..Cart::default()
        };
        for line in lines {
            let quantity = i64::from(line.quantity);
            let amount = line
                .price
                .and_then(|price| price.times_to_minor(quantity, currency));
            cart.total_minor = cart.total_minor.saturating_add(amount.unwrap_or(0));
            cart.count = cart.count.saturating_add(quantity);
            let price_minor = line.price.and_then(|price| price.to_minor(currency));
            cart.lines.push(CartLine {
                item: &line.sku,
                quantity,
                price_minor,
            });
        }
        Some(cart)
    }

    pub(super) fn request<'c>(
        &'c self,
        cart: Option<&'c Cart<'c>>,
        placements: Option<&'c [&'c str]>,
        candidates: &'c [(&'c str, &'c [&'c str])],
    ) -> decision::Request<'c> {
        decision::Request {
            user: self.shopper.user.as_ref(),
            anonymous: self.shopper.anonymous.as_ref(),
            session: self.shopper.session.as_deref(),
            placements,
            cart,
            currency: self.ask.currency.as_deref(),
            country: self.ask.country.as_deref(),
            locale: self.ask.locale.as_deref(),
            device: self.ask.device.as_deref(),
            candidates,
            forced: &[],
            consent: self.ask.consent,
        }
    }

    /// Half a profile would pass for a newcomer's, so it counts as none.
    pub(super) fn profile(&self) -> ProfileState<'_> {
        match &self.read.profile {
            _ if self.read.incomplete => ProfileState::Unavailable,
            Some(profile) => ProfileState::Known(profile),
            None => ProfileState::Absent,
        }
    }

    /// Whether nothing that points at the shopper may be kept of this decision: analytics is denied by the request or,
    /// where that says nothing, as the profile remembers.
    pub(super) fn is_anonymous(&self) -> bool {
        let remembered = || {
            let profile = self.read.profile.as_ref();
            profile.is_some_and(|profile| !profile.analytics_allowed(Choice::Granted))
        };
        match self.ask.consent.analytics {
            Some(choice) => choice == Choice::Denied,
            None => remembered(),
        }
    }

    pub(super) fn degraded(&self) -> Degraded {
        let mut degraded = Degraded::default();
        degraded.note(Degraded::HOT, self.read.failed.hot);
        degraded.note(Degraded::WAREHOUSE, self.read.failed.warehouse);
        degraded.note(Degraded::PROFILE, self.read.incomplete);
        degraded.note(Degraded::OVERLOAD, self.overloaded);
        degraded
    }

    pub(super) fn frame(&self, decision_id: Uuid, degraded: Degraded) -> Frame<'_> {
        let stored_at = self.read.stored_at();
        let age_ms = stored_at.map(|at| u64::try_from(self.now.0.saturating_sub(at.0)).unwrap_or(0));
        let known = self.read.profile.is_some() && !self.read.incomplete;
        Frame {
            decision_id,
            known,
            source: self.read.source,
            age_ms,
            degraded,
            receipts: self.receipts,
        }
    }

    /// Records what was decided.
    #[allow(clippy::too_many_arguments, reason = "everything that a record holds")]
    pub(super) fn record<'d>(
        &self,
        permit: Permit<'_>,
        decision: &Decision<'d>,
        request: &decision::Request<'d>,
        terms: &decision::Terms,
        id: Uuid,
        ruleset: &Ruleset,
        population: &'d Population,
    ) {
        let placements = decision.placements.iter().map(|placement| PlacementServed {
            placement: placement.name,
            experience: placement.experience,
            variant: placement.variant,
            reason: placement.reason.as_str(),
        });
        let is_anonymous = self.is_anonymous();
        let profile = match is_anonymous {
            true => None,
            false => self.read.encoded(),
        };
        let facts = Facts::new(
            request,
            !is_anonymous && !self.read.incomplete,
            terms,
            self.read.incomplete,
            profile,
            decision.consulted.excerpt(population),
        );
        let record = DecisionRecord {
            decided_at: self.now,
            ruleset_version: ruleset.version(),
            placements: placements.collect(),
            assigned: made(&decision.assigned),
            exposures: made(&decision.exposures),
            capped: decision.served.iter().copied().collect(),
            withheld: Vec::new(),
        };
        let subject = match is_anonymous {
            true => DecisionSubject::default(),
            false => self.shopper.subject(),
        };
        let mut id_text = Uuid::encode_buffer();
        let id = id.hyphenated().encode_lower(&mut id_text);
        let head = record.head(id, self.shop, subject, self.ask.consent, self.now);
        let touches_profile = !record.assigned.is_empty() || !record.capped.is_empty();
        permit.record(&head, touches_profile, facts.size_hint(), |out| {
            record.write_body(Some(&facts), out);
        });
    }
}

fn made<'d>(list: &[(&'d str, &'d str)]) -> SmallVec<[AssignmentMade<&'d str>; 2]> {
    let made = list.iter().map(|(experiment, variant)| AssignmentMade {
        experiment: *experiment,
        variant: *variant,
    });
    made.collect()
}
