//! `cartwright check`: would `serve` start with this configuration, and on what?

use std::process::ExitCode;

use crate::app::check::{self, Verdict};
use crate::config::{Loaded, Origin};

pub(super) async fn run(loaded: Loaded) -> anyhow::Result<ExitCode> {
    let given = loaded
        .settings
        .iter()
        .filter(|setting| setting.origin != Origin::Default);
    println!("Settings that are not at their defaults:");
    let mut none = true;
    for setting in given {
        none = false;
        println!("  {:<20} {:<40} {}", setting.key, setting.text, setting.origin);
    }
    if none {
        println!("  none");
    }
    let mut checks: Vec<_> = loaded
        .warnings
        .iter()
        .map(|warning| check::Check {
            what: "configuration",
            verdict: Verdict::Note,
            detail: warning.clone(),
        })
        .collect();
    checks.extend(Box::pin(check::run(&loaded.config)).await);
    println!("Checks:");
    for check in &checks {
        println!(
            "  {:<8} {:<16} {}",
            check.verdict.to_string(),
            check.what,
            check.detail
        );
    }
    let problems = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Problem)
        .count();
    match problems {
        0 => {
            println!("`cartwright serve` can start.");
            Ok(ExitCode::SUCCESS)
        }
        1 => {
            println!("1 problem.");
            Ok(ExitCode::FAILURE)
        }
        count => {
            println!("{count} problems.");
            Ok(ExitCode::FAILURE)
        }
    }
}
