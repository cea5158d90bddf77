//! The command line: one file per command. The only place that writes to standard output.
//!
//! Every setting of [`SETTINGS`] is a flag of every command, so that `check` tests exactly what `serve`
//! would start with.

#![allow(clippy::disallowed_macros)] // Commands talk on standard output and standard error.

mod apply;
mod check;
mod demo;
mod desk;
mod evaluate;
mod health;
mod import;
mod input;
mod keys;
mod migrate;
mod openapi;
pub mod operator;
mod pause;
mod progress;
mod results;
mod serve;
mod train;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::settings::{CONFIG_DEFAULT, CONFIG_ENV, SETTINGS, Setting};
use crate::config::{self, Loaded, Origin};
use crate::telemetry;

/// Low-latency personalization for e-commerce checkout.
#[derive(Debug, Parser)]
#[command(name = "cartwright", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers requests and turns the log into the warehouse, until told to stop.
    Serve,
    Demo(demo::Args),
    Import(import::Args),
    Evaluate(evaluate::Args),
    /// Tests the configuration and its connections without serving.
    Check,
    Apply(apply::Args),
    /// Lists the rulesets that were in force, the newest first.
    Rulesets,
    Rollback(apply::RollbackArgs),
    /// Switches an experience off, on every node within two seconds.
    Pause(pause::Args),
    /// Ends a pause.
    Resume(pause::Args),
    Results(results::Args),
    /// Builds the recommender's models anew from the warehouse, without waiting for the next refresh.
    Train,
    /// Brings the warehouse's schema up to date.
    Migrate,
    /// Asks the server on this machine whether it is ready; for a container's health check.
    Health,
    /// Prints the public API's contract.
    Openapi,
    /// Shows which keys exist and where they come from; prints new ones, and user tokens for tests.
    Keys(keys::Args),
}

/// Runs the command that `args` (with the program's name first) ask for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = command().get_matches_from(args);
    let parsed = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match dispatch(parsed.command, &matches) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cartwright: {}", whole(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each said once: many name their cause themselves.
fn whole(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn dispatch(command: Command, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    if let Command::Openapi = command {
        return openapi::run();
    }
    if let Command::Evaluate(args) = &command {
        return evaluate::run(args);
    }
    let loaded = load(matches)?;
    telemetry::init_logs(match command {
        // They show how far they are themselves.
        Command::Demo(_) | Command::Import(_) if !is_given(&loaded, "log") => "warn",
        _ => &loaded.config.log,
    })?;
    if !matches!(command, Command::Check) {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
    }
    match command {
        Command::Serve => serve::run(loaded.config),
        Command::Demo(args) => {
            let keep = is_given(&loaded, "data_dir");
            demo::run(&args, loaded.config, keep)
        }
        Command::Import(args) => import::run(&args, loaded.config),
        Command::Check => block_on(check::run(loaded)),
        Command::Apply(args) => block_on(apply::run(args, loaded.config)),
        Command::Results(args) => block_on(results::run(args, loaded.config)),
        Command::Train => block_on(train::run(loaded.config)),
        Command::Rulesets => block_on(apply::list(loaded.config)),
        Command::Rollback(args) => block_on(apply::rollback(args, loaded.config)),
        Command::Pause(args) => block_on(pause::run(args, true, loaded.config)),
        Command::Resume(args) => block_on(pause::run(args, false, loaded.config)),
        Command::Migrate => block_on(migrate::run(loaded.config)),
        Command::Health => block_on(health::run(loaded.config)),
        Command::Keys(args) => keys::run(&args, loaded.config),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Openapi => openapi::run(),
    }
}

/// Whether a setting was given, rather than left at its default.
fn is_given(loaded: &Loaded, key: &str) -> bool {
    loaded
        .settings
        .iter()
        .any(|given| given.key == key && given.origin != Origin::Default)
}

/// Runs a short command on this thread.
fn block_on<F: Future<Output = anyhow::Result<ExitCode>>>(command: F) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// The configuration under the flags of the command in `matches`.
fn load(matches: &ArgMatches) -> Result<Loaded, config::ConfigError> {
    let mut matches = matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let flags = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.key, matches.get_one::<String>(setting.key)?.clone())))
        .collect();
    config::load(flags, matches.get_one::<PathBuf>("config").cloned())
}

/// The flags' names; clap keeps references to them.
static FLAGS: LazyLock<Vec<String>> = LazyLock::new(|| SETTINGS.iter().map(Setting::flag).collect());

/// The whole command line: the commands, and every setting as a flag of each.
fn command() -> clap::Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .global(true)
        .help_heading("Settings")
        .help(format!(
            "The configuration file [env: {CONFIG_ENV}] [default: ./{CONFIG_DEFAULT}, if it is there]"
        ));
    let settings = SETTINGS.iter().zip(FLAGS.iter()).map(|(setting, flag)| {
        let default = match setting.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        let (key, env) = (setting.key, setting.env());
        Arg::new(setting.key)
            .long(flag.as_str())
            .value_name(setting.value)
            .global(true)
            .help_heading("Settings")
            // The short help stays short; the long one teaches.
            .hide_short_help(true)
            .help(format!("{} [env: {env}] [key: {key}]{default}", setting.help))
    });
    Cli::command()
        .arg(file)
        .args(settings)
        .after_help("`--help` shows every setting; `-h` leaves them out.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_teaches_every_setting_by_its_three_names() {
        let help = command()
            .find_subcommand_mut("serve")
            .unwrap()
            .clone()
            .render_long_help()
            .to_string();
        let whole = command().render_long_help().to_string();
        for setting in SETTINGS {
            for name in [
                format!("--{}", setting.flag()),
                setting.env(),
                setting.key.to_owned(),
            ] {
                assert!(whole.contains(&name), "{name} is missing in\n{whole}");
            }
        }
        assert!(!help.is_empty());
    }

    #[test]
    fn an_error_says_each_cause_once() {
        let error = anyhow::anyhow!("disk full")
            .context("the log: disk full")
            .context("no start");
        assert_eq!(whole(&error), "no start: the log: disk full");
    }

    #[test]
    fn flags_count_before_and_after_the_command() {
        for args in [
            ["cartwright", "--shop", "a", "check"],
            ["cartwright", "check", "--shop", "a"],
        ] {
            let matches = command().try_get_matches_from(args).unwrap();
            assert_eq!(load(&matches).unwrap().config.shop, "a");
        }
    }

    #[test]
    fn the_settings_table_names_every_default() {
        let table = settings::markdown();
        assert_eq!(table.lines().count(), SETTINGS.len() + 2);
        assert!(table.contains("| `queue.retain` | `CARTWRIGHT_QUEUE_RETAIN` | `1h` |"));
    }
}
