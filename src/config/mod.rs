//! Configuration: the only reader of the environment.
//!
//! - A setting comes from a flag, else an environment variable, else `cartwright.toml`, else its default.
//!   [`settings::SETTINGS`] is the one table of them all. What hosting platforms set, `REDIS_URL` and `DATABASE_URL`,
//!   stands in for the defaults of the stores' URLs: whatever names a store by our own name goes before it.
//! - Everything is resolved once, before anything is opened, and *every* problem is reported together with where
//!   its value came from. A process never starts on half a configuration.
//! - An unknown key in the file is an error that names the nearest known key. An unknown `CARTWRIGHT_…` variable
//!   is only warned of, because a later or earlier release on the same machine may know it.
//! - Secrets have their own types, which print nothing.
//!
//! [`resolve()`] is pure: sources in, configuration or problems out. [`load`] gathers the sources. The keys that
//! are made at the first start are the [`key_file`]'s affair.

pub mod key_file;
mod resolve;
mod secret;
pub mod settings;
mod sources;
mod store_url;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use key_file::KeyOrigin;
pub use resolve::resolve;
pub use secret::{Secret, SigningKey};
pub use sources::{Origin, Problem, Sources};
pub use store_url::{StoreUrl, masked};

use settings::{CONFIG_DEFAULT, CONFIG_ENV, ENV_PREFIX};

/// Everything that a process is told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `HOST:PORT`; the host may be a name, and port 0 takes a free one.
    pub listen: String,
    pub operator_listen: String,
    pub data_dir: PathBuf,
    pub roles: Roles,
    /// A `tracing` filter.
    pub log: String,
    /// A shop's name, legal by construction: 1 to 64 characters of `a-z 0-9 - _`.
    pub shop: String,
    /// `live` or `test`.
    pub environment: String,
    /// `scheme://host[:port]`, or `*`.
    pub allowed_origins: Vec<String>,
    pub ruleset: Option<PathBuf>,
    pub deadline: Duration,
    pub grace: Duration,
    pub consent_default: ConsentDefault,
    pub decisions_record: RecordPolicy,
    pub dedupe_window: Duration,
    /// `None` keeps events for good.
    pub fact_retention: Option<Duration>,
    pub queue: Queue,
    pub hot: Hot,
    pub near: Near,
    pub warehouse: Warehouse,
    pub http: Http,
    pub keys: Keys,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    pub api: bool,
    pub drain: bool,
}

/// What holds for a purpose that a shopper never stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentDefault {
    Granted,
    Denied,
}

/// Which decisions are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RecordPolicy {
    All,
    /// Those of experiments, and 1 % of the rest.
    Experiments,
    /// Those of experiments, and this share of the rest, 0 to 1.
    Sampled(f64),
}

/// The log.
#[derive(Debug, Clone)]
pub struct Queue {
    pub url: StoreUrl,
    /// How many partitions a shared log has. A `disk:` log has one.
    pub partitions: u16,
    pub limit_bytes: u64,
    pub retain: Duration,
    pub retain_bytes: u64,
    pub segment_bytes: u64,
}

/// The hot profiles.
#[derive(Debug, Clone)]
pub struct Hot {
    pub url: StoreUrl,
    pub memory_bytes: u64,
    /// How long a shared store keeps a profile that nobody writes.
    pub ttl: Duration,
}

/// The profiles that an API node keeps by itself, in front of the hot store.
#[derive(Debug, Clone)]
pub struct Near {
    pub bytes: u64,
}

/// The warehouse.
#[derive(Debug, Clone)]
pub struct Warehouse {
    pub url: StoreUrl,
}

/// Bounds of the public listener.
#[derive(Debug, Clone)]
pub struct Http {
    pub body_bytes: usize,
    pub inflated_bytes: usize,
    pub in_flight: usize,
    pub connections: usize,
}

/// The keys as far as they are known: configured, or read by [`key_file`].
#[derive(Debug, Clone)]
pub struct Keys {
    pub public: Option<Secret>,
    pub server: Option<Secret>,
    pub pseudonym: Option<SigningKey>,
    pub user_token: Option<SigningKey>,
}

/// A configuration and what is worth saying about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Harmless, and probably not meant so. Logged at the start, printed by `check`.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Every setting with the text in force and where it came from: what `check` prints.
    pub settings: Vec<Given>,
}

/// A setting as given.
#[derive(Debug, Clone)]
pub struct Given {
    pub key: &'static str,
    /// As written; `(secret)` in the place of a secret, empty where nothing is given and nothing stands in.
    pub text: String,
    pub origin: Origin,
}

impl Keys {
    /// Each key's setting and text.
    pub fn named(&self) -> [(&'static str, Option<String>); 4] {
        let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
        [
            ("public_key", text(&self.public)),
            ("server_key", text(&self.server)),
            ("pseudonym_key", self.pseudonym.as_ref().map(SigningKey::expose)),
            ("user_token_key", self.user_token.as_ref().map(SigningKey::expose)),
        ]
    }
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
    /// What is no problem by itself, and may well be the cause of one: a name with a typing error in it.
    pub warnings: Vec<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "the configuration has a problem:")?,
            count => write!(f, "the configuration has {count} problems:")?,
        }
        self.problems
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))?;
        self.warnings
            .iter()
            .try_for_each(|warning| write!(f, "\nnote: {warning}"))
    }
}

/// Reads the environment and the configuration file, and resolves them under `flags` (setting key and value).
/// `file` is the path given by `--config`.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn load(flags: Vec<(&'static str, String)>, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let env = environment(&mut problems);
    let named = file
        .map(|path| (Origin::Flag("config".to_owned()), path))
        .or_else(|| {
            let (name, path) = env
                .iter()
                .find(|(name, path)| name == CONFIG_ENV && !path.is_empty())?;
            Some((Origin::Env(name.clone()), PathBuf::from(path)))
        });
    let (origin, path) = named
        .clone()
        .unwrap_or((Origin::Default, PathBuf::from(CONFIG_DEFAULT)));
    let file = match std::fs::read_to_string(&path) {
        Ok(text) => Some((path, text)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let message = format!("{} could not be read: {error}", path.display());
            problems.push(Problem {
                origin,
                key: "config".to_owned(),
                message,
            });
            None
        }
    };
    match resolve(&Sources { flags, env, file }) {
        Ok(loaded) if problems.is_empty() => Ok(loaded),
        Ok(loaded) => Err(ConfigError {
            problems,
            warnings: loaded.warnings,
        }),
        Err(mut error) => {
            error.problems.splice(0..0, problems);
            Err(error)
        }
    }
}

/// The environment; a variable of ours that is no text is a problem.
#[allow(clippy::disallowed_methods)] // The one place that reads it.
fn environment(problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => env.push((name, value)),
            Err(_) if name.starts_with(ENV_PREFIX) => {
                let message = "is not valid UTF-8".to_owned();
                problems.push(Problem {
                    origin: Origin::Env(name),
                    key: String::new(),
                    message,
                });
            }
            Err(_) => {}
        }
    }
    env
}

impl Config {
    /// The file of the keys that a first start makes.
    pub fn key_file(&self) -> PathBuf {
        self.data_dir.join(key_file::NAME)
    }

    /// The folder of a `disk:` log.
    pub fn queue_dir(&self) -> Option<&Path> {
        self.queue.url.expose().strip_prefix("disk:").map(Path::new)
    }

    /// Whether every store lives in this process and its data folder, so that nothing is shared with another node.
    pub fn is_embedded(&self) -> bool {
        ![&self.queue.url, &self.hot.url, &self.warehouse.url]
            .iter()
            .any(|url| url.is_networked())
    }
}

#[cfg(test)]
mod tests;
