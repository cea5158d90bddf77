//! `cartwright keys`: which keys exist and where they come from; `keys generate` prints a new set for nodes that share
//! their stores, and `keys user-token` makes a token for tests.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::app;
use crate::config::settings::{Setting, find};
use crate::config::{Config, KeyOrigin, key_file};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show the keys themselves.
    #[arg(long)]
    reveal: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints a new set of keys as environment variables, and keeps it nowhere: for nodes on shared stores.
    Generate,
    /// Makes a token that proves to be a user, as the shop's back end would at login.
    UserToken {
        user_id: String,
        /// How long it holds, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
        valid_for: u32,
    },
}

pub(super) fn run(args: &Args, mut config: Config) -> anyhow::Result<ExitCode> {
    let configured = config.keys.clone();
    let path = config.key_file();
    key_file::read(&mut config.keys, &path)?;
    if let Some(Command::Generate) = &args.command {
        for (key, value) in key_file::generate(&config.environment)? {
            println!("{}={value}", find(key).map(Setting::env).unwrap_or_default());
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::UserToken { user_id, valid_for }) = &args.command {
        let token = app::user_token(&config, user_id, Duration::from_secs(u64::from(*valid_for)))
            .with_context(|| {
                format!(
                    "no user token key is configured, and {} holds none; `cartwright serve` makes one at its first start, \
                     `cartwright keys generate` prints a set to be configured",
                    path.display()
                )
            })?;
        println!("{token}");
        return Ok(ExitCode::SUCCESS);
    }
    for ((name, key), (_, own)) in config.keys.named().into_iter().zip(configured.named()) {
        let origin = match (&key, own) {
            (None, _) => KeyOrigin::Absent,
            (Some(_), Some(_)) => KeyOrigin::Configured,
            (Some(_), None) => KeyOrigin::File(path.clone()),
        };
        match key.filter(|_| args.reveal) {
            Some(key) => println!("{name:<16} {origin}: {key}"),
            None => println!("{name:<16} {origin}"),
        }
    }
    if !args.reveal {
        println!("`cartwright keys --reveal` shows the keys themselves");
    }
    Ok(ExitCode::SUCCESS)
}
