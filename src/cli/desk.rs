//! Where the commands on rulesets work: at the server, where one runs, else straight on the warehouse.

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::operator::{OperatorClient, expect_success};
use crate::app::{self, RulesetEntry};
use crate::config::Config;

/// Versions looked back at.
const LISTED: u32 = 100;

#[derive(Debug)]
pub(super) enum Desk {
    Server(OperatorClient),
    Warehouse(Box<Config>),
}

impl Desk {
    pub(super) async fn open(config: Config) -> Desk {
        match OperatorClient::connect(&config.operator_listen).await {
            Some(server) => Desk::Server(server),
            None => Desk::Warehouse(Box::new(config)),
        }
    }

    /// The newest versions, the newest first.
    pub(super) async fn rulesets(&mut self) -> anyhow::Result<Vec<RulesetEntry>> {
        match self {
            Desk::Server(server) => {
                let answer = expect_success(server.get("/operator/v1/rulesets").await?)?;
                serde_json::from_slice(&answer).context("the server's answer")
            }
            Desk::Warehouse(config) => app::rulesets(config, LISTED).await,
        }
    }

    /// Puts a checked ruleset in force; returns its version.
    pub(super) async fn apply(&mut self, source: &str) -> anyhow::Result<u64> {
        let server = match self {
            Desk::Warehouse(config) => return app::store_ruleset(config, source).await,
            Desk::Server(server) => server,
        };
        let answer = server
            .post("/operator/v1/ruleset", "application/yaml", source.to_owned())
            .await?;
        let body: Value = serde_json::from_slice(&expect_success(answer)?).context("the server's answer")?;
        match body.get("version").and_then(Value::as_u64) {
            Some(version) => Ok(version),
            None => bail!("the server's answer has no version; is it another service?"),
        }
    }

    /// What a ruleset would change in the decisions of the last `hours`.
    pub(super) async fn dry_run(&mut self, source: &str, hours: u32) -> anyhow::Result<Value> {
        let Desk::Server(server) = self else {
            bail!("a dry run needs a running server (`cartwright serve`), whose decisions it makes again");
        };
        let path = format!("/operator/v1/ruleset/dry-run?hours={hours}");
        let answer = server.post(&path, "application/yaml", source.to_owned()).await?;
        serde_json::from_slice(&expect_success(answer)?).context("the server's answer")
    }

    pub(super) async fn set_paused(&mut self, id: &str, paused: bool) -> anyhow::Result<()> {
        let server = match self {
            Desk::Warehouse(config) => return app::set_paused(config, id, paused).await,
            Desk::Server(server) => server,
        };
        let verb = if paused { "pause" } else { "resume" };
        let path = format!("/operator/v1/experiences/{id}/{verb}");
        expect_success(server.post(&path, "application/json", "").await?)?;
        Ok(())
    }
}
