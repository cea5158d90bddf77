//! `cartwright apply -f ruleset.yaml`: check a ruleset here, then put it in force: through the server where one
//! runs, else straight into the warehouse.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::operator::{OperatorClient, expect_success};
use crate::app;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ruleset.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let source = app::read_ruleset(&args.file)?;
    let version = match OperatorClient::connect(&config.operator_listen).await {
        Some(mut server) => {
            let answer = server
                .post("/operator/v1/ruleset", "application/yaml", source)
                .await?;
            let body: Value =
                serde_json::from_slice(&expect_success(answer)?).context("the server's answer")?;
            match body.get("version").and_then(Value::as_u64) {
                Some(version) => version,
                None => bail!("the server's answer has no version; is it another service?"),
            }
        }
        None => app::store_ruleset(&config, &source).await?,
    };
    println!("{} is in force as version {version}", args.file.display());
    Ok(ExitCode::SUCCESS)
}
