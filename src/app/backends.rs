//! From the configuration to opened stores.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use crate::config::Config;
use crate::domain::ids::{Environment, PseudonymKey, Shop};
use crate::domain::user_token::UserTokenKey;
use crate::hot::{self, HotConfig, HotStore};
use crate::queue::{self, EventQueue, QueueConfig};
use crate::warehouse::{self, Warehouse, WarehouseConfig, WarehouseError};

/// Whose keys these are, and the keys that make identities.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) shop: Shop,
    pub(super) pseudonym: PseudonymKey,
    pub(super) user_token: UserTokenKey,
}

impl Identity {
    /// # Errors
    /// When a key is neither configured nor kept.
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        let missing = |setting: &str| {
            anyhow!(
                "{setting} is neither configured nor kept in {}; `cartwright keys generate` prints a set of keys",
                config.key_file().display()
            )
        };
        let pseudonym = config
            .keys
            .pseudonym
            .as_ref()
            .ok_or_else(|| missing("pseudonym_key"))?;
        let user_token = config
            .keys
            .user_token
            .as_ref()
            .ok_or_else(|| missing("user_token_key"))?;
        Ok(Identity {
            shop: shop(config)?,
            pseudonym: PseudonymKey::new(&pseudonym.kid, pseudonym.secret.expose().as_bytes()),
            user_token: UserTokenKey::new(&user_token.kid, user_token.secret.expose().as_bytes()),
        })
    }
}

/// The keys that a start on shared stores lacks. A node without the API needs none of the API's own.
pub(super) fn missing_keys(config: &Config) -> Vec<&'static str> {
    let api = config.roles.api;
    let keys = config.keys.named().into_iter();
    keys.filter(|(name, key)| key.is_none() && (api || !matches!(*name, "public_key" | "server_key")))
        .map(|(name, _)| name)
        .collect()
}

/// The configured shop in its environment.
pub(super) fn shop(config: &Config) -> anyhow::Result<Shop> {
    let environment = if config.environment == "test" {
        Environment::Test
    } else {
        Environment::Live
    };
    Shop::new(&config.shop, environment).context("shop")
}

pub(super) async fn open_queue(config: &Config) -> Result<Arc<dyn EventQueue>, queue::OpenError> {
    let settings = &config.queue;
    queue::open(&QueueConfig {
        url: settings.url.expose().to_owned(),
        partitions: settings.partitions,
        limit_bytes: settings.limit_bytes,
        retain: settings.retain,
        retain_bytes: settings.retain_bytes,
        segment_bytes: settings.segment_bytes,
    })
    .await
}

pub(super) async fn open_warehouse(
    config: &Config,
    migrate: bool,
) -> Result<Arc<dyn Warehouse>, warehouse::OpenError> {
    warehouse::open(&WarehouseConfig {
        url: config.warehouse.url.expose().to_owned(),
        migrate,
    })
    .await
}

pub(super) async fn open_hot(config: &Config) -> Result<Arc<dyn HotStore>, hot::OpenError> {
    let settings = &config.hot;
    hot::open(&HotConfig {
        url: settings.url.expose().to_owned(),
        memory_bytes: settings.memory_bytes,
        ttl: settings.ttl,
        reports: config.roles.api && config.near.bytes > 0,
    })
    .await
}

/// Why the pseudonym key could not be compared, or should not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error(
        "pseudonym_key is not the key that this warehouse was filled with (check value {own}, stored {in_force}): \
         restore the key, or start with an empty warehouse and an empty log"
    )]
    Other { own: String, in_force: String },
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
}

/// Refuses a pseudonym key other than the one that the warehouse was filled with: under another key every
/// returning shopper would be a stranger, for good.
pub(super) async fn compare_key(warehouse: &dyn Warehouse, identity: &Identity) -> Result<(), KeyError> {
    let own = identity.pseudonym.check_value();
    let in_force = warehouse.key_check_value(&own).await?;
    if in_force == own {
        Ok(())
    } else {
        Err(KeyError::Other { own, in_force })
    }
}
