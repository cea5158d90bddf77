//! What a decision reads from a part.

use super::{Affinity, CapWindow, Cart, ProfilePart};
use crate::domain::consent::{Choice, Consent};
use crate::domain::ids::Timestamp;

impl ProfilePart {
    /// How often the part was reset; see [`ProfilePart::fold`].
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Events of the shopper's own.
    pub fn events(&self) -> i64 {
        self.state.events
    }

    pub fn first_seen(&self) -> Option<Timestamp> {
        self.state.first_seen
    }

    pub fn last_seen(&self) -> Option<Timestamp> {
        self.state.last_seen
    }

    /// When the latest order was reported, whether or not it was cancelled since.
    pub fn last_order(&self) -> Option<Timestamp> {
        self.state.last_order
    }

    /// Orders that stand, in all currencies.
    pub fn orders(&self) -> i64 {
        self.sum(|totals| totals.orders)
    }

    pub fn cancelled_orders(&self) -> i64 {
        self.sum(|totals| totals.cancelled)
    }

    pub fn refunds(&self) -> i64 {
        self.sum(|totals| totals.refunds)
    }

    fn sum(&self, field: impl Fn(&super::Totals) -> i64) -> i64 {
        self.state
            .totals
            .iter()
            .fold(0i64, |sum, (_, totals)| sum.wrapping_add(field(totals)))
    }

    /// Revenue of the orders that stand, before refunds, in minor units of `currency`.
    pub fn revenue_minor(&self, currency: &str) -> i64 {
        self.state
            .totals
            .get(currency)
            .map_or(0, |totals| totals.revenue_minor)
    }

    /// Refunded so far, positive, in minor units of `currency`.
    pub fn refunded_minor(&self, currency: &str) -> i64 {
        self.state
            .totals
            .get(currency)
            .map_or(0, |totals| totals.refunded_minor)
    }

    /// The mean value of an order in `currency`; `None` without one.
    pub fn average_order_minor(&self, currency: &str) -> Option<i64> {
        let totals = self.state.totals.get(currency)?;
        (totals.orders > 0).then(|| totals.revenue_minor / totals.orders)
    }

    /// The currency of most orders, else of most refunds (a history may begin after the orders); ties go to the
    /// alphabet.
    pub fn main_currency(&self) -> Option<&str> {
        let standing = self
            .state
            .totals
            .iter()
            .filter(|(_, totals)| totals.orders > 0 || totals.refunds > 0);
        standing
            .min_by_key(|(_, totals)| std::cmp::Reverse((totals.orders, totals.refunds)))
            .map(|(currency, _)| currency)
    }

    /// The currencies with an order or a refund, in alphabetical order.
    pub fn currencies(&self) -> impl Iterator<Item = &str> {
        self.state.totals.iter().map(|(currency, _)| currency)
    }

    /// The decayed weight of `key` at `now`, rounded to 1e-6; zero where nothing is known.
    pub fn score(&self, affinity: Affinity, key: &str, now: Timestamp) -> f64 {
        let weight = self.state.affinities[affinity.index()].get(key);
        weight.map_or(0.0, |weight| weight.score_at(now, affinity.half_life_ms()))
    }

    /// Keys with a positive score at `now`, greatest first, ties by key.
    pub fn top(&self, affinity: Affinity, now: Timestamp) -> Vec<(&str, f64)> {
        let half_life_ms = affinity.half_life_ms();
        let mut scores: Vec<(&str, f64)> = self.state.affinities[affinity.index()]
            .iter()
            .map(|(key, weight)| (key, weight.score_at(now, half_life_ms)))
            .filter(|(_, score)| *score > 0.0)
            .collect();
        scores.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        scores
    }

    /// Distinct items, the one seen latest first.
    pub fn recent_items(&self) -> impl Iterator<Item = &str> {
        self.state.recent.iter().map(|recent| &*recent.item)
    }

    /// The open cart.
    pub fn cart(&self) -> Cart<'_> {
        self.state.cart.evaluate()
    }

    /// The checkout step reached, from 1; 0 outside a checkout.
    pub fn checkout_step(&self) -> u16 {
        self.state.checkout_step.map_or(0, |(_, step)| step)
    }

    /// How often an experience was served within `window`.
    pub fn cap_count(&self, experience: &str, window: CapWindow<'_>) -> u32 {
        self.state.caps.get(experience).map_or(0, |cap| cap.count(window))
    }

    /// The variant that the shopper was first assigned in `experiment`.
    pub fn assignment(&self, experiment: &str) -> Option<&str> {
        self.state
            .assignments
            .get(experiment)
            .map(|assigned| &*assigned.variant)
    }

    /// All assignments as `(experiment, variant)`, in alphabetical order.
    pub fn assignments(&self) -> impl Iterator<Item = (&str, &str)> {
        self.state
            .assignments
            .iter()
            .map(|(experiment, assigned)| (experiment, &*assigned.variant))
    }

    pub fn consent(&self) -> &Consent {
        &self.consent
    }

    /// Whether personalization is allowed, where `default` holds for the unstated.
    pub fn personalization_allowed(&self, default: Choice) -> bool {
        self.consent
            .personalization
            .map_or(default, |stated| stated.choice)
            == Choice::Granted
    }

    /// Whether analytics is allowed, where `default` holds for the unstated.
    pub fn analytics_allowed(&self, default: Choice) -> bool {
        self.consent.analytics.map_or(default, |stated| stated.choice) == Choice::Granted
    }
}
