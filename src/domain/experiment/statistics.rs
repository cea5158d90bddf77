//! What samples say of each other: differences with anytime-valid confidence, and the sample-ratio test.
//!
//! - **Differences** of means have a confidence *sequence*, valid at every moment at once: one may look every day, stop when
//!   it excludes zero, and still be wrong in no more than the stated share of experiments. It is the asymptotic one of
//!   Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (*Time-uniform central limit theory and asymptotic confidence
//!   sequences*, Annals of Statistics 2024, theorem 2.2), for the difference of two arms as in Maharaj et al.
//!   (*Anytime-Valid Confidence Sequences in an Enterprise A/B Testing Platform*, WWW 2023).
//! - **Sample ratio**: Pearson's chi-squared test of the subjects per variant against their shares (Fabijan et al.:
//!   *Diagnosing Sample Ratio Mismatch in Online Controlled Experiments*, KDD 2019).

/// How sure an interval is, over all variants of one experiment.
pub const LEVEL: f64 = 0.95;

/// At how many subjects the intervals are narrowest, compared with those of a test at a fixed size.
const NARROWEST_AT: f64 = 10_000.0;

/// Fewer subjects than this in an arm are no basis for a limit theorem.
const LEAST: f64 = 100.0;

/// One number of each of many subjects.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    pub count: f64,
    pub sum: f64,
    pub squares: f64,
}

impl Sample {
    /// Of a number that is 0 or 1.
    pub fn of_share(count: u64, hits: u64) -> Sample {
        Sample {
            count: count as f64,
            sum: hits as f64,
            squares: hits as f64,
        }
    }

    pub fn mean(self) -> f64 {
        if self.count > 0.0 {
            self.sum / self.count
        } else {
            0.0
        }
    }

    /// Without bias.
    fn variance(self) -> f64 {
        let mean = self.mean();
        let around = self.squares - self.count * mean * mean;
        (around / (self.count - 1.0)).max(0.0)
    }
}

/// How much greater one mean is than another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    pub difference: f64,
    /// The interval that holds the true difference; `None` while there are too few subjects.
    pub interval: Option<(f64, f64)>,
}

impl Difference {
    /// Whether zero is ruled out.
    pub fn is_significant(self) -> bool {
        self.interval.is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}

/// `treatment` compared with `control`, where `comparisons` are made of one experiment (Bonferroni).
pub fn difference(treatment: Sample, control: Sample, comparisons: usize) -> Difference {
    let difference = treatment.mean() - control.mean();
    if treatment.count < LEAST || control.count < LEAST {
        return Difference {
            difference,
            interval: None,
        };
    }
    let alpha = (1.0 - LEVEL) / comparisons.max(1) as f64;
    let rho_squared = (-2.0 * alpha.ln() + (-2.0 * alpha.ln() + 1.0).ln()) / NARROWEST_AT;
    let subjects = (treatment.count + control.count) * rho_squared;
    let factor = 2.0 * (subjects + 1.0) / subjects * ((subjects + 1.0).sqrt() / alpha).ln();
    let variance = treatment.variance() / treatment.count + control.variance() / control.count;
    let margin = (variance * factor).sqrt();
    Difference {
        difference,
        // Nobody having done anything yet is no certainty.
        interval: (margin > 0.0).then_some((difference - margin, difference + margin)),
    }
}

/// How likely counts this far from their shares are by chance; `None` where there is nothing to compare.
pub fn sample_ratio(counts: &[(u64, f64)]) -> Option<f64> {
    let total: f64 = counts.iter().map(|(count, _)| *count as f64).sum();
    let shares: f64 = counts.iter().map(|(_, share)| share).sum();
    let open: Vec<_> = counts.iter().filter(|(_, share)| *share > 0.0).collect();
    if open.len() < 2 || total <= 0.0 {
        return None;
    }
    let chi_squared = open.iter().map(|(count, share)| {
        let expected = total * share / shares;
        (*count as f64 - expected).powi(2) / expected
    });
    Some(upper_tail(chi_squared.sum(), open.len() - 1))
}

/// The chance of a chi-squared variable of so many degrees of freedom to be above `value`: the closed forms for whole and half
/// shapes of the incomplete gamma function (Abramowitz and Stegun, 26.4.4 and 26.4.5).
fn upper_tail(value: f64, degrees: usize) -> f64 {
    let half = value / 2.0;
    let (mut tail, mut term, first) = if degrees.is_multiple_of(2) {
        ((-half).exp(), (-half).exp(), 1.0)
    } else {
        let root = half.sqrt();
        (
            complementary_error(root),
            2.0 * root * (-half).exp() / std::f64::consts::PI.sqrt(),
            1.5,
        )
    };
    let more = (degrees - 1) / 2;
    for step in 0..more {
        if degrees.is_multiple_of(2) {
            term *= half / (first + step as f64);
            tail += term;
        } else {
            tail += term;
            term *= half / (first + step as f64);
        }
    }
    tail.clamp(0.0, 1.0)
}

/// `erfc` of a number that is not negative: the power series below 2.5, the continued fraction above it.
fn complementary_error(x: f64) -> f64 {
    let root = std::f64::consts::PI.sqrt();
    if x < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-17 * sum.abs() && n < 200.0 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - 2.0 / root * sum;
    }
    let mut fraction = 0.0;
    for n in (1..60).rev() {
        fraction = f64::from(n) / 2.0 / (x + fraction);
    }
    (-x * x).exp() / root / (x + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_the_tables() {
        for (value, degrees, expected) in [
            (3.841_458_8, 1, 0.05),
            (10.827_566, 1, 0.001),
            (30.0, 1, 4.320_463e-8),
            (5.991_464_5, 2, 0.05),
            (7.814_727_9, 3, 0.05),
            (18.466_827, 4, 0.001),
            (11.070_498, 5, 0.05),
            (18.307_038, 10, 0.05),
            (24.995_79, 15, 0.05),
        ] {
            let tail = upper_tail(value, degrees);
            assert!((tail / expected - 1.0).abs() < 1e-5, "{value} {degrees}: {tail}");
        }
    }

    #[test]
    fn a_ratio_is_judged_by_its_shares() {
        assert_eq!(sample_ratio(&[(10, 1.0)]), None);
        assert_eq!(sample_ratio(&[(0, 1.0), (0, 1.0)]), None);
        assert!(sample_ratio(&[(5_010, 0.5), (4_990, 0.5)]).is_some_and(|p| p > 0.5));
        assert!(sample_ratio(&[(5_300, 0.5), (4_700, 0.5)]).is_some_and(|p| p < 1e-6));
        assert!(sample_ratio(&[(9_010, 90.0), (990, 10.0)]).is_some_and(|p| p > 0.5));
        // A closed variant keeps those it has.
        assert!(sample_ratio(&[(5_000, 1.0), (5_010, 1.0), (9, 0.0)]).is_some_and(|p| p > 0.5));
    }

    /// A generator of its own, so that the simulation does not depend on what it tests.
    struct Lcg(u64);

    impl Lcg {
        fn unit(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Looks every 250 subjects an arm, up to 5,000; whether any look rules zero out.
    fn is_ever_significant(random: &mut Lcg, control: f64, treatment: f64) -> (bool, f64) {
        let (mut hits, mut last) = ([0u64; 2], 0.0);
        let mut ever = false;
        for n in 1..=5_000u64 {
            hits[0] += u64::from(random.unit() < control);
            hits[1] += u64::from(random.unit() < treatment);
            if n % 250 == 0 {
                let found = difference(Sample::of_share(n, hits[1]), Sample::of_share(n, hits[0]), 1);
                ever |= found.is_significant();
                last = found.difference;
            }
        }
        (ever, last)
    }

    #[test]
    fn an_a_a_test_that_is_looked_at_all_the_time_is_wrong_no_more_often_than_stated() {
        let mut random = Lcg(7);
        let wrong = (0..1_000)
            .filter(|_| is_ever_significant(&mut random, 0.2, 0.2).0)
            .count();
        // 50 are allowed; a fixed-size test looked at as often would be wrong about 250 times.
        assert!(wrong <= 50, "{wrong} of 1,000");
        let mut random = Lcg(8);
        let naive = (0..200)
            .filter(|_| {
                let mut hits = [0f64; 2];
                (1..=5_000).any(|n| {
                    hits[0] += f64::from(random.unit() < 0.2);
                    hits[1] += f64::from(random.unit() < 0.2);
                    let n = f64::from(n);
                    let (p, q) = (hits[0] / n, hits[1] / n);
                    n % 250.0 == 0.0 && (p - q).abs() > 1.96 * ((p * (1.0 - p) + q * (1.0 - q)) / n).sqrt()
                })
            })
            .count();
        assert!(naive > 30, "the simulation can tell: {naive} of 200");
    }

    #[test]
    fn a_lift_of_a_tenth_is_found() {
        let mut random = Lcg(9);
        // 10 % of a rate of 20 %, with enough subjects for a test of fixed size to find it 9 times in 10.
        let found = (0..100)
            .filter(|_| {
                let mut hits = [0u64; 2];
                (1..=16_000u64).any(|n| {
                    hits[0] += u64::from(random.unit() < 0.20);
                    hits[1] += u64::from(random.unit() < 0.22);
                    n % 1_000 == 0
                        && difference(Sample::of_share(n, hits[1]), Sample::of_share(n, hits[0]), 1)
                            .interval
                            .is_some_and(|(low, _)| low > 0.0)
                })
            })
            .count();
        assert!(found >= 90, "{found} of 100");
    }

    #[test]
    fn a_lost_exposure_fault_trips_the_ratio_check() {
        let mut random = Lcg(10);
        let tripped = (0..100)
            .filter(|_| {
                let mut counts = [0u64; 2];
                for _ in 0..20_000 {
                    let variant = usize::from(random.unit() < 0.5);
                    // One variant's page is slower, and every tenth of its exposures is lost.
                    if variant == 0 || random.unit() < 0.9 {
                        counts[variant] += 1;
                    }
                }
                sample_ratio(&[(counts[0], 0.5), (counts[1], 0.5)]).is_some_and(|p| p < 0.001)
            })
            .count();
        assert_eq!(tripped, 100);
    }
}
