//! From the sources to the configuration.

use std::path::PathBuf;

use super::settings::SETTINGS;
use super::sources::{Layers, Sources};
use super::{Config, ConfigError, Hot, Http, Keys, Loaded, Near, Queue, Warehouse, value};

/// Lays the sources over each other and understands the result.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn resolve(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::new(sources);
    let config = assemble(&mut layers);
    if let Some(config) = &config {
        cross_check(config, &mut layers);
    }
    match config {
        Some(config) if layers.problems.is_empty() => Ok(Loaded {
            config,
            file: sources.file.as_ref().map(|(path, _)| path.clone()),
            settings: SETTINGS.iter().map(|setting| layers.given(setting)).collect(),
            warnings: layers.warnings,
        }),
        _ => Err(ConfigError {
            problems: layers.problems,
            warnings: layers.warnings,
        }),
    }
}

/// The configuration, with defaults in the place of values that are wrong; why has been noted. Every setting is
/// taken before the first `?`, so that one problem never hides another.
fn assemble(layers: &mut Layers) -> Option<Config> {
    let data_dir = layers.take("data_dir", None, value::text).map(PathBuf::from);
    let below = |scheme: &str, name: &str| {
        data_dir
            .as_ref()
            .map(|dir| format!("{scheme}:{}", dir.join(name).display()))
    };
    let listen = layers.take("listen", None, value::address);
    let operator_listen = layers.take("operator_listen", None, value::address);
    let roles = layers.take("roles", None, value::roles);
    let log = layers.take("log", None, value::log_filter);
    let shop = layers.take("shop", None, value::shop);
    let environment = layers.take("environment", None, value::environment);
    let allowed_origins = layers.take("allowed_origins", Some(String::new()), value::origins);
    let ruleset = layers.take("ruleset", None, value::text).map(PathBuf::from);
    let deadline = layers.take("deadline_ms", None, value::milliseconds);
    let grace = layers.take("grace_ms", None, value::milliseconds);
    let consent_default = layers.take("consent.default", None, value::consent_default);
    let decisions_record = layers.take("decisions.record", None, value::record_policy);
    let dedupe_window = layers.take("dedupe.window", None, value::duration);
    let fact_retention = layers.take("fact.retention", None, value::duration);
    let queue_url = layers.take("queue.url", below("disk", "queue"), value::queue_url);
    let partitions = layers.take("queue.partitions", None, value::partitions);
    let limit_bytes = layers.take("queue.limit_bytes", None, value::size);
    let retain = layers.take("queue.retain", None, value::duration);
    let retain_bytes = layers.take("queue.retain_bytes", None, value::size);
    let segment_bytes = layers.take("queue.segment_bytes", None, value::size);
    let hot_url = layers.take("hot.url", None, value::hot_url);
    let memory_bytes = layers.take("hot.memory_bytes", None, value::size);
    let ttl = layers.take("hot.ttl", None, value::duration);
    let near_bytes = layers.take("near.bytes", None, value::size_or_none);
    let warehouse_url = layers.take(
        "warehouse.url",
        below("sqlite", "warehouse.db"),
        value::warehouse_url,
    );
    let size =
        |text: &str| value::size(text).and_then(|size| usize::try_from(size).map_err(|e| e.to_string()));
    let body_bytes = layers.take("http.body_bytes", None, size);
    let inflated_bytes = layers.take("http.inflated_bytes", None, size);
    let in_flight = layers.take("http.in_flight", None, value::count);
    let connections = layers.take("http.connections", None, value::count);
    let keys = Keys {
        public: layers.take("public_key", None, value::api_key),
        server: layers.take("server_key", None, value::api_key),
        pseudonym: layers.take("pseudonym_key", None, value::signing_key),
        user_token: layers.take("user_token_key", None, value::signing_key),
    };
    Some(Config {
        listen: listen?,
        operator_listen: operator_listen?,
        data_dir: data_dir?,
        roles: roles?,
        log: log?,
        shop: shop?,
        environment: environment?,
        allowed_origins: allowed_origins?,
        ruleset,
        deadline: deadline?,
        grace: grace?,
        consent_default: consent_default?,
        decisions_record: decisions_record?,
        dedupe_window: dedupe_window?,
        fact_retention,
        queue: Queue {
            url: queue_url?,
            partitions: partitions?,
            limit_bytes: limit_bytes?,
            retain: retain?,
            retain_bytes: retain_bytes?,
            segment_bytes: segment_bytes?,
        },
        hot: Hot {
            url: hot_url?,
            memory_bytes: memory_bytes?,
            ttl: ttl?,
        },
        near: Near { bytes: near_bytes? },
        warehouse: Warehouse { url: warehouse_url? },
        http: Http {
            body_bytes: body_bytes?,
            inflated_bytes: inflated_bytes?,
            in_flight: in_flight?,
            connections: connections?,
        },
        keys,
    })
}

/// What is wrong only in combination.
fn cross_check(config: &Config, layers: &mut Layers) {
    if config.listen == config.operator_listen && !config.listen.ends_with(":0") {
        layers.combined(["operator_listen", "listen"], "must differ from listen");
    }
    // A log needs one segment to write while another is full, or it is full before it holds anything.
    if config.queue.segment_bytes > config.queue.limit_bytes / 2 {
        layers.combined(
            ["queue.segment_bytes", "queue.limit_bytes"],
            "must be at most half of queue.limit_bytes",
        );
    }
    if config.queue.retain_bytes > config.queue.limit_bytes / 2 {
        layers.combined(
            ["queue.retain_bytes", "queue.limit_bytes"],
            "must be at most half of queue.limit_bytes",
        );
    }
    if config.http.inflated_bytes < config.http.body_bytes {
        layers.combined(
            ["http.inflated_bytes", "http.body_bytes"],
            "must be at least http.body_bytes",
        );
    }
    if config.keys.public.is_some() && config.keys.public == config.keys.server {
        layers.combined(
            ["server_key", "public_key"],
            "must differ from public_key, which every browser can read",
        );
    }
    if config.queue_dir().is_some() && (!config.roles.drain || !config.roles.api) {
        layers.warnings.push(
            "roles is one of two: a disk: log belongs to one process, so nothing drains or fills it until this process \
             has both"
                .to_owned(),
        );
    }
    let shared_log = config.queue.url.is_networked();
    if shared_log && !config.warehouse.url.is_networked() {
        layers.combined(
            ["warehouse.url", "queue.url"],
            "must be a postgres:// URL where the log is shared: every node writes and reads one warehouse",
        );
    }
    if shared_log && !config.hot.url.is_networked() {
        layers.warnings.push(
            "hot.url is memory: and the log is shared: a profile that another node's lane has written is never seen \
             to be newer than this node's own copy; set hot.url to a redis:// URL"
                .to_owned(),
        );
    }
}
