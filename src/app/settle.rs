//! What a start has to settle with the warehouse: whether the pseudonym key is the right one, and which ruleset is
//! in force.
//!
//! - An embedded warehouse is there or the start fails.
//! - A shared one may be away: then the node serves from its last good ruleset, and settles as soon as the warehouse
//!   answers. Until then the key is taken on trust, which it deserves: it is configured, and the same on every node.
//! - Where it turns out to be another key, the node stops by itself with that error: what it accepted under the wrong
//!   key would never be matched to its shoppers, so every minute more is a loss. What it said meanwhile is in the log
//!   under strangers' pseudonyms, and harms nobody else's profile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::backends::{self, Identity, KeyError};
use super::rules;
use crate::config::Config;
use crate::rulesets::{RefreshError, Rulesets};
use crate::warehouse::{Warehouse, WarehouseError};

/// How long a start waits for a shared warehouse. Higher delays a start while it is away; lower starts on a kept
/// ruleset although the newest was a moment away.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one later attempt may take, and the pause after it. Higher: a wrong key is found later. Lower: a sick
/// server is asked more often.
const ATTEMPT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum Unsettled {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("no ruleset could be loaded: {0}")]
    Ruleset(#[from] RefreshError),
    #[error("the warehouse does not answer")]
    Silent,
}

impl Unsettled {
    /// Whether it passes by itself.
    fn is_away(&self) -> bool {
        let (Unsettled::Key(KeyError::Warehouse(error)) | Unsettled::Ruleset(RefreshError::Warehouse(error))) =
            self
        else {
            return matches!(self, Unsettled::Silent);
        };
        matches!(error, WarehouseError::Unavailable(_) | WarehouseError::Unknown(_))
    }
}

/// See the module.
pub(super) struct Settlement {
    warehouse: Arc<dyn Warehouse>,
    rulesets: Arc<Rulesets>,
    identity: Identity,
    /// The configured ruleset.
    ruleset: Option<String>,
}

impl Settlement {
    /// # Errors
    /// When the configured ruleset cannot be read.
    pub(super) fn new(
        config: &Config,
        identity: &Identity,
        warehouse: &Arc<dyn Warehouse>,
        rulesets: &Arc<Rulesets>,
    ) -> anyhow::Result<Self> {
        Ok(Settlement {
            warehouse: Arc::clone(warehouse),
            rulesets: Arc::clone(rulesets),
            identity: identity.clone(),
            ruleset: rules::configured(config)?,
        })
    }

    /// Settles now; `Some` hands back what a shared warehouse that is away leaves for later.
    ///
    /// # Errors
    /// When the key is another one, or an embedded warehouse does not do as asked.
    pub(super) async fn now(self, shared: bool) -> anyhow::Result<Option<Self>> {
        let settled = match shared {
            true => within(PATIENCE, self.attempt()).await,
            false => self.attempt().await,
        };
        match settled {
            Ok(()) => Ok(None),
            Err(error) if shared && error.is_away() => {
                rules::fall_back(self.ruleset.as_deref(), &self.rulesets)?;
                let version = self.rulesets.current().map_or(0, |ruleset| ruleset.version());
                tracing::warn!(
                    error = %error,
                    version,
                    "the warehouse is away: this node serves under ruleset version {version} until it answers"
                );
                Ok(Some(self))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn attempt(&self) -> Result<(), Unsettled> {
        backends::compare_key(&*self.warehouse, &self.identity).await?;
        rules::load(self.ruleset.as_deref(), &*self.warehouse, &self.rulesets).await?;
        Ok(())
    }

    /// Settles as soon as the warehouse answers. Another key is told to `failed`, after `stopping` was cancelled.
    pub(super) async fn later(
        self,
        background: CancellationToken,
        stopping: CancellationToken,
        failed: oneshot::Sender<anyhow::Error>,
    ) {
        let mut reported = String::new();
        loop {
            tokio::select! {
                () = background.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match within(ATTEMPT, self.attempt()).await {
                Ok(()) => {
                    tracing::info!(
                        "the warehouse answers: its pseudonym key and its ruleset are this node's"
                    );
                    return;
                }
                Err(error @ Unsettled::Key(KeyError::Other { .. })) => {
                    stopping.cancel();
                    // Nobody waits for it where the node is being stopped already.
                    let _ = failed.send(error.into());
                    return;
                }
                // Each reason is reported once, not every second.
                Err(error) if error.to_string() == reported => {}
                Err(error) => {
                    reported = error.to_string();
                    tracing::warn!(error = %error, "the warehouse is still away");
                }
            }
        }
    }
}

async fn within(
    limit: Duration,
    attempt: impl Future<Output = Result<(), Unsettled>>,
) -> Result<(), Unsettled> {
    tokio::time::timeout(limit, attempt)
        .await
        .unwrap_or(Err(Unsettled::Silent))
}
