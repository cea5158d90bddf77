//! The service through HTTP against a bare axum server, in one run.
//!
//! ```text
//! cargo bench --bench http                  # everything, about five minutes
//! cargo bench --bench http -- --seconds 10 --rounds 5
//! cargo bench --bench http -- get post freshness footprint redis recommend experiences   # some parts
//! cargo bench --bench http -- postgres            # only when named: want an empty database each, BENCH_DATABASE_URL
//! cargo bench --bench http -- nodes --partitions 64
//! cargo bench --bench http -- profiles            # only when named: a million profiles take minutes to make
//! cargo bench --bench http -- soak --minutes 10   # only when named
//! cargo bench --bench http -- soak-nodes --minutes 10   # the same of two nodes and a worker on Redis and BENCH_DATABASE_URL
//! ```
//!
//! `redis` starts a private redis-server: reads of profiles from Redis, and from the near cache in front of it, against bare
//! handlers that do one such read; and events against a handler that adds them to a stream with `appendfsync always`.
//!
//! Requests are measured in the role `api`, so that the CPU time is theirs alone; the lane that follows the log has its
//! own benchmark (`drain`). Freshness is measured with both roles in one process on one core.
//!
//! Server on core 0, load generator on core 1; the servers under comparison take turns within each round, and
//! the medians of the rounds are compared. Absolute figures belong to the machine; the ratios are the result.
//! Each line of the table is also printed as JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_macros)] // a program that prints and gives up

mod bare;
mod freshness;
mod growth;
mod load;
mod networked;
mod recommend;
mod redis_server;
mod requests;
mod server;

use std::path::Path;
use std::time::Duration;

use load::{Pace, Plan, Report};
use requests::{closing, events_body, get, personalize, post, scatter};
use server::{PUBLIC_KEY, Server};

/// Shoppers with a profile.
const SHOPPERS: u64 = 10_000;

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub duration: Duration,
    pub rounds: usize,
}

/// One way to put load on a server.
struct Case<'a> {
    name: &'static str,
    connections: usize,
    pace: Pace,
    /// Events per request, where requests carry events.
    events: u64,
    expect: u16,
    ours: Box<dyn FnMut(u64) -> Vec<u8> + 'a>,
    bare: Box<dyn FnMut(u64) -> Vec<u8> + 'a>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, addr, folder, urls @ ..] = &args[..]
        && flag == "--bare"
    {
        let url = |scheme: &str| {
            urls.iter()
                .find(|url| url.starts_with(scheme))
                .map(String::as_str)
        };
        let (redis, postgres) = (url("redis:"), url("postgres:"));
        return bare::serve(
            addr.parse().expect("an address"),
            Path::new(folder),
            redis,
            postgres,
        );
    }
    let number = |flag: &str, default: u64| {
        let at = args.iter().position(|arg| arg == flag);
        at.and_then(|at| args.get(at + 1))
            .map_or(default, |value| value.parse().expect("a number"))
    };
    let effort = Effort {
        duration: Duration::from_secs(number("--seconds", 5)),
        rounds: number("--rounds", 3) as usize,
    };
    let (partitions, minutes) = (number("--partitions", 64), number("--minutes", 10));
    let parts = [
        "get",
        "post",
        "freshness",
        "footprint",
        "redis",
        "recommend",
        "experiences",
    ];
    let long = ["postgres", "nodes", "profiles", "soak", "soak-nodes"];
    let named = |part: &str| args.iter().any(|arg| arg == part);
    let wanted = |part: &str| named(part) || !parts.iter().chain(&long).any(|part| named(part));

    server::pin_to(1).expect("a second core for the load generator");
    let ruleset = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/http/ruleset.yaml");
    if wanted("footprint") {
        footprint(&ruleset);
    }
    if wanted("recommend") {
        recommend::measure(effort);
    }
    if wanted("redis") {
        against_redis(&ruleset, effort);
    }
    if wanted("experiences") {
        growth::experiences(&ruleset, effort);
    }
    if named("postgres") {
        networked::fallback(&ruleset, effort);
    }
    if named("nodes") {
        networked::across_nodes(&ruleset, partitions, effort);
    }
    if named("profiles") {
        growth::profiles(&ruleset, effort);
    }
    if named("soak") {
        growth::soak_alone(&ruleset, minutes);
    }
    if named("soak-nodes") {
        networked::soak(&ruleset, partitions, minutes);
    }
    if !["get", "post", "freshness"].into_iter().any(wanted) {
        return;
    }
    let (ours_folder, bare_folder) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let bare = Server::bare(bare_folder.path(), None, None);
    let both = Server::cartwright(ours_folder.path(), &ruleset, "api,drain");
    fill(&both);
    if wanted("freshness") {
        println!("\nFrom the 202 until the event shows");
        freshness::measure(&both, &both, &both, "freshness", effort);
    }
    drop(both);
    let ours = Server::cartwright(ours_folder.path(), &ruleset, "api");
    if wanted("get") {
        warm_up(&ours);
        println!(
            "\nGET /personalize from the hot store: three placements, twenty experiences, {SHOPPERS} shoppers"
        );
        println!("baseline: a bare axum handler that answers a constant of 1 KiB");
        get_cases()
            .into_iter()
            .for_each(|case| compare(&ours, &bare, case, effort));
    }
    if wanted("post") {
        println!("\nPOST /events, validated and durable, events of about 500 bytes");
        println!("baseline: a JSON syntax check and a bare group commit with fdatasync");
        post_cases()
            .into_iter()
            .for_each(|case| compare(&ours, &bare, case, effort));
    }
}

/// Profiles in Redis and events in its streams, on both sides of the comparison.
fn against_redis(ruleset: &Path, effort: Effort) {
    let folder = || tempfile::tempdir().expect("a folder");
    let (ours_folder, bare_folder) = (folder(), folder());
    let cache = redis_server::RedisServer::start(false);
    let bare = Server::bare(bare_folder.path(), Some(&cache.url), None);
    let near = |bytes: &'static str| {
        [
            ("CARTWRIGHT_HOT_URL", cache.url.clone()),
            ("CARTWRIGHT_NEAR_BYTES", bytes.to_owned()),
        ]
    };
    let start = |roles: &str, settings: [(&str, String); 2]| {
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        Server::cartwright_with(ours_folder.path(), ruleset, roles, &settings)
    };
    fill(&start("api,drain", near("0")));
    for (title, name, bytes, path) in [
        (
            "near cache off; baseline: a bare axum handler that does one Redis GET of 1 KiB",
            "redis",
            "0",
            "/redis/",
        ),
        (
            "near cache on; baseline: a bare axum handler that looks up 1 KiB in moka",
            "near",
            "64MiB",
            "/moka/",
        ),
    ] {
        let ours = start("api", near(bytes));
        warm_up(&ours);
        println!("\nGET /personalize, profiles in Redis, {title}");
        for (case, pace) in [("closed/64", Pace::Closed), ("open/10000", Pace::Open(10_000.0))] {
            let case = Case {
                name: format!("{name}/{case}").leak(),
                connections: 64,
                pace,
                events: 0,
                expect: 200,
                ours: Box::new(personalize),
                bare: Box::new(move |n| get(&format!("{path}{}", scatter(n) % SHOPPERS), PUBLIC_KEY)),
            };
            compare(&ours, &bare, case, effort);
        }
    }
    drop((bare, cache));

    let log = redis_server::RedisServer::start(true);
    let bare = Server::bare(bare_folder.path(), Some(&log.url), None);
    let log_folder = folder();
    let ours = Server::cartwright(log_folder.path(), ruleset, "api");
    println!(
        "\nPOST /events, log on disk; baseline: a bare axum handler that adds them to a Redis stream, appendfsync always"
    );
    for case in post_cases() {
        let events = case.events;
        let case = Case {
            name: case.name.replacen("post", "xadd", 1).leak(),
            bare: Box::new(move |n| post("/xadd", &events_body(n, events))),
            ..case
        };
        compare(&ours, &bare, case, effort);
    }
}

/// Asks for shoppers until the hot store holds nearly all of them.
fn warm_up(server: &Server) {
    let (mut mine, seconds) = (Box::new(personalize), 2);
    let effort = Effort {
        duration: Duration::from_secs(seconds),
        rounds: 1,
    };
    run(server, &(64, Pace::Closed, 200), &mut mine, effort);
}

fn get_cases() -> Vec<Case<'static>> {
    let case = |name, connections, pace| Case {
        name,
        connections,
        pace,
        events: 0,
        expect: 200,
        ours: Box::new(personalize),
        bare: Box::new(|_| get("/const", PUBLIC_KEY)),
    };
    vec![
        case("get/closed/64", 64, Pace::Closed),
        case("get/open/1000", 64, Pace::Open(1_000.0)),
        case("get/open/10000", 64, Pace::Open(10_000.0)),
    ]
}

fn post_cases() -> Vec<Case<'static>> {
    let case = |name, connections, pace, events| Case {
        name,
        connections,
        pace,
        events,
        expect: 202,
        ours: Box::new(move |n| post("/events", &events_body(n, events))),
        bare: Box::new(move |n| post("/wal", &events_body(n, events))),
    };
    vec![
        case("post/closed/1", 1, Pace::Closed, 1),
        case("post/closed/64", 64, Pace::Closed, 1),
        case("post/closed/16x100", 16, Pace::Closed, 100),
        case("post/open/10000", 64, Pace::Open(10_000.0), 1),
    ]
}

/// Runs a case on both servers in turn and prints the medians with their ratio.
fn compare(ours: &Server, bare: &Server, mut case: Case<'_>, effort: Effort) {
    let (mut mine, mut base) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        base.push(run(bare, &case.bare_parts(), &mut case.bare, effort));
        let parts = case.bare_parts();
        mine.push(run(ours, &parts, &mut case.ours, effort));
    }
    let figure = |name: &str, of: &dyn Fn(&Report) -> f64| {
        let (mine, base) = (median(mine.iter().map(of)), median(base.iter().map(of)));
        println!(
            "{:<20} {name:<14} {mine:>12.1} {base:>12.1}  x{:.2}",
            case.name,
            mine / base
        );
        println!(
            r#"{{"case":"{}","figure":"{name}","ours":{mine:.1},"bare":{base:.1}}}"#,
            case.name
        );
    };
    let units = case.events.max(1) as f64;
    figure(
        if case.events > 0 { "events/s" } else { "requests/s" },
        &|report| report.per_second * units,
    );
    figure("cpu us/request", &|report| report.cpu_us);
    for (name, q) in [("p50 us", 0.5), ("p90 us", 0.9), ("p99 us", 0.99)] {
        figure(name, &|report| report.quantile(q));
    }
    for (who, reports) in [("ours", &mine), ("the baseline", &base)] {
        let unexpected: u64 = reports.iter().map(|report| report.unexpected).sum();
        assert_eq!(unexpected, 0, "answers of {who} had an unexpected status");
    }
}

impl Case<'_> {
    fn bare_parts(&self) -> (usize, Pace, u16) {
        (self.connections, self.pace, self.expect)
    }
}

fn run(
    server: &Server,
    &(connections, pace, expect): &(usize, Pace, u16),
    request: &mut dyn FnMut(u64) -> Vec<u8>,
    effort: Effort,
) -> Report {
    load::run(Plan {
        addr: server.addr,
        connections,
        pace,
        warm_up: Duration::from_millis(500),
        duration: effort.duration,
        request,
        pid: server.pid(),
        expect,
    })
}

/// Start-up time on an empty stack, and memory with [`SHOPPERS`] profiles.
fn footprint(ruleset: &Path) {
    let starts = (0..5).map(|_| {
        let folder = tempfile::tempdir().expect("a folder");
        Server::cartwright(folder.path(), ruleset, "api,drain")
            .ready_after
            .as_secs_f64()
            * 1e3
    });
    let ready_ms = median(starts.collect::<Vec<_>>().into_iter());
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::cartwright(folder.path(), ruleset, "api,drain");
    fill(&server);
    let resident_mib = server.resident_mib();
    println!(
        "\nready after {ready_ms:.0} ms on an empty stack; {resident_mib:.0} MiB resident with {SHOPPERS} profiles"
    );
    println!(r#"{{"case":"footprint","ready_ms":{ready_ms:.0},"resident_mib":{resident_mib:.0}}}"#);
}

/// Gives every shopper a profile of some twenty events and the variant that the first answer assigns, and waits until all is in
/// the hot store. In the role `api` alone no lane would ever store an assignment, and each answer would fold it anew.
fn fill(server: &Server) {
    for n in 0..SHOPPERS * 20 / 500 {
        let answer = server::exchange(server.addr, &closing(post("/events", &events_body(n * 5, 500))));
        assert!(
            answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 202")),
            "the profiles could not be made"
        );
    }
    freshness::wait_until_applied(server);
    server::exchange_all(server.addr, (0..SHOPPERS).map(requests::personalize_for));
    freshness::wait_until_applied(server);
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
