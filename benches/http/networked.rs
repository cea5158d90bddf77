//! Several servers on shared stores: profiles from PostgreSQL while Redis is away, and freshness through another node.
//!
//! Wants `BENCH_DATABASE_URL`, the URL of an empty database.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::redis_server::RedisServer;
use super::requests::{get, personalize, personalize_for, scatter};
use super::server::{PUBLIC_KEY, Server};
use super::{Case, Effort, Pace, SHOPPERS, compare, fill, freshness, growth};

/// The database, where one is named.
#[allow(
    clippy::disallowed_methods,
    reason = "the environment says where the database is"
)]
fn database() -> Option<String> {
    let url = std::env::var("BENCH_DATABASE_URL").ok();
    match &url {
        None => println!("\nBENCH_DATABASE_URL names no empty database"),
        Some(url) => {
            let mut migrate = Command::new(env!("CARGO_BIN_EXE_cartwright"));
            let status = migrate
                .arg("migrate")
                .env("CARTWRIGHT_WAREHOUSE_URL", url)
                .status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "the schema is not there"
            );
        }
    }
    url
}

/// Profiles from PostgreSQL: every read, since Redis is away; and every read after a miss in Redis.
pub(crate) fn fallback(ruleset: &Path, effort: Effort) {
    let Some(url) = database() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let bare_folder = tempfile::tempdir().expect("a folder");
    let cache = RedisServer::start(false);
    let bare = Server::bare(bare_folder.path(), None, Some(&url));
    let start = |roles: &str| {
        let settings = [
            ("CARTWRIGHT_HOT_URL", cache.url.as_str()),
            ("CARTWRIGHT_WAREHOUSE_URL", url.as_str()),
            ("CARTWRIGHT_NEAR_BYTES", "0"),
        ];
        Server::cartwright_with(folder.path(), ruleset, roles, &settings)
    };
    fill(&start("api,drain"));
    let ours = start("api");
    let select = |n: u64| get(&format!("/postgres/{}", scatter(n) % SHOPPERS), PUBLIC_KEY);
    let case = |name, pace, ours: Box<dyn FnMut(u64) -> Vec<u8>>| Case {
        name,
        connections: 64,
        pace,
        events: 0,
        expect: 200,
        ours,
        bare: Box::new(select),
    };
    println!(
        "\nGET /personalize, near cache off; baseline: a bare axum handler that does one SELECT by primary key with sqlx"
    );

    println!("Redis answers and holds nothing: GET, SELECT, write-back");
    let client = redis::Client::open(cache.url.as_str()).expect("a Redis URL");
    let mut emptied = client.get_connection().expect("a connection");
    let missing = move |n: u64| {
        if n.is_multiple_of(SHOPPERS / 4) {
            let () = redis::cmd("FLUSHALL")
                .query(&mut emptied)
                .expect("an empty Redis");
        }
        // One after the other, so that none comes twice before the next flush.
        let shopper = n % SHOPPERS;
        personalize_for(shopper)
    };
    compare(
        &ours,
        &bare,
        case("miss/closed/64", Pace::Closed, Box::new(missing)),
        effort,
    );

    println!("Redis is away, its breaker open: SELECT alone");
    drop(cache);
    for (name, pace) in [
        ("fallback/closed/64", Pace::Closed),
        ("fallback/open/5000", Pace::Open(5_000.0)),
    ] {
        compare(&ours, &bare, case(name, pace, Box::new(personalize)), effort);
    }
}

/// Nodes on one Redis for profiles, one for the log, and one database.
struct Nodes {
    takes: Server,
    answers: Server,
    worker: Server,
    _cache: RedisServer,
    _log: RedisServer,
    _folders: [TempDir; 3],
}

impl Nodes {
    fn start(ruleset: &Path, partitions: u64) -> Option<Nodes> {
        let url = database()?;
        let (cache, log) = (RedisServer::start(false), RedisServer::start(true));
        let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        let count = partitions.to_string();
        let start = |node: usize, roles: &str| {
            let settings = [
                ("CARTWRIGHT_HOT_URL", cache.url.as_str()),
                ("CARTWRIGHT_QUEUE_URL", log.url.as_str()),
                ("CARTWRIGHT_QUEUE_PARTITIONS", count.as_str()),
                ("CARTWRIGHT_WAREHOUSE_URL", url.as_str()),
            ];
            Server::cartwright_with(folders[node].path(), ruleset, roles, &settings)
        };
        Some(Nodes {
            worker: start(2, "drain"),
            takes: start(0, "api"),
            answers: start(1, "api"),
            _cache: cache,
            _log: log,
            _folders: folders,
        })
    }
}

/// An event sent to one node, asked for at another, one worker.
pub(crate) fn across_nodes(ruleset: &Path, partitions: u64, effort: Effort) {
    let Some(nodes) = Nodes::start(ruleset, partitions) else {
        return;
    };
    println!(
        "\nFrom the 202 of one node until the event shows in an answer of another; log of {partitions} partitions in Redis, \
         appendfsync always"
    );
    freshness::measure(&nodes.takes, &nodes.answers, &nodes.worker, "nodes", effort);
}

/// A soak of one node, while another hears what it takes and a worker drains it.
pub(crate) fn soak(ruleset: &Path, partitions: u64, minutes: u64) {
    let Some(nodes) = Nodes::start(ruleset, partitions) else {
        return;
    };
    growth::soak(&[&nodes.takes, &nodes.answers, &nodes.worker], minutes);
}
