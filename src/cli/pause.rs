//! `cartwright pause` and `resume`: the kill switch of an experience.

use std::process::ExitCode;

use anyhow::bail;

use super::desk::Desk;
use crate::config::Config;

/// The experience's id.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The experience's id.
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn run(args: Args, paused: bool, config: Config) -> anyhow::Result<ExitCode> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if args.id.is_empty() || !args.id.bytes().all(legal) {
        bail!("an experience's id is made of a-z, A-Z, 0-9, '-', '_' and '.'");
    }
    Desk::open(config).await.set_paused(&args.id, paused).await?;
    match paused {
        true => println!(
            "{} is paused; every node follows within two seconds, and later rulesets keep it so",
            args.id
        ),
        false => println!("{} is served again where its ruleset says so", args.id),
    }
    Ok(ExitCode::SUCCESS)
}
