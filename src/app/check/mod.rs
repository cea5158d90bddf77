//! Would a start succeed? Opens what a start would open, in the same order, changes as little as it can, and goes
//! on after a problem, so that one run shows them all.
//!
//! What is not there yet is not made: an absent log or warehouse is reported as such. A log that is there is
//! opened as a start would, and so loses the torn end that a crash may have left.
//!
//! A store that other nodes share need not answer for a node to start. That it does not is a problem all the same:
//! whoever runs a check wants to know. Every wait is bounded.

mod redis;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::{backends, rules};
use crate::config::{Config, key_file};
use crate::listener::Listener;
use crate::queue::OpenError as QueueError;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Worth knowing; a start succeeds all the same.
    Note,
    /// A start would fail, or be without a store.
    Problem,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Problem => "PROBLEM",
        })
    }
}

/// One thing checked.
#[derive(Debug, Clone)]
pub struct Check {
    pub what: &'static str,
    pub verdict: Verdict,
    pub detail: String,
}

/// How long a shared warehouse may take to answer. Higher keeps people waiting, lower takes a busy one for dead.
const PATIENCE: Duration = Duration::from_secs(5);

type Found = (Verdict, String);

fn good(detail: impl Into<String>) -> Found {
    (Verdict::Good, detail.into())
}

fn note(detail: impl Into<String>) -> Found {
    (Verdict::Note, detail.into())
}

fn problem(error: impl fmt::Display) -> Found {
    (Verdict::Problem, error.to_string())
}

/// Runs every check.
pub async fn run(config: &Config) -> Vec<Check> {
    let mut config = config.clone();
    let (log, served) = check_log(&config).await;
    let found = [
        ("data folder", check_folder(&config.data_dir)),
        ("keys", check_keys(&mut config)),
        (
            "listen",
            check_socket(&config.listen, config.roles.api, served).await,
        ),
        (
            "operator_listen",
            check_socket(&config.operator_listen, true, served).await,
        ),
        ("log", log),
        ("hot profiles", check_hot(&config).await),
        ("warehouse", check_warehouse(&config).await),
        ("ruleset", check_ruleset(&config)),
    ];
    found
        .into_iter()
        .map(|(what, (verdict, detail))| Check {
            what,
            verdict,
            detail,
        })
        .collect()
}

fn check_folder(path: &Path) -> Found {
    let absent = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let refused = |error| problem(format_args!("{} may not be written to: {error}", path.display()));
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => problem(format_args!("{} is not a folder", path.display())),
        Ok(_) => match write_into(path) {
            Ok(()) => good(path.display().to_string()),
            Err(error) => refused(error),
        },
        Err(error) if absent(&error) => {
            let above = path
                .ancestors()
                .skip(1)
                .map(|above| match above.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => above,
                });
            match above.into_iter().find(|above| above.exists()).map(write_into) {
                Some(Err(error)) => refused(error),
                _ => note(format!(
                    "{} is not there yet; the first start makes it",
                    path.display()
                )),
            }
        }
        Err(error) => problem(format_args!("{}: {error}", path.display())),
    }
}

/// Permissions alone do not tell: the folder may be somebody else's, or on a read-only file system.
fn write_into(folder: &Path) -> std::io::Result<()> {
    let probe = folder.join(format!(".cartwright-check-{}", std::process::id()));
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&probe)?;
    std::fs::remove_file(probe)
}

fn check_keys(config: &mut Config) -> Found {
    let path = config.key_file();
    if let Err(error) = key_file::read(&mut config.keys, &path) {
        return problem(error);
    }
    let missing: Vec<&str> = config
        .keys
        .named()
        .into_iter()
        .filter(|(_, key)| key.is_none())
        .map(|(name, _)| name)
        .collect();
    let lacking = backends::missing_keys(config);
    match missing.is_empty() {
        true => good("all four"),
        false if !config.is_embedded() && lacking.is_empty() => good("all that these roles need"),
        false if !config.is_embedded() => problem(format_args!(
            "{} missing, and nodes on shared stores never make their own; `cartwright keys generate` prints a set to \
             give to every node",
            lacking.join(", ")
        )),
        false => note(format!(
            "{} will be made at the first start and kept in {}",
            missing.join(", "),
            path.display()
        )),
    }
}

async fn check_socket(addr: &str, used: bool, served: bool) -> Found {
    if !used {
        return note("not used by these roles");
    }
    match Listener::bind(addr).await {
        Ok(_) => good(addr),
        Err(error) if served && error.kind() == std::io::ErrorKind::AddrInUse => {
            note(format!("{addr} is in use, by the running server it seems"))
        }
        Err(error) => problem(format_args!("{addr}: {error}")),
    }
}

/// The log, and whether a running server holds it.
async fn check_log(config: &Config) -> (Found, bool) {
    if config.queue.url.is_networked() {
        return (redis::check(&config.queue.url, redis::Use::Log).await, false);
    }
    if config.queue_dir().is_some_and(|folder| !folder.exists()) {
        return (
            note(format!(
                "{} is not there yet; the first start makes it",
                config.queue.url
            )),
            false,
        );
    }
    match backends::open_queue(config).await {
        Ok(queue) => {
            queue.close().await;
            (good(config.queue.url.to_string()), false)
        }
        Err(QueueError::Locked { path }) => (note(format!("{path} is in use by a running server")), true),
        Err(error) => (problem(error), false),
    }
}

async fn check_hot(config: &Config) -> Found {
    if config.hot.url.is_networked() {
        let nodes_tell = config.queue.url.is_networked();
        return redis::check(&config.hot.url, redis::Use::Cache { nodes_tell }).await;
    }
    match backends::open_hot(config).await {
        Ok(_) => good(config.hot.url.to_string()),
        Err(error) => problem(error),
    }
}

async fn check_warehouse(config: &Config) -> Found {
    let url = &config.warehouse.url;
    if url
        .expose()
        .strip_prefix("sqlite:")
        .is_some_and(|path| !Path::new(path).exists())
    {
        return note(format!("{url} is not there yet; the first start makes it"));
    }
    let warehouse = match backends::open_warehouse(config, false).await {
        Ok(warehouse) => warehouse,
        Err(error @ crate::warehouse::OpenError::Outdated { .. }) if !url.is_networked() => {
            return note(format!("{error}, or let the next start do it"));
        }
        Err(error) => return problem(error),
    };
    if url.is_networked() {
        let answered = tokio::time::timeout(PATIENCE, warehouse.newest_ruleset(None)).await;
        let reason = match answered {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        if let Some(reason) = reason {
            return problem(format_args!(
                "{url} does not answer ({reason}); a node starts without it, and answers degraded until it is there"
            ));
        }
    }
    // Without a key there is nothing to compare, and comparing would store one.
    let compared = match backends::Identity::of(config) {
        Ok(identity) => backends::compare_key(&*warehouse, &identity).await,
        Err(_) => Ok(()),
    };
    warehouse.close().await;
    match compared {
        Ok(()) => good(url.to_string()),
        Err(error) => problem(error),
    }
}

fn check_ruleset(config: &Config) -> Found {
    match &config.ruleset {
        None => good("the one last applied, or the built-in one"),
        Some(path) => match rules::read(path) {
            Ok(_) => good(path.display().to_string()),
            Err(error) => problem(format_args!("{error:#}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        assert_eq!(check_folder(here).0, Verdict::Good);
        assert_eq!(check_folder(&here.join("a/b")).0, Verdict::Note);
        assert_eq!(std::fs::read_dir(here).unwrap().count(), 0);
        let file = here.join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(check_folder(&file).0, Verdict::Problem);
        assert_eq!(check_folder(&file.join("below")).0, Verdict::Problem);
        // Nobody writes there, not even root.
        assert_eq!(check_folder(Path::new("/proc/cartwright")).0, Verdict::Problem);
    }
}
