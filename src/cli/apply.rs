//! `cartwright apply`, `rollback` and `rulesets`: which ruleset is in force.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;
use similar::TextDiff;

use super::desk::Desk;
use crate::app::{self, RulesetEntry};
use crate::config::Config;

/// Shows what a ruleset changes, asks, and puts it in force.
///
/// A file with a mistake is refused whole, with every mistake. Works through the server where one runs, else straight on the
/// warehouse; every node follows within two seconds.
///
/// Example: cartwright apply -f ruleset.yaml --dry-run
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The ruleset.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Don't ask; for machines.
    #[arg(short, long)]
    yes: bool,
    /// Make the decisions recorded lately again under this ruleset, say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// How far back a dry run goes.
    #[arg(long, value_name = "N", default_value_t = 24, requires = "dry_run")]
    hours: u32,
}

/// Puts an earlier ruleset in force again, as a new version; shows what that changes, and asks.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// As `cartwright rulesets` lists it.
    #[arg(value_name = "VERSION")]
    version: u64,
    /// Don't ask; for machines.
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let source = app::read_ruleset(&args.file)?;
    let name = args.file.display().to_string();
    let mut desk = Desk::open(config).await;
    if args.dry_run {
        let run = desk.dry_run(&source, args.hours).await?;
        print!("{}", dry_run(&run, args.hours));
        return Ok(ExitCode::SUCCESS);
    }
    let newest = desk.rulesets().await?.into_iter().next();
    put_in_force(&mut desk, newest.as_ref(), &source, &name, args.yes).await
}

pub(super) async fn rollback(args: RollbackArgs, config: Config) -> anyhow::Result<ExitCode> {
    let mut desk = Desk::open(config).await;
    let kept = desk.rulesets().await?;
    let Some(earlier) = kept.iter().find(|one| one.version == args.version) else {
        bail!(
            "there is no ruleset version {}; `cartwright rulesets` lists them",
            args.version
        );
    };
    let name = format!("version {}", args.version);
    put_in_force(&mut desk, kept.first(), &earlier.source, &name, args.yes).await
}

pub(super) async fn list(config: Config) -> anyhow::Result<ExitCode> {
    let kept = Desk::open(config).await.rulesets().await?;
    println!("{:>7}  {:<24}  {:>6}", "version", "applied", "lines");
    for (place, one) in kept.iter().enumerate() {
        let mark = if place == 0 { "  in force" } else { "" };
        println!(
            "{:>7}  {:<24}  {:>6}{mark}",
            one.version,
            one.created_at,
            one.source.lines().count()
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn put_in_force(
    desk: &mut Desk,
    newest: Option<&RulesetEntry>,
    source: &str,
    name: &str,
    yes: bool,
) -> anyhow::Result<ExitCode> {
    let former = newest.map_or("", |newest| &newest.source);
    if let Some(newest) = newest.filter(|newest| newest.source == source) {
        println!("{name} is in force as version {} already", newest.version);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", diff(former, source));
    if !yes && !confirmed()? {
        println!("nothing was changed");
        return Ok(ExitCode::from(2));
    }
    let version = desk.apply(source).await?;
    println!("{name} is in force as version {version}");
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// Where nobody can be asked.
fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here, and nothing was changed; `--yes` puts it in force without asking");
    }
    print!("\nPut it in force? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The lines that change, with two around them.
fn diff(former: &str, source: &str) -> String {
    TextDiff::from_lines(former, source)
        .unified_diff()
        .context_radius(2)
        .header("in force", "new")
        .to_string()
}

/// What a dry run found, for people.
fn dry_run(run: &Value, hours: u32) -> String {
    let count = |value: &Value, member: &str| value[member].as_u64().unwrap_or(0);
    let text = |value: &Value, member: &str| shortened(value[member].as_str().unwrap_or_default());
    let mut out = format!(
        "of {} decisions recorded in the last {hours} h, {} would change\n",
        count(run, "decisions"),
        count(run, "changed"),
    );
    for change in run["changes"].as_array().into_iter().flatten() {
        out.push_str(&format!(
            "{:>8}  {}: {} -> {}\n",
            count(change, "decisions"),
            text(change, "placement"),
            text(change, "from"),
            text(change, "to"),
        ));
    }
    if count(run, "unreadable") > 0 {
        out.push_str(&format!(
            "{} records could not be read\n",
            count(run, "unreadable")
        ));
    }
    out
}

/// Payloads may be long, and a line is for the eye.
fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_shows_what_changes() {
        let diff = diff("a\nb\nc\nd\ne\n", "a\nb\nc\nx\ne\n");
        assert_eq!(
            diff,
            "--- in force\n+++ new\n@@ -2,4 +2,4 @@\n b\n c\n-d\n+x\n e\n"
        );
    }

    #[test]
    fn a_dry_run_is_told_in_lines() {
        let run = json!({"decisions": 9, "changed": 4, "unreadable": 1, "changes": [
            {"placement": "promo", "from": "nudge/a", "to": "no_match", "decisions": 4}]});
        let expected = "of 9 decisions recorded in the last 24 h, 4 would change\n       4  promo: nudge/a -> no_match\n1 records could not be read\n";
        assert_eq!(dry_run(&run, 24), expected);
        assert_eq!(shortened(&"é".repeat(101)), "é".repeat(100) + "…");
    }
}
