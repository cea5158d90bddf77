//! `fold` and `merge`, field by field.

use super::bounded::BoundedMap;
use super::caps::Cap;
use super::decay::DecayedWeight;
use super::mark::Mark;
use super::{Affinity, Assigned, Contribution, Delta, ProfilePart, RecentItem, State, Totals};
use crate::domain::consent::{Choice, Consent, Stated};

/// Items remembered as recently seen: enough for a carousel and for a session-based recommender's input.
pub(super) const MAX_RECENT: usize = 24;

/// Currencies kept; beyond it the one with the fewest orders goes.
pub(super) const MAX_CURRENCIES: usize = 16;

/// Capped experiences kept; beyond it the one served longest ago starts to count from zero.
pub(super) const MAX_CAPS: usize = 64;

/// Experiments kept; beyond it the assignment made longest ago is forgotten.
pub(super) const MAX_ASSIGNMENTS: usize = 64;

impl ProfilePart {
    /// A part of which nothing is known but `consent`.
    pub fn remembering(consent: Consent) -> Self {
        ProfilePart {
            consent,
            ..ProfilePart::default()
        }
    }

    /// How often the part was reset; see [`ProfilePart::fold`].
    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub fn consent(&self) -> &Consent {
        &self.consent
    }

    /// Folds what one event does into the part. `generation` is the one the contribution belongs to: the part's
    /// own when the event was taken in. A contribution of an older generation counts for nothing but its consent;
    /// one that resets starts the generation after its own.
    pub fn fold(&mut self, contribution: &Contribution, generation: u32) {
        let mark = Mark::from(&contribution.stamp);
        for delta in &contribution.deltas {
            if let Delta::Consent {
                statement,
                received_at,
                import,
            } = delta
            {
                let stated = |choice: Option<Choice>| {
                    choice
                        .filter(|choice| !import || *choice == Choice::Denied)
                        .map(|choice| Stated {
                            received_at: *received_at,
                            choice,
                        })
                };
                self.consent.merge(&Consent {
                    analytics: stated(statement.analytics),
                    personalization: stated(statement.personalization),
                });
            }
        }
        self.advance(if contribution.resets {
            generation.saturating_add(1)
        } else {
            generation
        });
        if !contribution.resets && generation == self.generation {
            self.state.fold(mark, &contribution.deltas);
        }
    }

    /// Joins a part folded from other events. Of two generations only the higher one's state stays; consent
    /// outlives them all.
    pub fn merge(&mut self, other: &ProfilePart) {
        self.consent.merge(&other.consent);
        self.advance(other.generation);
        if other.generation == self.generation {
            self.state.merge(&other.state);
        }
    }

    /// Joins the part of *another identity* of the same person. Generations count per identity, so both states
    /// stay: a guest who first came after the person's reset has nothing to forget. Whoever resets a person resets
    /// the part of every identity.
    pub fn join(&mut self, other: &ProfilePart) {
        self.consent.merge(&other.consent);
        self.generation = self.generation.max(other.generation);
        self.state.merge(&other.state);
    }

    fn advance(&mut self, generation: u32) {
        if generation > self.generation {
            self.generation = generation;
            self.state = State::default();
        }
    }
}

impl State {
    fn fold(&mut self, mark: Mark, deltas: &[Delta]) {
        let time = mark.time;
        for (ordinal, delta) in deltas.iter().enumerate() {
            match delta {
                Delta::Seen => {
                    self.events = self.events.wrapping_add(1);
                    self.first_seen = earliest(self.first_seen, Some(time));
                    self.last_seen = self.last_seen.max(Some(time));
                }
                Delta::Weight {
                    affinity,
                    key,
                    weight,
                } => {
                    let weight = DecayedWeight::new(*weight, time, affinity.half_life_ms());
                    self.affinities[affinity.index()].join(
                        key,
                        weight,
                        affinity.bound(),
                        DecayedWeight::add,
                        DecayedWeight::rank,
                    );
                }
                Delta::RecentItem { item } => {
                    self.note_recent(RecentItem {
                        mark,
                        item: (&**item).into(),
                    });
                }
                Delta::Cart(op) => {
                    self.cart
                        .apply(mark, u16::try_from(ordinal).unwrap_or(u16::MAX), op);
                }
                Delta::CartCleared => self.cart.clear(mark),
                Delta::CheckoutStep(step) => self.checkout_step = self.checkout_step.max(Some((mark, *step))),
                Delta::Orders {
                    orders,
                    cancelled,
                    currency,
                    revenue_minor,
                } => {
                    let totals = Totals {
                        orders: *orders,
                        cancelled: *cancelled,
                        revenue_minor: *revenue_minor,
                        ..Totals::default()
                    };
                    self.totals
                        .join(currency, totals, MAX_CURRENCIES, Totals::add, Totals::rank);
                }
                Delta::Refunds {
                    refunds,
                    currency,
                    refunded_minor,
                } => {
                    let totals = Totals {
                        refunds: *refunds,
                        refunded_minor: *refunded_minor,
                        ..Totals::default()
                    };
                    self.totals
                        .join(currency, totals, MAX_CURRENCIES, Totals::add, Totals::rank);
                }
                Delta::OrderSeen => self.last_order = self.last_order.max(Some(time)),
                Delta::Served { experience, session } => {
                    let cap = Cap::once(time, session.as_deref());
                    self.caps.join(experience, cap, MAX_CAPS, Cap::merge, Cap::latest);
                }
                Delta::Assigned {
                    experiment,
                    variant,
                    is_guest,
                } => {
                    let assigned = Assigned {
                        is_guest: *is_guest,
                        mark,
                        variant: (&**variant).into(),
                    };
                    self.assignments
                        .join(experiment, assigned, MAX_ASSIGNMENTS, keep_least, |a| a.mark);
                }
                Delta::Consent { .. } => {}
            }
        }
    }

    fn merge(&mut self, other: &State) {
        self.events = self.events.wrapping_add(other.events);
        self.first_seen = earliest(self.first_seen, other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.last_order = self.last_order.max(other.last_order);
        self.checkout_step = self.checkout_step.max(other.checkout_step);
        self.totals
            .merge(&other.totals, MAX_CURRENCIES, Totals::add, Totals::rank);
        for affinity in Affinity::ALL {
            let theirs: &BoundedMap<DecayedWeight> = &other.affinities[affinity.index()];
            self.affinities[affinity.index()].merge(
                theirs,
                affinity.bound(),
                DecayedWeight::add,
                DecayedWeight::rank,
            );
        }
        for recent in &other.recent {
            self.note_recent(recent.clone());
        }
        self.cart.merge(&other.cart);
        self.caps.merge(&other.caps, MAX_CAPS, Cap::merge, Cap::latest);
        self.assignments
            .merge(&other.assignments, MAX_ASSIGNMENTS, keep_least, |a| a.mark);
    }

    fn note_recent(&mut self, seen: RecentItem) {
        if let Some(at) = self.recent.iter().position(|have| have.item == seen.item) {
            if self.recent[at] >= seen {
                return;
            }
            self.recent.remove(at);
        }
        let at = self.recent.partition_point(|have| *have > seen);
        if at < MAX_RECENT {
            self.recent.insert(at, seen);
            self.recent.truncate(MAX_RECENT);
        }
    }
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.orders = self.orders.wrapping_add(other.orders);
        self.cancelled = self.cancelled.wrapping_add(other.cancelled);
        self.revenue_minor = self.revenue_minor.wrapping_add(other.revenue_minor);
        self.refunds = self.refunds.wrapping_add(other.refunds);
        self.refunded_minor = self.refunded_minor.wrapping_add(other.refunded_minor);
    }

    fn rank(&self) -> (i64, i64) {
        (self.orders, self.revenue_minor)
    }
}

fn earliest<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn keep_least<T: Ord + Clone>(have: &mut T, other: &T) {
    if *other < *have {
        have.clone_from(other);
    }
}
