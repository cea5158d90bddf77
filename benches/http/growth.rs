//! What grows with the shop: profiles, experiences, and memory over time.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::load::{self, Plan};
use super::redis_server::RedisServer;
use super::requests::{closing, events_body, personalize, personalize_for, post, scatter, unique};
use super::server::{Server, exchange};
use super::{Case, Effort, Pace, compare, fill, freshness};

/// Profiles on the larger side.
const MANY: u64 = 1_000_000;
/// Profiles on the smaller side.
const FEW: u64 = 10_000;

/// The CPU time of a request with a hundred times the profiles, all in Redis.
pub(crate) fn profiles(ruleset: &Path, effort: Effort) {
    let caches = [RedisServer::start(false), RedisServer::start(false)];
    let folders = [tempfile::tempdir(), tempfile::tempdir()].map(|folder| folder.expect("a folder"));
    let start = |at: usize, roles: &str| {
        // A near cache would hold the few and not the many.
        let settings = [
            ("CARTWRIGHT_HOT_URL", caches[at].url.as_str()),
            ("CARTWRIGHT_NEAR_BYTES", "0"),
        ];
        Server::cartwright_with(folders[at].path(), ruleset, roles, &settings)
    };
    for (at, count) in [(0, FEW), (1, MANY)] {
        let server = start(at, "api,drain");
        for first in (0..count).step_by(500) {
            let events: Vec<String> = (first..first + 500)
                .map(|shopper| {
                    let id = unique();
                    format!(r#"{{"event_id":"grow-{id}","event":"Product Viewed","user_id":"user-{shopper}","properties":{{"product_id":"22752"}}}}"#)
                })
                .collect();
            let body = format!("[{}]", events.join(","));
            // A full log says so and is asked again.
            while exchange(server.addr, &closing(post("/events", &body)))
                .is_none_or(|answer| !answer.starts_with("HTTP/1.1 202"))
            {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
        freshness::wait_until_applied(&server);
    }
    let (few, many) = (start(0, "api"), start(1, "api"));
    println!("\nGET /personalize with {MANY} profiles in Redis; baseline: Cartwright with {FEW}");
    let case = Case {
        name: "growth/profiles",
        connections: 64,
        pace: Pace::Closed,
        events: 0,
        expect: 200,
        ours: Box::new(|n| personalize_for(scatter(n) % MANY)),
        bare: Box::new(|n| personalize_for(scatter(n) % FEW)),
    };
    compare(&many, &few, case, effort);
}

/// The CPU time of a request with fifty times the experiences, whose 300 conditions match nobody.
pub(crate) fn experiences(ruleset: &Path, effort: Effort) {
    let text = std::fs::read_to_string(ruleset).expect("the ruleset");
    let folders = [tempfile::tempdir(), tempfile::tempdir()].map(|folder| folder.expect("a folder"));
    let mut large = text;
    for n in 0..980 {
        let at = n % 280;
        write!(
            large,
            "  - id: other-{n}\n    placement: promo\n    priority: {n}\n    when: \"request.country == 'X{at}' && profile.orders >= {at}\"\n    payload: {{headline: other}}\n"
        )
        .expect("text");
    }
    let larger = folders[1].path().join("ruleset.yaml");
    std::fs::write(&larger, large).expect("the ruleset");
    let start = |at: usize, roles: &str| {
        let ruleset = if at == 0 { ruleset } else { &larger };
        Server::cartwright(folders[at].path(), ruleset, roles)
    };
    for at in [0, 1] {
        fill(&start(at, "api,drain"));
    }
    let (few, many) = (start(0, "api"), start(1, "api"));
    println!(
        "\nGET /personalize with 1,000 experiences of some 300 conditions; baseline: Cartwright with 20"
    );
    let case = Case {
        name: "growth/experiences",
        connections: 64,
        pace: Pace::Closed,
        events: 0,
        expect: 200,
        ours: Box::new(personalize),
        bare: Box::new(personalize),
    };
    compare(&many, &few, case, effort);
}

/// A soak of the embedded stack.
pub(crate) fn soak_alone(ruleset: &Path, minutes: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    soak(
        &[&Server::cartwright(folder.path(), ruleset, "api,drain")],
        minutes,
    );
}

/// Nine answers to one event, at half of what the first of `servers` sustains together with the lane, for `minutes`: the memory of each every
/// half minute.
pub(crate) fn soak(servers: &[&Server], minutes: u64) {
    let [server, ..] = servers else { return };
    fill(server);
    let mut mixed = |n: u64| match n % 10 {
        0 => post("/events", &events_body(n, 1)),
        _ => personalize(n),
    };
    let mut run = |pace, seconds| {
        load::run(Plan {
            addr: server.addr,
            connections: 64,
            pace,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(seconds),
            request: &mut mixed,
            pid: server.pid(),
            expect: 0,
        })
    };
    let started = Instant::now();
    let burst = run(Pace::Closed, 10);
    freshness::wait_until_applied(server);
    let sustained = burst.per_second * 10.0 / started.elapsed().as_secs_f64();
    println!(
        "\nSoak: {:.0} requests/s in a burst, {sustained:.0} sustained with the lane; half of that for {minutes} minutes",
        burst.per_second
    );
    let mut sizes = Vec::new();
    for half_minute in 1..=minutes * 2 {
        let report = run(Pace::Open(sustained / 2.0), 30);
        let resident: Vec<f64> = servers
            .iter()
            .map(|server| server.resident_mib().round())
            .collect();
        println!(
            r#"{{"case":"soak","minute":{:.1},"requests_per_second":{:.0},"p50_us":{:.0},"p99_us":{:.0},"resident_mib":{resident:?}}}"#,
            half_minute as f64 / 2.0,
            report.per_second,
            report.quantile(0.5),
            report.quantile(0.99)
        );
        sizes.push(resident);
    }
    for node in 0..servers.len() {
        let resident: Vec<_> = sizes.iter().map(|sizes| sizes[node]).collect();
        println!("resident: {resident:?} MiB");
    }
}
