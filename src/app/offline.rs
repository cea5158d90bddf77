//! What the short commands do without a running server.

use std::time::Duration;

use super::backends;
use crate::clock;
use crate::config::Config;
use crate::domain::ruleset::Ruleset;
use crate::domain::user_token::UserTokenKey;
use crate::operations::{RulesetEntry, check_experience};

/// Creates the warehouse or brings its schema up to date.
///
/// # Errors
/// When it cannot be opened or a migration fails.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    backends::open_warehouse(config, true).await?.close().await;
    Ok(())
}

/// Stores a ruleset that was checked, and returns its version. A server on this warehouse has it in force within
/// two seconds.
///
/// # Errors
/// When the warehouse cannot be opened or does not take it.
pub async fn store_ruleset(config: &Config, source: &str) -> anyhow::Result<u64> {
    let warehouse = backends::open_warehouse(config, !config.warehouse.url.is_networked()).await?;
    let stored = warehouse.store_ruleset(source, clock::now()).await;
    warehouse.close().await;
    Ok(stored?.version)
}

/// The newest rulesets, the newest first.
///
/// # Errors
/// When the warehouse cannot be opened or read.
pub async fn rulesets(config: &Config, limit: u32) -> anyhow::Result<Vec<RulesetEntry>> {
    let warehouse = backends::open_warehouse(config, !config.warehouse.url.is_networked()).await?;
    let stored = warehouse.rulesets(limit).await;
    warehouse.close().await;
    Ok(stored?.into_iter().map(RulesetEntry::from).collect())
}

/// Pauses an experience of the newest ruleset, or ends its pause. Servers on this warehouse follow within two seconds.
///
/// # Errors
/// When the warehouse cannot be opened or does not take it, and where there is no such experience to pause.
pub async fn set_paused(config: &Config, id: &str, paused: bool) -> anyhow::Result<()> {
    let warehouse = backends::open_warehouse(config, !config.warehouse.url.is_networked()).await?;
    let set = async {
        if paused && let Some(newest) = warehouse.newest_ruleset(None).await? {
            check_experience(&Ruleset::parse(&newest.source, newest.version)?, id)?;
        }
        Ok(warehouse.set_paused(id, paused, clock::now()).await?)
    };
    let done = set.await;
    warehouse.close().await;
    done
}

/// The public API's contract as YAML.
///
/// # Errors
/// When it cannot be written as YAML.
pub fn openapi_yaml() -> anyhow::Result<String> {
    crate::http::openapi::yaml()
        .map_err(|error| anyhow::anyhow!("the contract could not be written: {error}"))
}

/// A token that proves `user_id` to this deployment; `None` where there is no user token key yet.
pub fn user_token(config: &Config, user_id: &str, valid_for: Duration) -> Option<String> {
    let key = config.keys.user_token.as_ref()?;
    let shop = backends::shop(config).ok()?;
    let seconds = clock::now().0.div_euclid(1_000);
    let exp = seconds.saturating_add(i64::try_from(valid_for.as_secs()).unwrap_or(i64::MAX));
    Some(UserTokenKey::new(&key.kid, key.secret.expose().as_bytes()).make(&shop, user_id, exp))
}
