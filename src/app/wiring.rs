//! The HTTP rooms' state, put together from the opened stores.

use std::sync::Arc;

use axum::Router;
use tokio_util::sync::CancellationToken;

use super::backends::Identity;
use crate::broadcast::Channel;
use crate::config::{Config, ConsentDefault, RecordPolicy};
use crate::decisions::Decisions;
use crate::domain::consent::Choice;
use crate::domain::event::EventLimits;
use crate::domain::ids::Shop;
use crate::experiments::Experiments;
use crate::hot::HotStore;
use crate::http::{self, Settings, State, StateParts};
use crate::ingest::{Ingest, News, Teller};
use crate::keys::{ApiKey, KeyKind, KeyRing};
use crate::listener::Serve;
use crate::operations::Operations;
use crate::population::Populations;
use crate::profiles::{Overlay, ProfileReader};
use crate::queue::EventQueue;
use crate::recorder::{RecorderWorker, recorder};
use crate::rulesets::Rulesets;
use crate::telemetry::Metrics;
use crate::warehouse::Warehouse;

/// The share of decisions without an experiment that `decisions.record = experiments` records: enough to see
/// what is served, little enough to cost nothing.
const RECORDED_BESIDES: f64 = 0.01;

/// What the API stands on.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) identity: Identity,
    pub(super) metrics: Metrics,
    pub(super) queue: Arc<dyn EventQueue>,
    pub(super) warehouse: Arc<dyn Warehouse>,
    pub(super) hot: Arc<dyn HotStore>,
    pub(super) overlay: Arc<Overlay>,
    pub(super) rulesets: Arc<Rulesets>,
    pub(super) populations: Arc<Populations>,
    /// Cancelled when this node is told to stop: from then on it is not ready.
    pub(super) stopping: CancellationToken,
}

/// What it serves, and the workers behind it.
pub(super) struct Api<S> {
    pub(super) public: S,
    pub(super) operator: Router,
    pub(super) recorder: RecorderWorker,
    pub(super) profiles: Arc<ProfileReader>,
    /// Where there are other nodes.
    pub(super) teller: Option<Teller>,
}

impl Parts<'_> {
    pub(super) fn assemble(self) -> Api<impl Serve> {
        let Identity {
            shop,
            pseudonym,
            user_token,
        } = self.identity;
        let overlay = self.overlay;
        let metrics = self.metrics.clone();
        let (news, teller) = match channel(self.config, &shop) {
            Some(channel) => {
                let partitions = self.queue.partitions();
                let (news, teller) = News::shared(Arc::clone(&overlay), partitions, channel, metrics);
                (news, Some(teller))
            }
            None => (News::alone(Arc::clone(&overlay), metrics), None),
        };
        let (recorder, worker) = recorder(Arc::clone(&self.queue), Arc::clone(&news), self.metrics.clone());
        let ingest = Arc::new(Ingest::new(
            Arc::clone(&self.queue),
            pseudonym.clone(),
            Some(user_token.clone()),
            EventLimits::default(),
            news,
            self.metrics.clone(),
        ));
        let keys = &self.config.keys;
        let configured = [(&keys.public, KeyKind::Public), (&keys.server, KeyKind::Server)];
        let ring = KeyRing::new(configured.into_iter().filter_map(|(key, kind)| {
            Some((
                key.as_ref()?.expose(),
                ApiKey {
                    kind,
                    shop: shop.clone(),
                },
            ))
        }));
        // What is in this process already is not kept twice.
        let near_bytes = match self.config.hot.url.is_networked() {
            true => self.config.near.bytes,
            false => 0,
        };
        let profiles = Arc::new(ProfileReader::new(
            self.hot,
            near_bytes,
            Arc::clone(&self.warehouse),
            overlay,
            self.metrics.clone(),
        ));
        let experiments = Experiments::new(Arc::clone(&self.warehouse), Arc::clone(&self.rulesets));
        let decisions = Decisions::new(Arc::clone(&self.warehouse));
        let operations = Operations::new(self.queue, self.warehouse, Arc::clone(&self.rulesets), shop);
        let state = State::from(StateParts {
            settings: settings(self.config),
            keys: ring,
            pseudonym_key: pseudonym,
            user_token_key: Some(user_token),
            profiles: Arc::clone(&profiles),
            rulesets: self.rulesets,
            populations: self.populations,
            ingest,
            recorder,
            operations,
            experiments,
            decisions,
            metrics: self.metrics,
            stopping: self.stopping,
        });
        Api {
            public: http::public_service(state.clone()),
            operator: http::operator_router(state),
            recorder: worker,
            profiles,
            teller,
        }
    }
}

/// Where nodes that answer tell each other what they took: beside the hot profiles, if the log is one that they share.
fn channel(config: &Config, shop: &Shop) -> Option<Channel> {
    let is_shared = config.roles.api && config.queue.url.is_networked();
    is_shared.then(|| Channel::find(config.hot.url.expose(), shop))?
}

fn settings(config: &Config) -> Settings {
    Settings {
        budget: config.deadline,
        consent_default: match config.consent_default {
            ConsentDefault::Granted => Choice::Granted,
            ConsentDefault::Denied => Choice::Denied,
        },
        record_share: match config.decisions_record {
            RecordPolicy::All => 1.0,
            RecordPolicy::Experiments => RECORDED_BESIDES,
            RecordPolicy::Sampled(share) => share,
        },
        body_bytes: config.http.body_bytes,
        inflated_bytes: config.http.inflated_bytes,
        in_flight: config.http.in_flight,
        allowed_origins: config.allowed_origins.clone(),
    }
}
