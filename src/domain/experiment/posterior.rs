//! What is believed of each variant's success, for bandits: a Beta distribution per variant.
//!
//! The prior is uniform, Beta(1, 1). A shopper who reached the goal adds 1 to `alpha`, one who did not adds 1 to `beta`; an
//! outcome of `n` days ago counts `2^(-n / half life)`, so that a bandit follows a taste that changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::DayOutcome;

/// Of one variant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Beta {
    pub alpha: f64,
    pub beta: f64,
}

impl Beta {
    /// Nothing is known: every rate is as likely.
    pub const UNIFORM: Beta = Beta {
        alpha: 1.0,
        beta: 1.0,
    };

    pub fn mean(self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }
}

/// What is believed of all bandits' variants. As JSON it is part of a decision record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Posteriors {
    experiments: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Beta>>,
}

impl Posteriors {
    pub fn is_empty(&self) -> bool {
        self.experiments.is_empty()
    }

    /// What is believed of a variant; uniform where it has never been served.
    pub fn of(&self, experiment: &str, variant: &str) -> Beta {
        let known = self.experiments.get(experiment);
        known
            .and_then(|variants| variants.get(variant))
            .copied()
            .unwrap_or(Beta::UNIFORM)
    }

    /// Learns an experiment's outcomes as of `today`.
    pub fn learn(&mut self, experiment: &Arc<str>, outcomes: &[DayOutcome], half_life_days: f64, today: i64) {
        let variants = self.experiments.entry(Arc::clone(experiment)).or_default();
        for outcome in outcomes {
            let age = today.saturating_sub(outcome.day).max(0) as f64;
            let weight = (-age / half_life_days).exp2();
            let converted = outcome.converted.min(outcome.subjects);
            let belief = variants
                .entry(Arc::clone(&outcome.variant))
                .or_insert(Beta::UNIFORM);
            belief.alpha += weight * converted as f64;
            belief.beta += weight * (outcome.subjects - converted) as f64;
        }
    }

    /// Those of one experiment alone.
    pub fn only(&self, experiments: impl Iterator<Item = Arc<str>>) -> Posteriors {
        let kept = experiments.filter_map(|id| Some((Arc::clone(&id), self.experiments.get(&id)?.clone())));
        Posteriors {
            experiments: kept.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_count_and_fade() {
        let outcome = |variant: &str, day, subjects, converted| DayOutcome {
            variant: variant.into(),
            day,
            exposures: subjects,
            subjects,
            converted,
            revenue_minor: 0.0,
            revenue_squares: 0.0,
        };
        let mut posteriors = Posteriors::default();
        let outcomes = [
            outcome("a", 100, 10, 4),
            outcome("a", 86, 10, 4),
            outcome("b", 100, 5, 9),
        ];
        posteriors.learn(&"e".into(), &outcomes, 14.0, 100);
        let a = posteriors.of("e", "a");
        assert_eq!((a.alpha, a.beta), (1.0 + 4.0 + 2.0, 1.0 + 6.0 + 3.0));
        // More successes than shoppers is no more than all of them.
        assert_eq!(posteriors.of("e", "b").beta, 1.0);
        assert_eq!(posteriors.of("e", "c"), Beta::UNIFORM);
        assert_eq!(posteriors.of("other", "a"), Beta::UNIFORM);
    }
}
