//! The conditions of one ruleset: compiled once each, and known by what they read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::model::{Condition, ConditionId, Reads};
use super::parse::Problems;
use super::predicate::Predicate;
use super::yaml::{Layout, Mark, Node, Value};

/// What a condition may speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    Request,
    /// The profile without its segments: a segment is the same in every request, and segments do not build on
    /// each other.
    Segment,
}

#[derive(Default)]
pub(super) struct Conditions {
    list: Vec<Condition>,
    by_text: HashMap<Arc<str>, ConditionId>,
    segments: HashSet<Arc<str>>,
    request_reads: Reads,
    segment_reads: Reads,
}

impl Conditions {
    /// Makes a segment known, so that a condition that names another one is a typing error.
    pub(super) fn declare_segment(&mut self, name: &Arc<str>) {
        self.segments.insert(Arc::clone(name));
    }

    pub(super) fn uses_profile(&self, id: ConditionId) -> bool {
        self.list
            .get(id.index())
            .is_some_and(|condition| condition.predicate.uses_profile())
    }

    pub(super) fn into_list(self) -> Vec<Condition> {
        self.list
    }

    /// What the conditions of one scope read, or all of them.
    pub(super) fn reads(&self, scope: Option<Scope>) -> Reads {
        match scope {
            Some(Scope::Segment) => self.segment_reads,
            Some(Scope::Request) => self.request_reads,
            None => self.segment_reads.union(self.request_reads),
        }
    }

    /// Compiles the condition in `node`, or finds it among those compiled.
    pub(super) fn add(
        &mut self,
        node: &Node,
        path: &str,
        scope: Scope,
        problems: &mut Problems,
    ) -> Option<ConditionId> {
        let (text, layout) = match &node.value {
            Value::Text { text, layout } => (text.trim_end(), *layout),
            Value::Bool(true) => ("true", Layout::Inline(0)),
            Value::Bool(false) => ("false", Layout::Inline(0)),
            other => {
                problems.add(
                    node.at,
                    path,
                    format!("expected a condition, found {}", other.kind()),
                );
                return None;
            }
        };
        for reason in self.out_of_scope(&words(text), scope) {
            problems.add(node.at, path, reason);
        }
        let reads = match scope {
            Scope::Request => &mut self.request_reads,
            Scope::Segment => &mut self.segment_reads,
        };
        for name in names(text) {
            reads.note(name);
        }
        if let Some(id) = self.by_text.get(text) {
            return Some(*id);
        }
        match Predicate::compile(text) {
            Ok(predicate) => {
                let id = ConditionId(u32::try_from(self.list.len()).ok()?);
                self.list.push(Condition { predicate });
                self.by_text.insert(text.into(), id);
                Some(id)
            }
            Err(error) => {
                let place = error.line_and_column(text);
                problems.add(place_of(node.at, layout, text, place), path, error.message);
                None
            }
        }
    }

    fn out_of_scope(&self, words: &[Word<'_>], scope: Scope) -> Vec<String> {
        let mut reasons = Vec::new();
        for (index, word) in words.iter().enumerate() {
            let Word::Name(name) = word else { continue };
            let root = name.split('.').next().unwrap_or("");
            let segments = *name == "profile.segments";
            if scope == Scope::Segment && root == "request" {
                reasons.push("a segment cannot depend on the request".to_owned());
            }
            if scope == Scope::Segment && segments {
                reasons.push("a segment cannot depend on segments".to_owned());
            }
            if scope == Scope::Request
                && segments
                && let Some([Word::Text(wanted), Word::Name("in")]) =
                    index.checked_sub(2).and_then(|at| words.get(at..index))
                && !self.segments.contains(*wanted)
            {
                reasons.push(format!("there is no segment `{}`", wanted.escape_debug()));
            }
        }
        reasons
    }
}

impl Reads {
    fn note(&mut self, name: &str) {
        let mut parts = name.split('.');
        let (root, field) = (parts.next(), parts.next());
        match (root, field) {
            (Some("request"), Some("cart")) => self.cart = true,
            (Some("profile"), Some("cart")) => self.profile_cart = true,
            (Some("profile"), Some("items")) => self.items = true,
            (Some("profile"), Some("categories")) => self.categories = true,
            (Some("profile"), Some("payment_methods")) => self.payment_methods = true,
            (Some("profile"), Some("shipping_methods")) => self.shipping_methods = true,
            (Some("profile"), Some("devices")) => self.devices = true,
            (Some("profile"), Some("recent_items")) => self.recent_items = true,
            // Whatever follows a bare group name, nothing may be missing.
            (Some("profile" | "request"), None) => *self = Reads::ALL,
            _ => {}
        }
    }
}

/// Everything that could be a name, in quotes and comments too: a fact too many costs time, one too few an answer.
/// Blanks around a dot break a name in two, and the first half then counts as a bare group.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')
        .filter(|name| !name.is_empty())
}

/// One piece of a condition, as far as needed to see which fields and segments it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word<'s> {
    /// Identifiers joined by dots.
    Name(&'s str),
    /// What stands between quotes, as written.
    Text(&'s str),
    Other,
}

/// Cuts a condition into words, to find what a person mistyped. Where it is deceived (by `'''` or an apostrophe in
/// a comment) a mistake passes unnoticed; nothing else depends on it.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if first == '"' || first == '\'' {
            let inner = rest.get(1..).unwrap_or("");
            let mut escaped = false;
            let end = inner.find(|c| {
                let ends = c == first && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let end = end.unwrap_or(inner.len());
            words.push(Word::Text(inner.get(..end).unwrap_or("")));
            (end + 2).min(rest.len())
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
            let end = end.unwrap_or(rest.len());
            words.push(Word::Name(rest.get(..end).unwrap_or("")));
            end
        } else {
            if !first.is_whitespace() {
                words.push(Word::Other);
            }
            first.len_utf8()
        };
        rest = rest.get(taken..).unwrap_or("");
    }
    words
}

/// The place in the file of a place in a condition.
fn place_of(at: Mark, layout: Layout, text: &str, place: Option<(usize, usize)>) -> Mark {
    let Some((line, column)) = place else { return at };
    match layout {
        Layout::Inline(skip) if !text.contains('\n') => Mark {
            line: at.line,
            column: at.column + skip + column - 1,
        },
        Layout::Literal => Mark {
            line: at.line + line - 1,
            column: at.column + column - 1,
        },
        Layout::Inline(_) | Layout::Folded => at,
    }
}
