//! A stored profile, read in place: what a decision reads of it, out of its bytes.
//!
//! Why: a decision looks at a small part of a profile, and a decoded one is many times the work of that, and three times the memory.
//!
//! - Made once for a read: the head is parsed and the places of the sections are noted, nothing else. After that it is shared.
//! - Entries are decoded as they are asked for, texts borrowed and checked to be UTF-8. **A section ends at an entry that cannot be
//!   read**, as if there were no more: a decision never fails for a damaged profile. Whoever folds or merges decodes all of it
//!   ([`Snapshot::document`]) and is told.
//! - What asks for the same section often ([`Snapshot::weights`], [`Snapshot::purchases`]) takes it at once.

use bytes::Bytes;
use smallvec::SmallVec;

use super::cart::Change;
use super::cursor::{Cursor, InPlace};
use super::format::{
    self, ASSIGNMENTS, CAPS, CART, DocumentHead, Entries, Format, PartHead, RECENT, Sections,
};
use super::mark::Mark;
use super::{Affinity, AsOf, Cap, CapWindow, Cart, DecayedWeight, DecodeError, Document, Totals, Version};
use crate::domain::consent::{Choice, Consent};
use crate::domain::ids::{SubjectId, Timestamp};

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    bytes: Bytes,
    document: DocumentHead,
    part: PartHead,
    sections: Sections,
}

/// What was bought: counts over all currencies, amounts in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purchases {
    /// Orders that stand.
    pub orders: i64,
    pub cancelled_orders: i64,
    pub refunds: i64,
    /// Revenue of the orders that stand, before refunds, in minor units.
    pub revenue_minor: i64,
    /// Refunded so far, positive, in minor units.
    pub refunded_minor: i64,
    /// The mean value of an order; `None` without one.
    pub average_order_minor: Option<i64>,
}

/// The weights of one affinity, gathered for the scores of many keys.
#[derive(Debug, Clone)]
pub struct Weights<'a> {
    half_life_ms: i64,
    /// Sorted by key, as they are stored.
    weights: SmallVec<[(&'a str, DecayedWeight); 16]>,
}

impl Weights<'_> {
    /// The decayed weight of `key` at `now`, rounded to 1e-6; zero where nothing is known.
    pub fn score(&self, key: &str, now: Timestamp) -> f64 {
        let found = self.weights.binary_search_by(|(have, _)| (*have).cmp(key));
        let weight = found.ok().and_then(|at| self.weights.get(at));
        weight.map_or(0.0, |(_, weight)| weight.score_at(now, self.half_life_ms))
    }
}

impl Snapshot {
    /// Reads the head. A document of the former format is written anew in the current one.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are not a document of a known format, or have another length than they say.
    pub fn read(bytes: Bytes) -> Result<Snapshot, DecodeError> {
        let body = match format::split(&bytes)? {
            (Format::Current, body) => body,
            (Format::Former, body) => return Ok(Snapshot::of(&format::whole(body)?)),
        };
        let (document, part, sections) = format::read_heads(&bytes, body)?;
        Ok(Snapshot {
            bytes,
            document,
            part,
            sections,
        })
    }

    /// Encodes a document.
    pub fn of(document: &Document) -> Snapshot {
        let encoded = format::write(document);
        Snapshot {
            bytes: encoded.bytes.into(),
            document: encoded.document,
            part: encoded.part,
            sections: encoded.sections,
        }
    }

    /// All of it decoded, to be folded into.
    ///
    /// # Errors
    /// [`DecodeError`] where an entry cannot be read.
    pub fn document(&self) -> Result<Document, DecodeError> {
        Document::decode(&self.bytes)
    }

    /// The stored document, in the current format.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn version(&self) -> Version {
        self.document.version
    }

    pub fn as_of(&self) -> &AsOf {
        &self.document.as_of
    }

    /// For a guest, the user whose document its part belongs to.
    pub fn linked_user(&self) -> Option<&SubjectId> {
        self.document.linked_user.as_ref()
    }

    /// When the document was written, by the clock of whoever stored it; zero where it never was.
    pub fn stored_at(&self) -> Timestamp {
        self.document.stored_at
    }

    /// How often the part was reset; see [`super::ProfilePart::fold`].
    pub fn generation(&self) -> u32 {
        self.part.generation
    }

    /// Events of the shopper's own.
    pub fn events(&self) -> i64 {
        self.part.events
    }

    pub fn first_seen(&self) -> Option<Timestamp> {
        self.part.first_seen
    }

    pub fn last_seen(&self) -> Option<Timestamp> {
        self.part.last_seen
    }

    /// When the latest order was reported, whether or not it was cancelled since.
    pub fn last_order(&self) -> Option<Timestamp> {
        self.part.last_order
    }

    /// The checkout step reached, from 1; 0 outside a checkout.
    pub fn checkout_step(&self) -> u16 {
        self.part.checkout_step.map_or(0, |(_, step)| step)
    }

    pub fn consent(&self) -> &Consent {
        &self.part.consent
    }

    /// Whether personalization is allowed, where `default` holds for the unstated.
    pub fn personalization_allowed(&self, default: Choice) -> bool {
        self.part.consent.allows_personalization(default)
    }

    /// Whether analytics is allowed, where `default` holds for the unstated.
    pub fn analytics_allowed(&self, default: Choice) -> bool {
        self.part.consent.allows_analytics(default)
    }

    /// What was bought, the amounts in `currency`.
    pub fn purchases(&self, currency: &str) -> Purchases {
        let mut sum = Purchases::default();
        for (name, totals) in self.totals() {
            sum.orders = sum.orders.wrapping_add(totals.orders);
            sum.cancelled_orders = sum.cancelled_orders.wrapping_add(totals.cancelled);
            sum.refunds = sum.refunds.wrapping_add(totals.refunds);
            if name == currency {
                sum.revenue_minor = totals.revenue_minor;
                sum.refunded_minor = totals.refunded_minor;
                sum.average_order_minor = (totals.orders > 0).then(|| totals.revenue_minor / totals.orders);
            }
        }
        sum
    }

    /// The currency of most orders, else of most refunds (a history may begin after the orders); ties go to the
    /// alphabet.
    pub fn main_currency(&self) -> Option<&str> {
        let standing = self
            .totals()
            .filter(|(_, totals)| totals.orders > 0 || totals.refunds > 0);
        standing
            .min_by_key(|(_, totals)| std::cmp::Reverse((totals.orders, totals.refunds)))
            .map(|(currency, _)| currency)
    }

    /// The weights of one affinity.
    pub fn weights(&self, affinity: Affinity) -> Weights<'_> {
        Weights {
            half_life_ms: affinity.half_life_ms(),
            weights: self.entries(format::weights(affinity)).collect(),
        }
    }

    /// The decayed weight of one key at `now`; for several see [`Snapshot::weights`].
    pub fn score(&self, affinity: Affinity, key: &str, now: Timestamp) -> f64 {
        let weight: Option<DecayedWeight> = self.find(format::weights(affinity), key);
        weight.map_or(0.0, |weight| weight.score_at(now, affinity.half_life_ms()))
    }

    /// Keys with a positive score at `now`, greatest first, ties by key.
    pub fn top(&self, affinity: Affinity, now: Timestamp) -> Vec<(&str, f64)> {
        let half_life_ms = affinity.half_life_ms();
        let mut scores: Vec<(&str, f64)> = self
            .entries(format::weights(affinity))
            .map(|(key, weight): (&str, DecayedWeight)| (key, weight.score_at(now, half_life_ms)))
            .filter(|(_, score)| *score > 0.0)
            .collect();
        scores.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        scores
    }

    /// Distinct items, the one seen latest first.
    pub fn recent_items(&self) -> impl Iterator<Item = &str> {
        let recent = self.entries(RECENT);
        recent.map(|Recent(item)| item)
    }

    /// The open cart.
    pub fn cart(&self) -> Cart<'_> {
        let mut cursor = Cursor::new(self.sections.get(&self.bytes, CART));
        // In front of the operations is the greatest clear, which has taken away what it cleared.
        match cursor.option(Mark::skip) {
            Some(_) => Cart::of(Entries::<Change<'_>>::behind(cursor)),
            None => Cart::default(),
        }
    }

    /// How often an experience was served within `window`.
    pub fn cap_count(&self, experience: &str, window: CapWindow<'_>) -> u32 {
        let cap: Option<Cap> = self.find(CAPS, experience);
        cap.map_or(0, |cap| cap.count(window))
    }

    /// All assignments as `(experiment, variant)`, in alphabetical order.
    pub fn assignments(&self) -> impl Iterator<Item = (&str, &str)> {
        let assignments = self.entries(ASSIGNMENTS);
        assignments.map(|(experiment, Variant(variant))| (experiment, variant))
    }

    pub(super) fn totals(&self) -> Entries<'_, (&str, Totals)> {
        self.entries(format::TOTALS)
    }

    fn entries<'a, T: InPlace<'a>>(&'a self, section: usize) -> Entries<'a, T> {
        Entries::of(self.sections.get(&self.bytes, section))
    }

    /// The entry of `key`, in a section that is sorted by key.
    fn find<'a, T: InPlace<'a>>(&'a self, section: usize, key: &str) -> Option<T> {
        let mut entries: Entries<'a, (&'a str, T)> = self.entries(section);
        entries
            .find(|(have, _)| *have >= key)
            .filter(|(have, _)| *have == key)
            .map(|(_, value)| value)
    }
}

impl<'a> InPlace<'a> for Totals {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(Totals {
            orders: cursor.signed()?,
            cancelled: cursor.signed()?,
            revenue_minor: cursor.signed()?,
            refunds: cursor.signed()?,
            refunded_minor: cursor.signed()?,
        })
    }
}

/// The item of a [`RecentItem`](super::RecentItem).
struct Recent<'a>(&'a str);

impl<'a> InPlace<'a> for Recent<'a> {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Mark::skip(cursor)?;
        InPlace::read(cursor).map(Recent)
    }
}

/// The variant of an [`Assigned`](super::Assigned).
struct Variant<'a>(&'a str);

impl<'a> InPlace<'a> for Variant<'a> {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        // Whether it was a guest's.
        cursor.flag()?;
        Mark::skip(cursor)?;
        InPlace::read(cursor).map(Variant)
    }
}
