//! What a shop's customers do as a whole, refreshed in the background.
//!
//! Rankings smooth a shopper's own taste with it and recommendations are drawn from it. It is derived from the
//! orders in the warehouse, so there is nothing to store or to migrate: a node builds its own. Bandits learn from what became of
//! their exposures in the same way, so all nodes believe the same within a refresh or two, and a record says what this one did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::domain::experiment::Posteriors;
use crate::domain::ids::Shop;
use crate::domain::recommend::sessions::{SessionIndex, Tuning};
use crate::domain::recommend::{Catalogue, Population};
use crate::rulesets::Rulesets;
use crate::warehouse::{OutcomeQuery, Warehouse, WarehouseError};

/// The newest order lines that the model is built from. Half a million take about a second to build and some
/// tens of megabytes while building.
const MAX_LINES: usize = 500_000;

/// The newest events that the session index is built from.
const MAX_EVENTS: usize = 500_000;

/// Products whose stock, price and category count.
const MAX_PRODUCTS: usize = 200_000;

/// The shortest time between two builds.
const REFRESH_EVERY: Duration = Duration::from_secs(5);

/// A build may take one part in this many of the time between builds, so it never costs more than 2 % of a core.
const IDLE_FACTOR: u32 = 50;

/// The population model of one shop.
#[derive(Debug)]
pub struct Populations {
    warehouse: Arc<dyn Warehouse>,
    rulesets: Arc<Rulesets>,
    shop: Shop,
    current: ArcSwap<Population>,
}

impl Populations {
    /// Starts with an empty model, from which nothing is recommended.
    pub fn new(warehouse: Arc<dyn Warehouse>, rulesets: Arc<Rulesets>, shop: Shop) -> Self {
        Populations {
            warehouse,
            rulesets,
            shop,
            current: ArcSwap::default(),
        }
    }

    /// The latest model. Never waits.
    pub fn current(&self) -> Arc<Population> {
        self.current.load_full()
    }

    /// Builds the model anew from the warehouse.
    ///
    /// Requests are answered from the latest model meanwhile, and from the new one as soon as it is whole.
    ///
    /// # Errors
    /// When the warehouse does not answer; the latest model stays.
    pub async fn refresh(&self) -> Result<(), WarehouseError> {
        let posteriors = self.posteriors().await?;
        let purchases = self.warehouse.purchases(&self.shop, MAX_LINES).await?;
        let interactions = self.warehouse.interactions(&self.shop, MAX_EVENTS).await?;
        let catalogue = self.warehouse.catalogue(&self.shop, MAX_PRODUCTS).await?;
        let build = move || {
            let catalogue = Catalogue::of(catalogue);
            let sessions = SessionIndex::build(interactions, Tuning::default());
            Population::build(&purchases)
                .with_posteriors(posteriors)
                .with_sessions(Arc::new(sessions))
                .with_catalogue(catalogue)
        };
        let built = tokio::task::spawn_blocking(build).await;
        match built {
            Ok(population) => self.current.store(Arc::new(population)),
            Err(error) => tracing::error!(error = %error, "the population model could not be built"),
        }
        Ok(())
    }

    /// What is believed of the variants of the bandits in force.
    async fn posteriors(&self) -> Result<Posteriors, WarehouseError> {
        let mut posteriors = Posteriors::default();
        let Some(ruleset) = self.rulesets.current() else {
            return Ok(posteriors);
        };
        let today = clock::now().day();
        for experience in ruleset.experiences() {
            let Some(bandit) = experience.bandit else { continue };
            let query = OutcomeQuery {
                shop: &self.shop,
                experiment: &experience.id,
                goal: &experience.goal,
                currency: ruleset.currency(),
            };
            let outcomes = self.warehouse.outcomes(&query).await?;
            posteriors.learn(&experience.id, &outcomes.variants, bandit.half_life_days, today);
        }
        Ok(posteriors)
    }

    /// Refreshes until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        let mut was_failing = false;
        loop {
            let started = Instant::now();
            match self.refresh().await {
                Ok(()) => was_failing = false,
                // An outage is reported when it begins, not every time.
                Err(_) if was_failing => {}
                Err(error) => {
                    was_failing = true;
                    tracing::warn!(error = %error, "the population model could not be refreshed");
                }
            }
            let pause = REFRESH_EVERY.max(started.elapsed() * IDLE_FACTOR);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
