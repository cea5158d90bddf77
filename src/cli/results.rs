//! `cartwright results ID`: what an experiment has achieved, as a table. Asks the server on this machine.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::operator::{OperatorClient, expect_success};
use crate::config::Config;

/// Shows what an experiment has achieved: per variant its subjects, conversions and revenue, compared with the control.
///
/// An interval in brackets holds the true difference at every moment, with the confidence stated: look whenever you like. A sample
/// ratio that does not match means that subjects are lost or added somewhere, and nobody wins.
///
/// Example: cartwright results free-shipping-nudge
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The experiment: the experience's id.
    #[arg(value_name = "ID")]
    id: String,
    /// Print the API's answer as it is.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if args.id.is_empty() || !args.id.bytes().all(legal) {
        bail!("an experience's id is made of a-z, A-Z, 0-9, '-', '_' and '.'");
    }
    let Some(mut server) = OperatorClient::connect(&config.operator_listen).await else {
        bail!(
            "nobody listens at {}; results come from a running server (`cartwright serve`)",
            config.operator_listen
        );
    };
    let path = format!("/operator/v1/experiments/{}/results", args.id);
    let body = expect_success(server.get(&path).await?)?;
    if args.json {
        println!("{}", String::from_utf8_lossy(&body));
        return Ok(ExitCode::SUCCESS);
    }
    let results: Value = serde_json::from_slice(&body).context("the server's answer")?;
    print!("{}", table(&results));
    Ok(ExitCode::SUCCESS)
}

/// The answer for people.
fn table(results: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let currency = text(&results["currency"]);
    let mut out = format!(
        "{}: {} within {} days\n\n{:<20} {:>9} {:>9} {:>8}  {:<32} {:>10}  {}\n",
        text(&results["experiment"]),
        text(&results["goal"]["event"]),
        number(&results["goal"]["within_days"]),
        "variant",
        "subjects",
        "converted",
        "rate",
        "against the control",
        format!("{currency}/head"),
        "against the control",
    );
    for variant in results["variants"].as_array().into_iter().flatten() {
        let rate = compared(&variant["conversion_rate_versus_control"], 100.0, " %");
        let revenue = compared(&variant["revenue_per_subject_versus_control"], 1.0, "");
        let line = format!(
            "{:<20} {:>9} {:>9} {:>6.2} %  {:<32} {:>10.2}  {}",
            text(&variant["variant"]),
            number(&variant["subjects"]),
            number(&variant["conversions"]),
            number(&variant["conversion_rate"]) * 100.0,
            rate,
            number(&variant["revenue_per_subject"]),
            revenue,
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let verdict = match results["verdict"].as_str() {
        Some("winner") => format!("{} wins", text(&results["winner"])),
        Some("sample_ratio_mismatch") => {
            let p = number(&results["sample_ratio"]["p_value"]);
            format!(
                "the counts contradict the shares (p = {p:.1e}): subjects are lost or added somewhere, so nobody wins"
            )
        }
        _ => "no winner yet".to_owned(),
    };
    out.push_str(&format!(
        "\n{verdict}\n{:.0} % confidence, valid at every look · {} crossovers left out · {} exposures lost\n",
        number(&results["confidence_level"]) * 100.0,
        number(&results["crossovers"]),
        number(&results["lost_exposures"]),
    ));
    out
}

fn compared(by: &Value, scale: f64, unit: &str) -> String {
    let number = |member: &str| by[member].as_f64().map(|value| value * scale);
    match (number("difference"), number("low"), number("high")) {
        (Some(by), Some(low), Some(high)) => format!("{by:+.2}{unit} [{low:+.2}, {high:+.2}]"),
        (Some(_), ..) => "too few subjects".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_says_what_was_found() {
        let compared = json!({"difference": 0.02, "low": 0.01, "high": 0.03, "significant": true});
        let results = json!({
            "experiment": "nudge", "goal": {"event": "Order Completed", "within_days": 7.0}, "currency": "GBP",
            "variants": [
                {"variant": "a", "subjects": 1000, "conversions": 100, "conversion_rate": 0.1, "revenue_per_subject": 1.5},
                {"variant": "b", "subjects": 1010, "conversions": 121, "conversion_rate": 0.12, "revenue_per_subject": 1.75,
                 "conversion_rate_versus_control": compared, "revenue_per_subject_versus_control": {"difference": 0.25}},
            ],
            "crossovers": 2, "lost_exposures": 1, "confidence_level": 0.95, "verdict": "winner", "winner": "b",
        });
        let table = table(&results);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[3],
            "a                         1000       100  10.00 %                                         1.50"
        );
        assert!(
            lines[4].contains("+2.00 % [+1.00, +3.00]") && lines[4].ends_with("too few subjects"),
            "{table}"
        );
        assert_eq!(lines[6], "b wins");
        assert!(lines[7].starts_with("95 % confidence"), "{table}");
    }
}
