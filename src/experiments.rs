//! What experiments have achieved: the outcomes in the warehouse, compared, and a word on whether they can be trusted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::experiment::{DayOutcome, Difference, LEVEL, Outcomes, Sample, difference, sample_ratio};
use crate::domain::ids::Shop;
use crate::domain::ruleset::{Experience, HELD_OUT, Ruleset};
use crate::rulesets::Rulesets;
use crate::warehouse::{OutcomeQuery, Warehouse, WarehouseError};

/// Below this chance the counts are taken to contradict the shares, as is usual for a check made on every experiment.
const MISMATCH: f64 = 0.001;

/// Results of one experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Results {
    pub experiment: String,
    pub goal: GoalAnswer,
    /// The currency that revenue counts in.
    pub currency: String,
    /// What the others are compared with.
    pub control: String,
    pub variants: Vec<VariantResults>,
    /// Customers who met more than one variant, left out of all of them.
    pub crossovers: u64,
    /// Decisions in which the experiment could not take part, since the exposure could not have been recorded.
    pub lost_exposures: u64,
    pub sample_ratio: SampleRatio,
    /// How sure the intervals are, over all variants, at every moment: one may look at any time.
    pub confidence_level: f64,
    /// `winner`, `no_winner_yet` or `sample_ratio_mismatch`: then something loses or adds subjects, and no figure can be trusted.
    pub verdict: Verdict,
    pub winner: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Goal)]
pub struct GoalAnswer {
    pub event: String,
    pub within_days: f64,
}

/// What the customers of one variant did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VariantResults {
    /// `#holdout` are those kept from it, `#served` is the only variant where it has no name.
    pub variant: String,
    /// Its share of the subjects as the ruleset has it, 0 to 1; null in a bandit, which changes it.
    pub share: Option<f64>,
    /// Decisions that showed it.
    pub exposures: u64,
    pub subjects: u64,
    pub conversions: u64,
    pub conversion_rate: f64,
    /// In major units, of orders that stand.
    pub revenue: f64,
    pub revenue_per_subject: f64,
    /// Null for the control.
    pub conversion_rate_versus_control: Option<Compared>,
    /// Null for the control.
    pub revenue_per_subject_versus_control: Option<Compared>,
}

/// A difference to the control, in units of what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Compared {
    pub difference: f64,
    /// The ends of the interval that holds the true difference; null while there are too few subjects.
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub significant: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SampleRatio {
    /// How likely counts this far from their shares are by chance; null where there is nothing to compare.
    pub p_value: Option<f64>,
    pub ok: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Winner,
    NoWinnerYet,
    SampleRatioMismatch,
}

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    #[error("the ruleset in force has no experiment `{0}`")]
    Unknown(String),
    #[error("no ruleset is in force yet")]
    NoRuleset,
    #[error("the warehouse: {0}")]
    Warehouse(#[from] WarehouseError),
}

/// See the module.
#[derive(Debug)]
pub struct Experiments {
    warehouse: Arc<dyn Warehouse>,
    rulesets: Arc<Rulesets>,
}

impl Experiments {
    pub fn new(warehouse: Arc<dyn Warehouse>, rulesets: Arc<Rulesets>) -> Self {
        Experiments { warehouse, rulesets }
    }

    /// The results of an experiment of the ruleset in force.
    ///
    /// # Errors
    /// [`ResultsError`].
    pub async fn results(&self, shop: &Shop, id: &str) -> Result<Results, ResultsError> {
        let ruleset = self.rulesets.current().ok_or(ResultsError::NoRuleset)?;
        let experience = ruleset.experiences().iter().find(|one| *one.id == *id);
        let experience = experience
            .filter(|one| one.is_experiment())
            .ok_or_else(|| ResultsError::Unknown(id.to_owned()))?;
        let query = OutcomeQuery {
            shop,
            experiment: id,
            goal: &experience.goal,
            currency: ruleset.currency(),
        };
        let outcomes = self.warehouse.outcomes(&query).await?;
        Ok(results(&ruleset, experience, &outcomes))
    }
}

/// Adds up the days and compares.
fn results(ruleset: &Ruleset, experience: &Experience, outcomes: &Outcomes) -> Results {
    let arms = arms(experience);
    let control = arms.first().map_or(HELD_OUT, |(label, _)| label);
    let totals = |label: &str| Totals::of(outcomes.variants.iter().filter(|day| *day.variant == *label));
    let base = totals(control);
    let major = |minor: f64| minor * ruleset.major_units(1);
    let comparisons = arms.len().saturating_sub(1);
    let mut variants = Vec::with_capacity(arms.len());
    for (label, share) in &arms {
        let own = totals(label);
        let is_control = *label == control;
        let compared = |ours: Sample, theirs: Sample, scale: f64| {
            (!is_control).then(|| Compared::of(difference(ours, theirs, comparisons), scale))
        };
        variants.push(VariantResults {
            variant: (*label).to_owned(),
            share: experience.bandit.is_none().then_some(*share),
            exposures: own.exposures,
            subjects: own.subjects,
            conversions: own.converted,
            conversion_rate: own.conversion().mean(),
            revenue: major(own.revenue.sum),
            revenue_per_subject: major(own.revenue.mean()),
            conversion_rate_versus_control: compared(own.conversion(), base.conversion(), 1.0),
            revenue_per_subject_versus_control: compared(own.revenue, base.revenue, major(1.0)),
        });
    }
    let counts: Vec<(u64, f64)> = variants
        .iter()
        .zip(&arms)
        .map(|(variant, (_, share))| (variant.subjects, *share))
        .collect();
    // A bandit's shares are its own choice.
    let p_value = match experience.bandit {
        None => sample_ratio(&counts),
        Some(_) => None,
    };
    let ok = p_value.is_none_or(|p| p >= MISMATCH);
    let winner = winner(&variants).filter(|_| ok);
    Results {
        experiment: experience.id.to_string(),
        goal: GoalAnswer {
            event: experience.goal.event.to_string(),
            within_days: experience.goal.window_ms as f64 / 86_400_000.0,
        },
        currency: ruleset.currency().to_owned(),
        control: control.to_owned(),
        crossovers: outcomes.crossovers,
        lost_exposures: outcomes.lost,
        sample_ratio: SampleRatio { p_value, ok },
        confidence_level: LEVEL,
        verdict: match (ok, &winner) {
            (false, _) => Verdict::SampleRatioMismatch,
            (true, Some(_)) => Verdict::Winner,
            (true, None) => Verdict::NoWinnerYet,
        },
        winner,
        variants,
    }
}

/// Variants with their shares of the subjects, the control first: those held out, where the experience has one variant, else the
/// one declared first.
fn arms(experience: &Experience) -> Vec<(&str, f64)> {
    let weights: f64 = experience.variants.iter().map(|variant| variant.weight).sum();
    let served = 1.0 - experience.holdout;
    let own = experience
        .variants
        .iter()
        .enumerate()
        .map(|(index, variant)| (experience.label(index), served * variant.weight / weights));
    let mut arms: Vec<(&str, f64)> = own.collect();
    if experience.holdout > 0.0 {
        let at = if arms.len() == 1 { 0 } else { arms.len() };
        arms.insert(at, (HELD_OUT, experience.holdout));
    }
    arms
}

/// The best of those that are better than the control beyond doubt; the control where all others are worse beyond doubt.
fn winner(variants: &[VariantResults]) -> Option<String> {
    let (control, others) = variants.split_first()?;
    let by = |one: &VariantResults| one.conversion_rate_versus_control;
    let better = others
        .iter()
        .filter(|one| by(one).is_some_and(|by| by.significant && by.difference > 0.0));
    let best = better.max_by(|a, b| a.conversion_rate.total_cmp(&b.conversion_rate));
    let all_worse = !others.is_empty()
        && others
            .iter()
            .all(|one| by(one).is_some_and(|by| by.significant && by.difference < 0.0));
    best.or(Some(control).filter(|_| all_worse))
        .map(|one| one.variant.clone())
}

/// All days of one variant.
#[derive(Default)]
struct Totals {
    exposures: u64,
    subjects: u64,
    converted: u64,
    revenue: Sample,
}

impl Totals {
    fn of<'d>(days: impl Iterator<Item = &'d DayOutcome>) -> Totals {
        days.fold(Totals::default(), |total, day| Totals {
            exposures: total.exposures + day.exposures,
            subjects: total.subjects + day.subjects,
            converted: total.converted + day.converted,
            revenue: Sample {
                count: total.revenue.count + day.subjects as f64,
                sum: total.revenue.sum + day.revenue_minor,
                squares: total.revenue.squares + day.revenue_squares,
            },
        })
    }

    fn conversion(&self) -> Sample {
        Sample::of_share(self.subjects, self.converted)
    }
}

impl Compared {
    fn of(found: Difference, scale: f64) -> Compared {
        Compared {
            difference: found.difference * scale,
            low: found.interval.map(|(low, _)| low * scale),
            high: found.interval.map(|(_, high)| high * scale),
            significant: found.is_significant(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(experiment: &str, counts: &[(&str, u64, u64)]) -> Results {
        let source = format!(
            "version: 1\ncurrency: GBP\nplacements: {{promo: {{kind: content, fallback: null}}}}\nexperiences:\n  - {{id: x, placement: promo, {experiment}}}\n"
        );
        let ruleset = Ruleset::parse(&source, 1).unwrap();
        let days = counts.iter().flat_map(|(variant, subjects, converted)| {
            [
                (1, subjects / 2, converted / 2),
                (2, subjects - subjects / 2, converted - converted / 2),
            ]
            .map(|(day, subjects, converted)| DayOutcome {
                variant: (*variant).into(),
                day,
                exposures: subjects * 2,
                subjects,
                converted,
                revenue_minor: converted as f64 * 1_000.0,
                revenue_squares: converted as f64 * 1_000_000.0,
            })
        });
        let outcomes = Outcomes {
            variants: days.collect(),
            crossovers: 3,
            lost: 4,
        };
        results(&ruleset, &ruleset.experiences()[0], &outcomes)
    }

    const TWO: &str = "variants: [{id: a, payload: 1}, {id: b, payload: 2}]";

    #[test]
    fn a_lift_beyond_doubt_wins_and_less_does_not() {
        let won = judged(TWO, &[("a", 20_000, 2_000), ("b", 20_100, 2_412)]);
        assert_eq!((won.verdict, won.winner.as_deref()), (Verdict::Winner, Some("b")));
        let b = &won.variants[1];
        assert_eq!((b.exposures, b.subjects, b.conversions), (40_200, 20_100, 2_412));
        assert_eq!(
            (b.conversion_rate, b.revenue, b.revenue_per_subject),
            (0.12, 24_120.0, 1.2)
        );
        let by = b.conversion_rate_versus_control.unwrap();
        assert!((by.difference - 0.02).abs() < 1e-12 && by.low.unwrap() > 0.0 && by.significant);
        assert!(b.revenue_per_subject_versus_control.unwrap().significant);
        assert_eq!(won.variants[0].conversion_rate_versus_control, None);
        assert_eq!((won.crossovers, won.lost_exposures), (3, 4));

        let open = judged(TWO, &[("a", 2_000, 200), ("b", 2_010, 241)]);
        assert_eq!((open.verdict, open.winner), (Verdict::NoWinnerYet, None));
        let worse = judged(TWO, &[("a", 20_000, 2_412), ("b", 20_100, 2_000)]);
        assert_eq!(worse.winner.as_deref(), Some("a"));
    }

    #[test]
    fn a_mismatch_of_the_ratio_crowns_nobody() {
        let skewed = judged(TWO, &[("a", 20_000, 2_000), ("b", 18_000, 2_700)]);
        assert_eq!(
            (skewed.verdict, skewed.winner),
            (Verdict::SampleRatioMismatch, None)
        );
        assert!(!skewed.sample_ratio.ok);
        // The same counts of a bandit are its own choice.
        let bandit = judged(
            &format!("bandit: {{}}, {TWO}"),
            &[("a", 20_000, 2_000), ("b", 18_000, 2_700)],
        );
        assert_eq!(bandit.winner.as_deref(), Some("b"));
        assert_eq!(bandit.variants[0].share, None);
    }

    #[test]
    fn a_holdout_is_the_control_of_a_single_variant() {
        let held = judged(
            "holdout: 20, payload: 1",
            &[("#holdout", 4_000, 400), ("#served", 16_000, 2_100)],
        );
        assert_eq!(
            (&*held.control, held.winner.as_deref()),
            ("#holdout", Some("#served"))
        );
        assert_eq!(held.variants[1].share, Some(0.8));
        let nothing = judged(TWO, &[]);
        assert_eq!(
            (nothing.verdict, nothing.variants[0].subjects),
            (Verdict::NoWinnerYet, 0)
        );
        let json = serde_json::to_value(&nothing).unwrap();
        assert_eq!(
            (&json["verdict"], &json["variants"][0]["conversion_rate"]),
            (&"no_winner_yet".into(), &0.0.into())
        );
    }
}
