//! Where values come from, and how the sources are laid over each other: flag, then environment, then file, then
//! default. Every problem of every source is kept, so that one start shows them all.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Given;
use super::settings::{CONFIG_ENV, ENV_PREFIX, PLATFORM, SETTINGS, Setting, find, nearest};
use super::store_url::masked;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line, without its dashes.
    Flag(String),
    /// An environment variable.
    Env(String),
    /// A line of the configuration file, counted from 1.
    File(PathBuf, usize),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "--{flag}"),
            Origin::Env(name) => f.write_str(name),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    /// The setting's key, or the key as found where it is unknown.
    pub key: String,
    /// What is wrong and what was expected. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{}: {}: {}", self.origin, self.key, self.message)
        }
    }
}

/// Everything that was given, before any of it is understood. Plain data, so that tests need no environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Setting key and value of each flag given.
    pub flags: Vec<(&'static str, String)>,
    /// The environment: names and values.
    pub env: Vec<(String, String)>,
    /// The configuration file's path and text.
    pub file: Option<(PathBuf, String)>,
}

/// A value with its origin.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The winning value of each setting that was given.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) values: HashMap<&'static str, Raw>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut layers = Layers::default();
        // Later layers go before earlier ones.
        layers.read_platform(&sources.env);
        if let Some((path, text)) = &sources.file {
            layers.read_file(path, text);
        }
        layers.read_env(&sources.env);
        for (key, text) in &sources.flags {
            if let Some(setting) = find(key) {
                layers.put(setting, text, Origin::Flag(setting.flag()));
            }
        }
        layers
    }

    fn put(&mut self, setting: &'static Setting, text: &str, origin: Origin) {
        self.values.insert(
            setting.key,
            Raw {
                text: text.trim().to_owned(),
                origin,
            },
        );
    }

    fn read_platform(&mut self, env: &[(String, String)]) {
        for (variable, key) in PLATFORM {
            let given = env
                .iter()
                .find(|(name, text)| name == variable && !text.is_empty());
            if let (Some((name, text)), Some(setting)) = (given, find(key)) {
                self.put(setting, text, Origin::Env(name.clone()));
            }
        }
    }

    fn read_env(&mut self, env: &[(String, String)]) {
        for (name, text) in env {
            match SETTINGS.iter().find(|setting| setting.env() == *name) {
                // Set but empty counts as not set: that is how compose files and shells unset a variable.
                Some(setting) if !text.is_empty() => self.put(setting, text, Origin::Env(name.clone())),
                Some(_) => {}
                None if name == CONFIG_ENV => {}
                None if name.starts_with(ENV_PREFIX) => {
                    let hint = match nearest(name, SETTINGS.iter().map(Setting::env)) {
                        Some(known) => format!("; did you mean {known}?"),
                        None => String::new(),
                    };
                    self.warnings.push(format!(
                        "the environment variable {name} is not known and has no effect{hint}"
                    ));
                }
                None => {}
            }
        }
    }

    fn read_file(&mut self, path: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            // Only the parser's own words: its excerpt of the file might show a key.
            let message = error.message().to_owned();
            self.problems.push(Problem {
                origin: Origin::File(path.to_owned(), line),
                key: String::new(),
                message,
            });
        }
        self.read_table(path, text, "", table.get_ref());
    }

    fn read_table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let origin = Origin::File(path.to_owned(), line_of(text, name.span().start));
            let is_prefix = SETTINGS
                .iter()
                .any(|s| s.key.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.')));
            match (find(&key), value.get_ref()) {
                (Some(setting), value) => match scalar(value) {
                    Some(text) => self.put(setting, &text, origin),
                    None => self.problem(origin, key, "expected a string, a number or a list of strings"),
                },
                (None, DeValue::Table(inner)) if is_prefix => self.read_table(path, text, &key, inner),
                (None, _) => {
                    let message = match nearest(&key, SETTINGS.iter().map(|s| s.key.to_owned())) {
                        Some(known) => format!("is not a known key; did you mean {known}?"),
                        None => "is not a known key".to_owned(),
                    };
                    self.problem(origin, key, &message);
                }
            }
        }
    }

    fn problem(&mut self, origin: Origin, key: String, message: &str) {
        self.problems.push(Problem {
            origin,
            key,
            message: message.to_owned(),
        });
    }

    /// Parses the value in force of a setting; `derived` stands where none was given and the table has no
    /// default. After a problem, which is noted, the default stands in, so that the other checks can go on.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        derived: Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let default = find(key)
            .map(|setting| setting.default)
            .filter(|default| !default.is_empty());
        let fallback = derived.or(default.map(str::to_owned));
        if let Some(raw) = self.values.get(key) {
            match parse(&raw.text) {
                Ok(value) => return Some(value),
                Err(message) => {
                    let origin = raw.origin.clone();
                    self.problems.push(Problem {
                        origin,
                        key: key.to_owned(),
                        message,
                    });
                }
            }
        }
        parse(&fallback?).ok()
    }

    /// Notes what is wrong in combination, unless a value concerned is wrong by itself.
    pub(super) fn combined(&mut self, keys: [&str; 2], message: &str) {
        if !self
            .problems
            .iter()
            .any(|problem| keys.contains(&problem.key.as_str()))
        {
            self.problem(self.origin(keys[0]), keys[0].to_owned(), message);
        }
    }

    /// A setting as given, for people to read.
    pub(super) fn given(&self, setting: &'static Setting) -> Given {
        let text = match self.values.get(setting.key) {
            Some(_) if setting.secret => "(secret)".to_owned(),
            Some(raw) => masked(&raw.text),
            None => setting.default.to_owned(),
        };
        Given {
            key: setting.key,
            text,
            origin: self.origin(setting.key),
        }
    }

    /// Where the value in force of a setting came from.
    fn origin(&self, key: &str) -> Origin {
        self.values
            .get(key)
            .map_or(Origin::Default, |raw| raw.origin.clone())
    }
}

/// A value of the file as the text that a flag would have had.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

/// The line of a byte offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
