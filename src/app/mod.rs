//! The composition root: the one place that knows every room and puts them together.
//!
//! Start, in one straight line: telemetry → log → keys → warehouse (an embedded one migrated, a shared one checked) →
//! hot profiles → pseudonym key and ruleset (`settle`) → sockets → lane → listeners. Whatever fails before the
//! listeners serve ends the start, so nobody is ever half answered.
//!
//! Shared stores may be away at the start: the node serves from its last good ruleset, ready and answering, and what
//! needs a store waits for it. Only what no waiting heals ends a start: a schema that `cartwright migrate` has to
//! bring up to date, a key that is missing or another one.
//!
//! Stop ([`Running::stop`]), within the grace period: readiness false → the public listener lets its connections
//! go and finishes what is under way → the lane finishes its batch → the operator listener follows → the log and
//! the warehouse are closed. The operator listener goes late so that a stop can be watched.
//!
//! - A lane that meets an error which time does not heal stops, and says so once, with the remedy. The process
//!   stays and stays ready: it still answers every request, and events are still safe in the log until that is
//!   full. Taking the node out would take the whole shop down for a fault that all nodes share. What shows it:
//!   `cartwright_lane_running` at 0 and a growing `cartwright_lane_lag_records`.
//! - Nothing is global: whatever a room needs is handed to it here.

mod backends;
pub mod check;
mod offline;
mod rules;
mod settle;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{Config, Keys, key_file};
use crate::drain::{FastLane, Lag, Retention, Worker};
use crate::hot::HotStore;
use crate::listener::{Limits, Listener};
use crate::population::Populations;
use crate::profiles::{Overlay, OverlayLimits};
use crate::queue::EventQueue;
use crate::rulesets::Rulesets;
use crate::telemetry::Metrics;
use crate::warehouse::Warehouse;

use self::settle::Settlement;

pub use crate::operations::RulesetEntry;
pub use offline::{migrate, openapi_yaml, rulesets, set_paused, store_ruleset, user_token};
pub use rules::read as read_ruleset;

/// Operators' connections: a scraper, a command, a person.
const OPERATOR_CONNECTIONS: usize = 64;
/// What is left for the lane's batch when the requests under way took the whole grace period. A batch takes well
/// under a second; cut off, it is simply applied again after the next start.
const LANE_RESERVE: Duration = Duration::from_secs(2);

/// Starts the product.
#[derive(Debug)]
pub struct App;

/// What a node stands on, opened.
#[doc(hidden)]
#[derive(Debug)]
pub struct Backends {
    pub queue: Arc<dyn EventQueue>,
    pub warehouse: Arc<dyn Warehouse>,
    pub hot: Arc<dyn HotStore>,
}

/// The running product. Dropped without [`Running::stop`], it is cut off as by a crash.
#[derive(Debug)]
pub struct Running {
    /// Where the public API listens; `None` without the role `api`.
    pub public_addr: Option<SocketAddr>,
    pub operator_addr: SocketAddr,
    /// The keys in force; the API's own are absent where this node has not its role.
    pub keys: Keys,
    pub metrics: Metrics,
    queue: Arc<dyn EventQueue>,
    warehouse: Arc<dyn Warehouse>,
    grace: Duration,
    /// From here on this node is not ready, and its public listener stops.
    stopping: CancellationToken,
    /// Ends the lane and the refreshers.
    background: CancellationToken,
    operator_stop: CancellationToken,
    public: Option<JoinHandle<bool>>,
    operator: JoinHandle<bool>,
    workers: Vec<JoinHandle<()>>,
    /// Says why this node can't go on.
    failed: Option<oneshot::Receiver<anyhow::Error>>,
    _guards: [DropGuard; 3],
}

impl App {
    /// Opens everything and serves.
    ///
    /// # Errors
    /// When something of it cannot be opened; the message names the remedy, and nothing is left running.
    pub async fn start(config: Config) -> anyhow::Result<Running> {
        App::start_around(config, |backends| backends).await
    }

    /// The same with `around` put around the opened backends, for tests that hold calls up on the way to them.
    ///
    /// # Errors
    /// As [`App::start`].
    #[doc(hidden)]
    pub async fn start_around(
        config: Config,
        around: impl FnOnce(Backends) -> Backends,
    ) -> anyhow::Result<Running> {
        let queue = backends::open_queue(&config).await?;
        Box::pin(App::assemble(config, queue, around)).await
    }

    /// The same on a log that is open already, for tests of the whole service over a disk that fails.
    ///
    /// # Errors
    /// As [`App::start`].
    #[doc(hidden)]
    pub async fn start_on(config: Config, queue: Arc<dyn EventQueue>) -> anyhow::Result<Running> {
        Box::pin(App::assemble(config, queue, |backends| backends)).await
    }

    async fn assemble(
        mut config: Config,
        queue: Arc<dyn EventQueue>,
        around: impl FnOnce(Backends) -> Backends,
    ) -> anyhow::Result<Running> {
        let started = Instant::now();
        let metrics = Metrics::new()?;
        find_keys(&mut config)?;
        let identity = backends::Identity::of(&config)?;
        let shared = config.warehouse.url.is_networked();
        let Backends {
            queue,
            warehouse,
            hot,
        } = around(Backends {
            queue,
            warehouse: backends::open_warehouse(&config, !shared).await?,
            hot: backends::open_hot(&config).await?,
        });
        let rulesets = Arc::new(Rulesets::open(
            Arc::clone(&warehouse),
            config.data_dir.join(rules::KEPT),
        ));
        let settlement = Settlement::new(&config, &identity, &warehouse, &rulesets)?;
        let unsettled = settlement.now(shared).await?;
        let populations = Arc::new(Populations::new(
            Arc::clone(&warehouse),
            Arc::clone(&rulesets),
            identity.shop.clone(),
        ));

        let operator = bind("operator_listen", &config.operator_listen).await?;
        let public = match config.roles.api {
            true => Some(bind("listen", &config.listen).await?),
            false => None,
        };

        let overlay = Arc::new(Overlay::new(OverlayLimits::default()));
        let [stopping, background, operator_stop] = [(); 3].map(|()| CancellationToken::new());
        let mut workers = vec![refresh_rulesets(Arc::clone(&rulesets), background.clone())];
        if config.roles.api {
            workers.push(refresh_populations(Arc::clone(&populations), background.clone()));
        }
        let failed = unsettled.map(|unsettled| {
            let (failed, receiver) = oneshot::channel();
            workers.push(tokio::spawn(unsettled.later(
                background.clone(),
                stopping.clone(),
                failed,
            )));
            receiver
        });
        if config.roles.drain {
            let template = FastLane {
                queue: Arc::clone(&queue),
                warehouse: Arc::clone(&warehouse),
                hot: Arc::clone(&hot),
                ruleset: {
                    let rulesets = Arc::clone(&rulesets);
                    Arc::new(move || rulesets.current())
                },
                passed: {
                    let overlay = Arc::clone(&overlay);
                    Arc::new(move |partition, next| overlay.lane_passed(partition, next))
                },
                metrics: metrics.clone(),
                lag: Lag::default(),
                partition: 0,
                together: None,
                limits: crate::drain::BatchLimits::default(),
                dedupe_window: config.dedupe_window,
            };
            workers.push(tokio::spawn(Worker::new(template).run(background.clone())));
            if let Some(keep) = config.fact_retention {
                let warehouse = Arc::clone(&warehouse);
                let retention = Retention { warehouse, keep };
                workers.push(tokio::spawn(retention.run(background.clone())));
            }
        }

        let (operator_addr, public_addr) = (operator.addr(), public.as_ref().map(Listener::addr));
        let api = wiring::Parts {
            config: &config,
            identity,
            metrics: metrics.clone(),
            queue: Arc::clone(&queue),
            warehouse: Arc::clone(&warehouse),
            hot,
            overlay,
            rulesets,
            populations,
            stopping: stopping.clone(),
        }
        .assemble();
        let recorded = CancellationToken::new();
        workers.push({
            let recording = api.recorder.run(background.clone());
            let recorded = recorded.clone().drop_guard();
            tokio::spawn(async move {
                recording.await;
                drop(recorded);
            })
        });
        if let Some(teller) = api.teller {
            // The last records are news as well.
            workers.push(tokio::spawn(teller.run(recorded)));
        }
        workers.push({
            let (profiles, stop) = (api.profiles, background.clone());
            tokio::spawn(async move { profiles.run(stop).await })
        });
        let limits = Limits {
            connections: OPERATOR_CONNECTIONS,
            grace: config.grace,
        };
        let operator = tokio::spawn(operator.serve(api.operator, limits, operator_stop.clone()));
        let limits = Limits {
            connections: config.http.connections,
            grace: config.grace,
        };
        let public = public.map(|public| tokio::spawn(public.serve(api.public, limits, stopping.clone())));
        metrics.ready(true);
        announce(public_addr, operator_addr, started.elapsed());

        let _guards = [&stopping, &background, &operator_stop].map(|token| token.clone().drop_guard());
        Ok(Running {
            public_addr,
            operator_addr,
            keys: config.keys,
            metrics,
            queue,
            warehouse,
            grace: config.grace,
            stopping,
            background,
            operator_stop,
            public,
            operator,
            workers,
            failed,
            _guards,
        })
    }
}

impl Running {
    /// Returns when this node found out that it must not go on, and why. It is not ready any more; what remains is
    /// [`Running::stop`].
    pub async fn failed(&mut self) -> anyhow::Error {
        if let Some(failed) = self.failed.take()
            && let Ok(error) = failed.await
        {
            return error;
        }
        std::future::pending().await
    }

    /// Stops in order; see the module. Every answer that was begun is finished, unless it takes longer than the
    /// grace period, and everything acknowledged is in the log.
    pub async fn stop(self) {
        let until = Instant::now() + self.grace;
        self.metrics.ready(false);
        self.stopping.cancel();
        if let Some(public) = self.public {
            finish("public listener", public).await;
        }
        self.background.cancel();
        let patience = until.max(Instant::now() + LANE_RESERVE);
        for worker in self.workers {
            let abort = worker.abort_handle();
            match tokio::time::timeout_at(patience, worker).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = %error, "a background task ended badly"),
                Err(_) => {
                    abort.abort();
                    tracing::warn!(
                        "a background task was cut off; its batch will be applied after the next start"
                    );
                }
            }
        }
        self.operator_stop.cancel();
        finish("operator listener", self.operator).await;
        self.queue.close().await;
        self.warehouse.close().await;
        tracing::info!("stopped");
    }
}

/// Whether a start failed because another process holds the data folder's log.
pub fn is_in_use(error: &anyhow::Error) -> bool {
    let locked = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(crate::queue::OpenError::Locked { .. }))
    };
    error.chain().any(locked)
}

async fn bind(setting: &str, addr: &str) -> anyhow::Result<Listener> {
    Listener::bind(addr)
        .await
        .with_context(|| format!("{addr} cannot be listened on; `{setting}` sets another address"))
}

/// Reads the keys that are not configured, and on the embedded stack makes the ones that are not kept either. Called
/// with the log open: that one process at a time can hold it is what keeps two first starts from making two sets.
fn find_keys(config: &mut Config) -> anyhow::Result<()> {
    let path = config.key_file();
    if !config.is_embedded() {
        key_file::read(&mut config.keys, &path)?;
        let missing = backends::missing_keys(config);
        if !missing.is_empty() {
            bail!(
                "{} not configured: nodes on shared stores must all have the same keys, so none makes its own; \
                 `cartwright keys generate` prints a set to give to every node",
                listed(&missing)
            );
        }
        // Where the last good ruleset is kept, which a node can do without.
        if let Err(error) = std::fs::create_dir_all(&config.data_dir) {
            tracing::warn!(error = %error, "{} could not be made", config.data_dir.display());
        }
        return Ok(());
    }
    if key_file::complete(&mut config.keys, &path, &config.environment)? {
        tracing::info!(
            path = %path.display(),
            "keys were made and are kept in {}; `cartwright keys --reveal` shows them",
            path.display()
        );
    }
    Ok(())
}

fn listed(settings: &[&str]) -> String {
    match settings {
        [one] => format!("{one} is"),
        several => format!("{} are", several.join(", ")),
    }
}

fn refresh_rulesets(rulesets: Arc<Rulesets>, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move { rulesets.run(stop).await })
}

fn refresh_populations(populations: Arc<Populations>, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move { populations.run(stop).await })
}

async fn finish(name: &str, listener: JoinHandle<bool>) {
    match listener.await {
        Ok(true) => {}
        Ok(false) => tracing::warn!("the {name} cut off requests that outlasted the grace period"),
        Err(error) => tracing::error!(error = %error, "the {name} ended badly"),
    }
}

fn announce(public: Option<SocketAddr>, operator: SocketAddr, took: Duration) {
    if let Some(public) = public {
        tracing::info!(addr = %public, "the API listens on http://{public}");
    }
    tracing::info!(
        addr = %operator,
        start_ms = took.as_millis(),
        "ready; metrics and health are on http://{operator}"
    );
}
