//! Exponentially decayed weights that can be summed in any order.
//!
//! A weight `w` seen at time `t` is worth `w · 2^((t − now) / H)` at `now`, where `H` is the half-life. It is kept
//! relative to whole half-lives: `t = e·H + r` gives the mantissa `w · 2^(r/H)` and the integer exponent `e`.
//! Sums bring the smaller exponent up to the larger one, which multiplies by a power of two and so rounds nothing
//! (short of underflow, where the addend no longer counts). Floats relative to a fixed epoch would overflow after
//! a thousand half-lives, and floats relative to "now" would depend on the order of folding.
//!
//! What remains is the rounding of the additions themselves: sums in different orders agree within 1e-9 of the
//! magnitudes summed, and scores are rounded to 1e-6 before anyone compares them.

use serde::{Deserialize, Serialize};

use super::Affinity;
use super::cursor::{Cursor, InPlace};
use crate::domain::ids::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// One weight is capped at this magnitude, so that no sum of them can overflow.
const MAX_WEIGHT: f64 = 1e9;

impl Affinity {
    /// Every affinity, in the order in which a part stores them.
    pub const ALL: [Affinity; 5] = [
        Affinity::Item,
        Affinity::Category,
        Affinity::PaymentMethod,
        Affinity::ShippingMethod,
        Affinity::Device,
    ];

    pub(super) const fn index(self) -> usize {
        match self {
            Affinity::Item => 0,
            Affinity::Category => 1,
            Affinity::PaymentMethod => 2,
            Affinity::ShippingMethod => 3,
            Affinity::Device => 4,
        }
    }

    /// After how long a weight counts half. Taste in items moves with the season; how someone pays and where
    /// parcels go changes over years; devices lie between.
    pub fn half_life_ms(self) -> i64 {
        match self {
            Affinity::Item => 30 * DAY_MS,
            Affinity::Category => 60 * DAY_MS,
            Affinity::PaymentMethod | Affinity::ShippingMethod => 180 * DAY_MS,
            Affinity::Device => 90 * DAY_MS,
        }
    }

    /// How many keys a part keeps. Beyond it the key of least weight goes, and with it at most that weight: a
    /// key that comes back later starts from zero.
    pub fn bound(self) -> usize {
        match self {
            Affinity::Item => 64,
            Affinity::Category => 32,
            Affinity::PaymentMethod | Affinity::ShippingMethod => 16,
            Affinity::Device => 8,
        }
    }
}

/// A sum of decayed weights: `mantissa · 2^exponent`, in half-lives since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DecayedWeight {
    mantissa: f64,
    exponent: i64,
}

impl DecayedWeight {
    /// `weight` as seen at `time`. Not a number counts as nothing; the magnitude is capped.
    pub fn new(weight: f64, time: Timestamp, half_life_ms: i64) -> Self {
        if weight.is_nan() || weight == 0.0 {
            return DecayedWeight::default();
        }
        let half_life_ms = half_life_ms.max(1);
        let part = time.0.rem_euclid(half_life_ms) as f64 / half_life_ms as f64;
        DecayedWeight {
            mantissa: weight.clamp(-MAX_WEIGHT, MAX_WEIGHT) * part.exp2(),
            exponent: time.0.div_euclid(half_life_ms),
        }
    }

    /// Adds `other`, exactly but for the rounding of one addition.
    pub fn add(&mut self, other: &DecayedWeight) {
        if other.mantissa == 0.0 {
            return;
        }
        if self.mantissa == 0.0 {
            *self = *other;
            return;
        }
        let (mut high, low) = if self.exponent >= other.exponent {
            (*self, other)
        } else {
            (*other, &*self)
        };
        high.mantissa += low.mantissa * two_to_minus(high.exponent.saturating_sub(low.exponent));
        *self = high;
    }

    /// The value at `now`, unrounded.
    pub fn value_at(&self, now: Timestamp, half_life_ms: i64) -> f64 {
        let half_life_ms = half_life_ms.max(1);
        let whole = self.exponent.saturating_sub(now.0.div_euclid(half_life_ms));
        let part = now.0.rem_euclid(half_life_ms) as f64 / half_life_ms as f64;
        // A weight from the future (a clock of ours that went back) may grow, but not without end.
        let value = self.mantissa * (whole as f64 - part).min(64.0).exp2();
        if value.is_finite() { value } else { 0.0 }
    }

    /// The value at `now`, rounded to 1e-6 so that every order of folding compares alike.
    pub fn score_at(&self, now: Timestamp, half_life_ms: i64) -> f64 {
        let rounded = (self.value_at(now, half_life_ms) * 1e6).round() / 1e6;
        // No negative zero.
        rounded + 0.0
    }

    /// How weights of one affinity compare at any time, for eviction: all decay alike. What is below zero (the
    /// retraction of a weight that was evicted) goes first, then nothing, then the least.
    pub(super) fn rank(&self) -> impl PartialOrd + use<> {
        let (shift, mantissa) = split(self.mantissa.abs());
        let exponent = self.exponent.saturating_add(shift);
        if mantissa == 0.0 {
            (0, 0, 0.0)
        } else if self.mantissa > 0.0 {
            (1, exponent, mantissa)
        } else {
            (-1, exponent.saturating_neg(), -mantissa)
        }
    }
}

impl<'a> InPlace<'a> for DecayedWeight {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(DecayedWeight {
            mantissa: cursor.float()?,
            exponent: cursor.signed()?,
        })
    }
}

/// `2^-n` for `n >= 0`; zero where it no longer matters.
fn two_to_minus(n: i64) -> f64 {
    match u64::try_from(n) {
        Ok(n) if n <= 1000 => f64::from_bits((1023 - n) << 52),
        _ => 0.0,
    }
}

/// `x = m · 2^s` with `1 <= m < 2`, for finite positive normal `x`; others are nothing.
fn split(x: f64) -> (i64, f64) {
    if !x.is_normal() {
        return (0, 0.0);
    }
    let bits = x.to_bits();
    let shift = (bits >> 52) as i64 - 1023;
    (shift, f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52)))
}
