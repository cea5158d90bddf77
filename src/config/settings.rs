//! The one table of settings. Flags, environment variables, file keys, `--help` and the README's configuration
//! table are all derived from it, so none of them can disagree.

use std::fmt::Write as _;

/// One setting, named by its key in `cartwright.toml`; the other two names follow from the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The dotted key in `cartwright.toml`, for instance `queue.url`.
    pub key: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// The value where none is given. Empty: there is none, and `help` says what then holds.
    pub default: &'static str,
    /// Never printed.
    pub secret: bool,
    /// What it does, in one or two sentences.
    pub help: &'static str,
}

impl Setting {
    /// The environment variable: `queue.url` is `CARTWRIGHT_QUEUE_URL`.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// The flag without its dashes: `queue.url` is `queue-url`.
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }
}

/// Every variable of ours starts so.
pub const ENV_PREFIX: &str = "CARTWRIGHT_";
/// The variable that names the configuration file; the one setting that cannot stand in the file.
pub const CONFIG_ENV: &str = "CARTWRIGHT_CONFIG";
/// The configuration file read when none is named, if it is there.
pub const CONFIG_DEFAULT: &str = "cartwright.toml";

/// What hosting platforms call a store's URL, and the settings for which it stands in.
pub const PLATFORM: &[(&str, &str)] = &[
    ("REDIS_URL", "queue.url"),
    ("REDIS_URL", "hot.url"),
    ("DATABASE_URL", "warehouse.url"),
];

const fn plain(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting {
        key,
        value,
        default,
        secret: false,
        help,
    }
}

const fn secret(key: &'static str, help: &'static str) -> Setting {
    Setting {
        key,
        value: "KEY",
        default: "",
        secret: true,
        help,
    }
}

/// All settings, in the order in which help and the README show them.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    plain("listen", "HOST:PORT", "127.0.0.1:8080", "Where the public API listens."),
    plain("operator_listen", "HOST:PORT", "127.0.0.1:9090",
        "Where metrics, health and the operators' calls listen. It asks for no key: keep it private."),
    plain("data_dir", "DIR", "./data", "The folder of the embedded stack: the log, the warehouse and the keys made at the first start. On shared stores it holds the last good ruleset."),
    plain("roles", "LIST", "api,drain", "What this process does: `api` answers requests, `drain` turns the log into the warehouse."),
    plain("log", "FILTER", "info", "Which log lines are written to standard error, for instance `info,cartwright=debug`."),
    plain("shop", "NAME", "demo", "The shop that the configured keys belong to: 1 to 64 characters of `a-z 0-9 - _`."),
    plain("environment", "live|test", "live", "The environment that the configured keys belong to. Test traffic never meets live profiles."),
    plain("allowed_origins", "LIST", "", "Origins whose pages may call the API from a browser, for instance `https://shop.example`; `*` allows all. Without it, none."),
    plain("ruleset", "FILE", "", "A ruleset applied at every start. Without it, the one last applied holds, or a small built-in one."),
    plain("deadline_ms", "MS", "100", "The time budget of an answer. Higher keeps shoppers waiting on a slow store, lower degrades answers that would have come."),
    plain("grace_ms", "MS", "10000", "How long a stop waits for requests under way and for the lane's batch. Higher delays a deployment, lower cuts answers short."),
    plain("consent.default", "granted|denied", "granted", "Whether the profile of a shopper who never said a word about personalization may be used."),
    plain("decisions.record", "all|experiments|sampled:R", "experiments",
        "Which decisions are recorded: all, those of experiments with 1 % of the rest, or a share R of 0 to 1 besides the experiments."),
    plain("dedupe.window", "DURATION", "30d", "How long event ids are remembered. A longer window costs disk, a shorter one refuses late duplicates it can no longer recognise."),
    plain("fact.retention", "DURATION", "", "How long events stay in `fact_event` of a warehouse in PostgreSQL, to the month. Longer costs disk, shorter costs the results of experiments and sessions to learn from. Without it, for good."),
    plain("queue.url", "URL", "", "The log. `disk:PATH`, `redis://…`, `rediss://…` or `redis-cluster://…`; without it, `REDIS_URL`, else `disk:` and `queue` in the data folder."),
    plain("queue.partitions", "COUNT", "64", "The partitions of a shared log; all nodes must say the same, and a log that is there keeps its number. More let more workers drain, each costs a little of everything. A `disk:` log has one."),
    plain("queue.limit_bytes", "SIZE", "4GiB", "The log's size limit. Beyond it events are answered 503 until the drain catches up."),
    plain("queue.retain", "DURATION", "1h", "How long records are kept after they are in the warehouse, so that one restored from a backup can catch up."),
    plain("queue.retain_bytes", "SIZE", "1GiB", "The most bytes kept for that purpose."),
    plain("queue.segment_bytes", "SIZE", "64MiB", "The size of one file of the log. Larger files are trimmed later, smaller ones are changed more often."),
    plain("hot.url", "URL", "memory:", "The hot profiles. `memory:`, `redis://…`, `rediss://…` or `redis-cluster://…`; without it, `REDIS_URL`, else `memory:`."),
    plain("hot.memory_bytes", "SIZE", "64MiB", "The most bytes of profiles that `memory:` keeps; the least recently used go first."),
    plain("hot.ttl", "DURATION", "7d", "How long a shared store keeps a profile that nobody changes. Longer costs its memory, shorter costs reads of the warehouse."),
    plain("near.bytes", "SIZE", "64MiB", "The most bytes of profiles that an API node keeps in front of a shared hot store; `0` keeps none."),
    plain("warehouse.url", "URL", "", "The warehouse. `sqlite:PATH` or `postgres://…`; without it, `DATABASE_URL`, else `sqlite:` and `warehouse.db` in the data folder."),
    plain("http.body_bytes", "SIZE", "1MiB", "The largest request body as sent."),
    plain("http.inflated_bytes", "SIZE", "8MiB", "The largest request body after decompression."),
    plain("http.in_flight", "COUNT", "1024", "The most requests worked on at once; more are answered 503 at once."),
    plain("http.connections", "COUNT", "8192", "The most open connections of the public listener; more wait to be accepted."),
    secret("public_key", "The API key of browsers and apps. Without it, an embedded first start makes one; on shared stores it must be given."),
    secret("server_key", "The API key of the shop's back end. Without it, an embedded first start makes one; on shared stores it must be given."),
    secret("pseudonym_key", "`[KID:]SECRET`, the key of all pseudonyms. It never changes for the life of a warehouse: back it up. Without it, an embedded first start makes one; on shared stores it must be given."),
    secret("user_token_key", "`[KID:]SECRET`, the key with which the shop's back end signs user tokens. Without it, an embedded first start makes one; on shared stores it must be given."),
];

/// The setting with this key.
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The candidate most like `text`, unless none is alike.
pub fn nearest(text: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let allowed = text.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (edits(text, &candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The fewest insertions, removals and replacements of characters between two texts (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        if let Some(first) = row.first_mut() {
            *first = last;
        }
        for (cell, right) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = *cell;
            last = replaced.min(last + 1).min(*cell + 1);
            *cell = last;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The README's configuration table, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "| Key in `cartwright.toml` | Environment variable | Default | Meaning |\n|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "".to_owned(),
            default => format!("`{default}`"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {default} | {} |",
            setting.key,
            setting.env(),
            setting.help.replace('|', "\\|"),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_names_of_a_setting_follow_from_its_key() {
        let setting = find("queue.limit_bytes").unwrap();
        assert_eq!(setting.env(), "CARTWRIGHT_QUEUE_LIMIT_BYTES");
        assert_eq!(setting.flag(), "queue-limit-bytes");
    }

    #[test]
    fn no_two_settings_share_a_name() {
        let mut names: Vec<_> = SETTINGS.iter().flat_map(|s| [s.env(), s.flag()]).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_nearest_name_is_a_likely_typing_error_or_none() {
        let keys = || SETTINGS.iter().map(|s| s.key.to_owned());
        assert_eq!(nearest("queue.ulr", keys()).as_deref(), Some("queue.url"));
        assert_eq!(nearest("deadline", keys()).as_deref(), Some("deadline_ms"));
        assert_eq!(nearest("zzzzzz", keys()), None);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
