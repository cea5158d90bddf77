//! What a Redis server that is to hold the log or the hot profiles says of itself: whether it answers, and whether it
//! would lose or drop what it is given.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind};

use super::{Found, good, note, problem};
use crate::config::StoreUrl;

/// How long the server may take to be connected to, and to answer. Higher: `check` keeps people waiting on a server
/// that is away. Lower: a busy one is taken for dead.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is kept there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Acknowledged events: losing one breaks a promise.
    Log,
    /// Copies of what the warehouse has; and where nodes share a log, what they tell each other.
    Cache { nodes_tell: bool },
}

pub(super) async fn check(url: &StoreUrl, used: Use) -> Found {
    let asked = tokio::time::timeout(PATIENCE * 2, ask(url.expose()));
    match asked.await {
        Ok(Ok(server)) => judge(url, used, &server),
        // The client's errors name the place at most; `detail` might quote what it was given.
        Ok(Err(error)) => away(url, error.category()),
        Err(_) => away(url, "no answer"),
    }
}

fn away(url: &StoreUrl, reason: &str) -> Found {
    problem(format_args!(
        "{url} does not answer ({reason}); a node starts without it, and waits for it"
    ))
}

/// What the server told; empty where it does not tell.
#[derive(Debug, Default)]
struct Server {
    persistence: String,
    memory: String,
    fsync: String,
    /// It forbids what nodes tell each other by, see `crate::broadcast`.
    is_silent: bool,
}

async fn ask(url: &str) -> Result<Server, RedisError> {
    let client = Client::open(first_node(url))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let () = redis::cmd("PING").query_async(&mut connection).await?;
    Ok(Server {
        persistence: info(&mut connection, "persistence").await,
        memory: info(&mut connection, "memory").await,
        fsync: fsync(&mut connection).await,
        is_silent: is_silent(&mut connection).await,
    })
}

/// Hosted servers may forbid it; what they don't tell is not judged.
async fn info(connection: &mut MultiplexedConnection, section: &str) -> String {
    let mut command = redis::cmd("INFO");
    command
        .arg(section)
        .query_async(connection)
        .await
        .unwrap_or_default()
}

async fn fsync(connection: &mut MultiplexedConnection) -> String {
    let mut command = redis::cmd("CONFIG");
    let told: Result<Vec<String>, _> = command
        .arg("GET")
        .arg("appendfsync")
        .query_async(connection)
        .await;
    told.unwrap_or_default().pop().unwrap_or_default()
}

/// Whether this user may not publish. Nobody listens to this channel.
async fn is_silent(connection: &mut MultiplexedConnection) -> bool {
    let mut publish = redis::cmd("PUBLISH");
    let published: Result<(), _> = publish
        .arg("cartwright:taken:check")
        .arg("")
        .query_async(connection)
        .await;
    published.is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm))
}

/// One node of a cluster, as a URL of its own: all are configured alike.
fn first_node(url: &str) -> String {
    let first = url.split(',').next().unwrap_or(url);
    match first.split_once("://") {
        Some((scheme, place)) => format!("{}://{place}", scheme.trim_end_matches("-cluster")),
        None => first.to_owned(),
    }
}

impl Server {
    /// The value of `name` in the sections; empty where it was not told.
    fn get(&self, name: &str) -> &str {
        [&self.persistence, &self.memory]
            .into_iter()
            .flat_map(|section| section.lines())
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
    }
}

fn judge(url: &StoreUrl, used: Use, server: &Server) -> Found {
    let mut said = Vec::new();
    let policy = server.get("maxmemory_policy");
    let evicts = !policy.is_empty() && policy != "noeviction";
    if used == Use::Log {
        match (server.get("aof_enabled"), server.fsync.as_str()) {
            ("0", _) => said.push(
                "appendonly is off: a restart of this server loses acknowledged events since its last snapshot, all \
                 of them where it takes none; set appendonly yes"
                    .to_owned(),
            ),
            ("1", "no") => said.push(
                "appendfsync is no: a crash of its machine loses what the system had not written, some 30 s of \
                 acknowledged events; set it to always, or everysec"
                    .to_owned(),
            ),
            ("1", "everysec") => said.push(
                "appendfsync is everysec: a crash of its machine loses up to two seconds of acknowledged events; \
                 always loses none"
                    .to_owned(),
            ),
            ("1", "always") => {}
            _ => said.push("it does not tell how durable it is: see its appendonly and appendfsync".to_owned()),
        }
        if evicts {
            let limited = match server.get("maxmemory") {
                "0" | "" => ", once maxmemory is set",
                _ => "",
            };
            let endangered = match policy.starts_with("volatile") {
                true => "only keys with a TTL, which the log's have not: the log is safe, if it leaves room",
                false => {
                    "any key: the log's streams go as well, with events that no view has seen; set noeviction"
                }
            };
            said.push(format!("maxmemory-policy {policy} evicts {endangered}{limited}"));
        }
    } else if policy == "noeviction" && !matches!(server.get("maxmemory"), "0" | "") {
        said.push(
            "maxmemory-policy is noeviction: once it is full, profiles are no longer stored and every read goes to \
             the warehouse; volatile-lru suits a cache"
                .to_owned(),
        );
    }
    if used == (Use::Cache { nodes_tell: true }) && server.is_silent {
        said.push(
            "its user may not publish on cartwright:taken:*, so an event shows on other nodes only after the lane: \
             ACL SETUSER … &cartwright:taken:* +publish +subscribe"
                .to_owned(),
        );
    }
    match said.is_empty() {
        true => good(url.to_string()),
        false => note(format!("{url}: {}", said.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn judged(used: Use, persistence: &str, memory: &str, fsync: &str) -> Found {
        let server = Server {
            persistence: persistence.to_owned(),
            memory: memory.to_owned(),
            fsync: fsync.to_owned(),
            is_silent: false,
        };
        judge(&StoreUrl::new("redis://:hunter2@cache"), used, &server)
    }

    const KEEPS: &str = "maxmemory:0\r\nmaxmemory_policy:noeviction\r\n";

    #[test]
    fn a_log_that_could_be_lost_is_noted() {
        let (verdict, detail) = judged(Use::Log, "aof_enabled:1\r\n", KEEPS, "always");
        assert_eq!((verdict, &*detail), (Verdict::Good, "redis://:…@cache"));
        for (persistence, memory, fsync, expected) in [
            ("aof_enabled:0\r\n", KEEPS, "everysec", "appendonly is off"),
            ("aof_enabled:1\r\n", KEEPS, "everysec", "two seconds"),
            ("aof_enabled:1\r\n", KEEPS, "no", "appendfsync is no"),
            ("", KEEPS, "", "does not tell"),
            (
                "aof_enabled:1\r\n",
                "maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n",
                "always",
                "the log's streams go as well",
            ),
        ] {
            let (verdict, detail) = judged(Use::Log, persistence, memory, fsync);
            assert_eq!(verdict, Verdict::Note);
            assert!(
                detail.contains(expected) && !detail.contains("hunter2"),
                "{detail}"
            );
        }
    }

    #[test]
    fn a_cache_may_lose_what_it_likes_and_should_not_fill_up() {
        let lossy = judged(
            Use::Cache { nodes_tell: true },
            "aof_enabled:0\r\n",
            "maxmemory:9\r\nmaxmemory_policy:allkeys-lru\r\n",
            "",
        );
        assert_eq!(lossy.0, Verdict::Good, "{lossy:?}");
        let full = judged(
            Use::Cache { nodes_tell: true },
            "",
            "maxmemory:9\r\nmaxmemory_policy:noeviction\r\n",
            "",
        );
        assert_eq!(full.0, Verdict::Note, "{full:?}");
    }

    #[test]
    fn a_cluster_is_asked_by_its_first_node() {
        assert_eq!(first_node("redis-cluster://:p@a:1,b:2"), "redis://:p@a:1");
        assert_eq!(first_node("rediss://a"), "rediss://a");
    }
}
