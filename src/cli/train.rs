//! `cartwright train`: builds the recommender's models anew, now. Asks the server on this machine.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::operator::{OperatorClient, expect_success};
use crate::config::Config;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Some(mut server) = OperatorClient::connect(&config.operator_listen).await else {
        bail!(
            "nobody listens at {}; models are built by a running server (`cartwright serve`)",
            config.operator_listen
        );
    };
    let answer = server.post("/operator/v1/train", "application/json", "").await?;
    let trained: Value = serde_json::from_slice(&expect_success(answer)?).context("the server's answer")?;
    let count = |member: &str| trained[member].as_u64().unwrap_or(0);
    println!(
        "learnt from {} sessions with {} items ({:.1} MB) and the orders of {} items, in {} ms",
        count("sessions"),
        count("items"),
        count("bytes") as f64 / 1e6,
        count("items_bought"),
        count("took_ms"),
    );
    Ok(ExitCode::SUCCESS)
}
