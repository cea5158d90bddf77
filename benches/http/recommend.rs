//! Session recommendations through HTTP, on the session files that the method's authors publish.

use std::fs::File;
use std::path::Path;

use cartwright::domain::recommend::sessions::Interaction;
use cartwright::import::sessions;
use flate2::read::MultiGzDecoder;

use super::requests::{closing, get, post};
use super::server::{PUBLIC_KEY, Server, exchange};
use super::{Case, Effort, Pace, compare, freshness};

const RULESET: &str = "version: 1
currency: GBP
placements:
  upsell: {kind: recommendation, limit: 20, fallback: [none]}
";

/// Items of a session that a request names: as many as the index looks at.
const NAMED: usize = 4;

/// Needs `CARTWRIGHT_DATASETS`, a folder with `sessions_train.tsv.gz` and `sessions_valid.tsv.gz`.
#[allow(
    clippy::disallowed_methods,
    reason = "the environment says where the data are"
)]
pub(crate) fn measure(effort: Effort) {
    let Some(folder) = std::env::var_os("CARTWRIGHT_DATASETS") else {
        println!("\nrecommend: CARTWRIGHT_DATASETS names no folder with the session files");
        return;
    };
    let read = |name: &str| {
        let file = File::open(Path::new(&folder).join(name)).expect("the session files");
        let mut sessions = sessions::interactions(MultiGzDecoder::new(file), |_| {}).expect("sessions");
        sessions.sort_by_key(|one| (one.session, one.at));
        sessions
    };
    let (train, valid) = (read("sessions_train.tsv.gz"), read("sessions_valid.tsv.gz"));
    let data = tempfile::tempdir().expect("a folder");
    let ruleset = data.path().join("ruleset.yaml");
    std::fs::write(&ruleset, RULESET).expect("the ruleset");
    let ours = Server::cartwright(data.path(), &ruleset, "api,drain");
    let bare = Server::bare(data.path(), None, None);
    teach(&ours, &train);

    let asked = questions(&valid);
    println!(
        "\nGET /personalize, 20 session recommendations: {} interactions learnt, {} questions",
        train.len(),
        asked.len()
    );
    println!("baseline: a bare axum handler that answers a constant of 1 KiB");
    for (name, pace) in [
        ("recommend/closed/64", Pace::Closed),
        ("recommend/open/1000", Pace::Open(1_000.0)),
        ("recommend/open/15000", Pace::Open(15_000.0)),
    ] {
        let case = Case {
            name,
            connections: 64,
            pace,
            events: 0,
            expect: 200,
            ours: Box::new(|n| asked[n as usize % asked.len()].clone()),
            bare: Box::new(|_| get("/const", PUBLIC_KEY)),
        };
        compare(&ours, &bare, case, effort);
    }
}

/// Sends the sessions as events, waits until they are in the warehouse, and has them learnt.
fn teach(server: &Server, train: &[Interaction]) {
    for (batch, interactions) in train.chunks(500).enumerate() {
        let events = interactions.iter().enumerate().map(|(n, one)| {
            let Interaction { session, item, at } = one;
            let timestamp = cartwright::domain::time::format_rfc3339(cartwright::domain::ids::Timestamp(*at));
            format!(
                r#"{{"event":"Product Viewed","event_id":"{batch}-{n}","session_id":"{session}","anonymous_id":"{session}","timestamp":"{timestamp}","properties":{{"sku":"{item}"}}}}"#
            )
        });
        let body = format!("[{}]", events.collect::<Vec<_>>().join(","));
        let answer = exchange(server.operator, &closing(post("/operator/v1/events", &body)));
        assert!(
            answer
                .as_ref()
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
            "the sessions could not be sent: {answer:?}"
        );
    }
    freshness::wait_until_applied(server);
    let trained = exchange(server.operator, &closing(post("/operator/v1/train", "")));
    println!(
        "{}",
        trained
            .as_deref()
            .and_then(|answer| answer.lines().last())
            .unwrap_or("not trained")
    );
}

/// For each item of each session but the first, the items before it, as a cart.
fn questions(valid: &[Interaction]) -> Vec<Vec<u8>> {
    let sessions = valid.chunk_by(|a, b| a.session == b.session);
    let prefixes =
        sessions.flat_map(|session| (1..session.len()).map(|at| &session[at.saturating_sub(NAMED)..at]));
    prefixes
        .map(|items| {
            let lines: Vec<String> = items.iter().map(|one| format!("{}:1", one.item)).collect();
            get(
                &format!("/personalize?placements=upsell&cart={}", lines.join(",")),
                PUBLIC_KEY,
            )
        })
        .collect()
}
