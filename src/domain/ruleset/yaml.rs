//! YAML as a tree whose every node knows its line, read from the parser's events.
//!
//! Why not serde: an error of meaning (an unknown placement, an ill-typed condition) must name its line as well
//! as an error of syntax does, and all of them at once. A tree with marks gives both.
//!
//! - The YAML 1.2 core schema: `no` and `on` are text, `~` and the empty value are null.
//! - Refused: aliases (their expansion is unbounded), tags, several documents, equal keys, keys that are not
//!   scalars, nesting beyond [`MAX_DEPTH`].

use std::collections::HashSet;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

/// Deeper than any payload a page wants, shallow enough to recurse over.
pub(super) const MAX_DEPTH: usize = 32;

/// A place in the source, both from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl From<&Marker> for Mark {
    fn from(marker: &Marker) -> Self {
        Mark {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text { text: String, layout: Layout },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) at: Mark,
    pub(super) text: String,
}

/// How the lines of a text lie in the source, so that a place in the text can be found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// On one line, that many characters after the mark.
    Inline(usize),
    /// A `|` block: line for line from the mark, which is where its text begins.
    Literal,
    /// Lines were folded: only the beginning is known.
    Folded,
}

/// Why a source is not one tree.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) at: Mark,
    pub(super) reason: String,
}

impl SyntaxError {
    fn at(mark: Mark, reason: impl Into<String>) -> Self {
        SyntaxError {
            at: mark,
            reason: reason.into(),
        }
    }
}

impl From<ScanError> for SyntaxError {
    fn from(error: ScanError) -> Self {
        SyntaxError::at(error.marker().into(), format!("not YAML: {}", error.info()))
    }
}

/// Reads the one document of `source`.
pub(super) fn read(source: &str) -> Result<Node, SyntaxError> {
    let mut reader = Reader {
        events: Parser::new_from_str(source),
        last: Mark { line: 1, column: 1 },
    };
    let mut root = None;
    loop {
        let (event, at) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event if root.is_none() => root = Some(reader.node(event, at, 0)?),
            _ => return Err(SyntaxError::at(at, "a ruleset is one YAML document")),
        }
    }
    root.ok_or_else(|| SyntaxError::at(Mark { line: 1, column: 1 }, "the document is empty"))
}

struct Reader<'s> {
    events: Parser<'s, StrInput<'s>>,
    last: Mark,
}

impl<'s> Reader<'s> {
    fn next(&mut self) -> Result<(Event<'s>, Mark), SyntaxError> {
        match self.events.next_event() {
            Some(Ok((event, span))) => {
                self.last = Mark::from(&span.start);
                Ok((event, self.last))
            }
            Some(Err(error)) => Err(error.into()),
            None => Ok((Event::StreamEnd, self.last)),
        }
    }

    fn node(&mut self, event: Event<'s>, at: Mark, depth: usize) -> Result<Node, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(SyntaxError::at(
                at,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        let value = match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(SyntaxError::at(at, "tags are not supported"));
            }
            Event::Scalar(text, style, _, None) => scalar(&text, style, at)?,
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            Event::Alias(_) => {
                return Err(SyntaxError::at(at, "aliases are not supported; repeat the value"));
            }
            _ => return Err(SyntaxError::at(at, "a value is missing")),
        };
        Ok(Node { at, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, SyntaxError> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (event, at) = self.next()?;
            let text = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, _, _, None) => text.into_owned(),
                _ => return Err(SyntaxError::at(at, "a key must be plain text")),
            };
            if !seen.insert(text.clone()) {
                return Err(SyntaxError::at(
                    at,
                    format!("the key `{}` occurs twice", text.escape_debug()),
                ));
            }
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            entries.push((Key { at, text }, value));
        }
    }
}

fn scalar(text: &str, style: ScalarStyle, at: Mark) -> Result<Value, SyntaxError> {
    let layout = match style {
        ScalarStyle::Plain => return plain(text, at),
        ScalarStyle::Literal => Layout::Literal,
        ScalarStyle::Folded => Layout::Folded,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted if text.contains('\n') => Layout::Folded,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Layout::Inline(1),
    };
    Ok(Value::Text {
        text: text.to_owned(),
        layout,
    })
}

/// Resolves a plain scalar by the core schema.
fn plain(text: &str, at: Mark) -> Result<Value, SyntaxError> {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
        _ => return number(text, at),
    };
    Ok(value)
}

fn number(text: &str, at: Mark) -> Result<Value, SyntaxError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = match digits.get(..2) {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        _ => None,
    };
    let is_integer = match radix {
        Some(radix) => digits.len() > 2 && digits.chars().skip(2).all(|c| c.is_digit(radix)),
        None => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
    };
    if is_integer && radix.is_none() && digits.len() > 1 && digits.starts_with('0') {
        return Err(SyntaxError::at(
            at,
            format!("{text} would lose its leading zero; quote it"),
        ));
    }
    if is_integer {
        let parsed = match radix {
            Some(radix) if digits.len() == text.len() => {
                i64::from_str_radix(digits.get(2..).unwrap_or(""), radix)
            }
            Some(_) => return Ok(inline(text)),
            None => text.parse(),
        };
        return parsed
            .map(Value::Int)
            .map_err(|_| SyntaxError::at(at, format!("{text} is out of the range of integers; quote it")));
    }
    let begins = digits
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_digit() || b == b'.');
    let in_alphabet = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let has_digit = digits.bytes().any(|b| b.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(float) if begins && in_alphabet && has_digit => Ok(Value::Float(float)),
        _ => Ok(inline(text)),
    }
}

fn inline(text: &str) -> Value {
    // A plain scalar of several lines is folded, so its text has no line of its own to tell.
    Value::Text {
        text: text.to_owned(),
        layout: Layout::Inline(0),
    }
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Text { .. } => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// Compact JSON text, or the place of a number that JSON cannot say.
    pub(super) fn to_json(&self) -> Result<String, Mark> {
        let mut out = String::new();
        self.write_json(&mut out)?;
        Ok(out)
    }

    fn write_json(&self, out: &mut String) -> Result<(), Mark> {
        match &self.value {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => out.push_str(&value.to_string()),
            Value::Float(value) if value.is_finite() => {
                out.push_str(&serde_json::Number::from_f64(*value).ok_or(self.at)?.to_string());
            }
            Value::Float(_) => return Err(self.at),
            Value::Text { text, .. } => write_text(text, out),
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_json(out)?;
                }
                out.push(']');
            }
            Value::Map(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(&key.text, out);
                    out.push(':');
                    value.write_json(out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
