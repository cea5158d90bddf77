//! Single values, each with its limits: mappings, lists, names, numbers, payloads.

use std::sync::Arc;

use super::Reader;
use crate::domain::ruleset::MAX_NAMES;
use crate::domain::ruleset::model::Payload;
use crate::domain::ruleset::yaml::{Key, Mark, Node, Value};

/// The longest name of an item or a payment method, in bytes.
const MAX_TEXT: usize = 128;
/// The longest name of a placement, segment, experience or variant.
const MAX_NAME: usize = 64;

/// A mapping whose fields were checked against the known ones.
pub(super) struct Table<'n> {
    pub(super) at: Mark,
    pub(super) path: String,
    entries: &'n [(Key, Node)],
}

impl<'n> Table<'n> {
    pub(super) fn get(&self, field: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(key, _)| key.text == field)
            .map(|(_, node)| node)
    }

    pub(super) fn path(&self, field: &str) -> String {
        if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        }
    }
}

impl Reader {
    pub(super) fn table<'n>(&mut self, node: &'n Node, path: String, fields: &[&str]) -> Option<Table<'n>> {
        let Value::Map(entries) = &node.value else {
            self.problems.add(
                node.at,
                &path,
                format!("expected a mapping, found {}", node.value.kind()),
            );
            return None;
        };
        for (key, _) in entries {
            if !fields.contains(&key.text.as_str()) {
                let reason = format!(
                    "unknown field `{}`; known are {}",
                    key.text.escape_debug(),
                    fields.join(", ")
                );
                self.problems.add(key.at, &path, reason);
            }
        }
        Some(Table {
            at: node.at,
            path,
            entries,
        })
    }

    pub(super) fn entries<'n>(&mut self, node: &'n Node, path: &str) -> &'n [(Key, Node)] {
        match &node.value {
            Value::Map(entries) if entries.len() <= MAX_NAMES => return entries,
            Value::Map(entries) => {
                self.problems.add(
                    node.at,
                    path,
                    format!("{} entries, more than {MAX_NAMES}", entries.len()),
                );
            }
            other => self.problems.add(
                node.at,
                path,
                format!("expected a mapping, found {}", other.kind()),
            ),
        }
        &[]
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, path: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) if items.len() <= MAX_NAMES => return items,
            Value::List(items) => {
                self.problems.add(
                    node.at,
                    path,
                    format!("{} entries, more than {MAX_NAMES}", items.len()),
                );
            }
            other => self
                .problems
                .add(node.at, path, format!("expected a list, found {}", other.kind())),
        }
        &[]
    }

    pub(super) fn texts(&mut self, node: &Node, path: &str) -> Vec<Arc<str>> {
        let nodes = self.list(node, path);
        let mut texts: Vec<Arc<str>> = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match self.text(node, &path) {
                Some(text) if texts.contains(&text) => {
                    self.problems
                        .add(node.at, &path, format!("`{text}` occurs twice"));
                }
                Some(text) => texts.push(text),
                None => {}
            }
        }
        texts
    }

    pub(super) fn required<'n>(&mut self, table: &Table<'n>, field: &str) -> Option<&'n Node> {
        let node = table.get(field);
        if node.is_none() {
            self.problems
                .add(table.at, &table.path, format!("`{field}` is missing"));
        }
        node
    }

    pub(super) fn limit(&mut self, table: &Table<'_>, default: usize) -> usize {
        match table.get("limit").map(|node| (node, &node.value)) {
            None => default,
            Some((_, Value::Int(limit @ 1..=100))) => *limit as usize,
            Some((node, _)) => {
                self.problems
                    .add(node.at, &table.path("limit"), "expected an integer from 1 to 100");
                default
            }
        }
    }

    pub(super) fn number(&mut self, node: &Node, path: &str, least: f64, most: f64) -> Option<f64> {
        let value = match node.value {
            Value::Int(value) => value as f64,
            Value::Float(value) => value,
            _ => f64::NAN,
        };
        if value >= least && value <= most {
            return Some(value);
        }
        self.problems
            .add(node.at, path, format!("expected a number from {least} to {most}"));
        None
    }

    pub(super) fn payload(&mut self, node: &Node, path: &str) -> Option<Payload> {
        match node.to_json() {
            Ok(json) => Some(Payload::new(json)),
            Err(at) => {
                self.problems.add(at, path, "JSON has no infinity and no NaN");
                None
            }
        }
    }

    /// The name of an item or the like. Numbers are taken as they are written by people: 22423 is an item.
    pub(super) fn text(&mut self, node: &Node, path: &str) -> Option<Arc<str>> {
        match &node.value {
            Value::Text { text, .. } => self.bounded(text, node.at, path),
            Value::Int(number) => Some(number.to_string().into()),
            other => {
                self.problems.add(
                    node.at,
                    path,
                    format!("expected text, found {}; quote it", other.kind()),
                );
                None
            }
        }
    }

    pub(super) fn bounded(&mut self, text: &str, at: Mark, path: &str) -> Option<Arc<str>> {
        if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            let reason = format!("expected 1 to {MAX_TEXT} bytes without control characters");
            self.problems.add(at, path, reason);
            return None;
        }
        Some(text.into())
    }

    pub(super) fn named(&mut self, node: &Node, path: &str) -> Option<Arc<str>> {
        match &node.value {
            Value::Text { text, .. } => self.name(text, node.at, path),
            other => {
                self.problems
                    .add(node.at, path, format!("expected a name, found {}", other.kind()));
                None
            }
        }
    }

    /// Names go into metrics, queries and records as they are.
    pub(super) fn name(&mut self, text: &str, at: Mark, path: &str) -> Option<Arc<str>> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(legal) {
            let reason = format!("a name is 1 to {MAX_NAME} characters of a-z, A-Z, 0-9, '-', '_' and '.'");
            self.problems.add(at, path, reason);
            return None;
        }
        Some(text.into())
    }
}
