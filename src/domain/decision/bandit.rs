//! Thompson sampling (Thompson 1933; Chapelle and Li: *An Empirical Evaluation of Thompson Sampling*, NeurIPS 2011): each
//! variant's rate is drawn from what is believed of it, and the greatest draw wins.
//!
//! - The draws are a function of the experiment, the subject and the posteriors, so a decision can be made again.
//! - Gamma variates by Marsaglia and Tsang (*A Simple Method for Generating Gamma Variables*, 2000), made of IEEE operations
//!   and our own logarithm, as in [`super::bucketing`].
//! - [`Bandit::explore`] of the shoppers are spread evenly, so that a variant that began badly gets another chance and every
//!   variant keeps being measured.

use super::bucketing::{hash, log2};
use crate::domain::experiment::{Beta, Posteriors};
use crate::domain::ruleset::{Bandit, Variant};

/// The variant of `subject`, as an index; `None` where no variant has a weight.
pub(super) fn choose(
    bandit: Bandit,
    experiment: &str,
    subject: &str,
    variants: &[Variant],
    posteriors: &Posteriors,
) -> Option<usize> {
    let open = || {
        variants
            .iter()
            .enumerate()
            .filter(|(_, variant)| variant.weight > 0.0)
    };
    let seed =
        u64::from(hash(experiment, subject, "#bandit")) << 32 | u64::from(hash(experiment, subject, "#draw"));
    let mut random = SplitMix64(seed);
    if random.unit() < bandit.explore {
        let count = open().count();
        let at = (random.unit() * count as f64) as usize;
        return open().nth(at).map(|(index, _)| index);
    }
    let mut best: Option<(f64, usize)> = None;
    for (index, variant) in open() {
        let belief = posteriors.of(experiment, variant.id.as_deref().unwrap_or_default());
        let draw = random.beta(belief);
        if best.is_none_or(|(most, _)| draw > most) {
            best = Some((draw, index));
        }
    }
    best.map(|(_, index)| index)
}

/// Steele, Lea and Flood: *Fast Splittable Pseudorandom Number Generators*, 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Marsaglia's polar method.
    fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }

    /// Of a shape of 1 or more, which the uniform prior sees to.
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape.max(1.0) - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            if ln(self.unit()) < 0.5 * x * x + d - d * v + d * ln(v) {
                return d * v;
            }
        }
    }

    fn beta(&mut self, belief: Beta) -> f64 {
        let (x, y) = (self.gamma(belief.alpha), self.gamma(belief.beta));
        x / (x + y)
    }
}

fn ln(number: f64) -> f64 {
    log2(number.max(f64::MIN_POSITIVE)) * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_mean_and_the_spread_of_the_distribution() {
        for (alpha, beta) in [(1.0, 1.0), (3.0, 9.0), (120.0, 880.0), (1.0, 40.5)] {
            let mut random = SplitMix64(7);
            let draws: Vec<f64> = (0..40_000).map(|_| random.beta(Beta { alpha, beta })).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            let expected = alpha / (alpha + beta);
            let spread = expected * (1.0 - expected) / (alpha + beta + 1.0);
            assert!(
                (mean - expected).abs() < 5.0 * (spread / 40_000.0).sqrt(),
                "{alpha} {beta}: {mean}"
            );
            assert!(
                (variance / spread - 1.0).abs() < 0.1,
                "{alpha} {beta}: {variance} for {spread}"
            );
        }
    }
}
