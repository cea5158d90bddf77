//! `cartwright migrate`: bring the warehouse's schema up to date. An embedded `serve` does so by itself.

use std::process::ExitCode;

use crate::app;
use crate::config::Config;

pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    app::migrate(&config).await?;
    println!("the warehouse {} is up to date", config.warehouse.url);
    Ok(ExitCode::SUCCESS)
}
