//! The bounds of a condition, checked over its tokens before the parser runs.
//!
//! The parser and whatever walks its result recurse, so their stack is as deep as the text is nested or its
//! operator chains are long. Every node of the syntax tree but a parenthesis costs one token here, so counting
//! tokens bounds the tree. Text that is no CEL token at all is refused here too, with a better position.

use super::{CompileError, MAX_BYTES, MAX_DEPTH, MAX_NODES};

/// # Errors
/// Too long, too many nodes, too deep, an unterminated string, or a character that CEL does not have.
pub(super) fn check_bounds(source: &str) -> Result<(), CompileError> {
    if source.len() > MAX_BYTES {
        let message = format!(
            "a condition has at most {MAX_BYTES} bytes, this one has {}",
            source.len()
        );
        return Err(CompileError::at(MAX_BYTES, message));
    }
    let mut scanner = Scanner {
        source,
        position: 0,
        tokens: 0,
        nodes: 0,
        depth: 0,
        conditionals: 0,
    };
    while scanner.token()? {}
    if scanner.tokens == 0 {
        return Err(CompileError::at(0, "the condition is empty"));
    }
    Ok(())
}

struct Scanner<'a> {
    source: &'a str,
    position: usize,
    tokens: usize,
    nodes: usize,
    depth: usize,
    conditionals: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.position..).unwrap_or_default()
    }

    fn refuse<T>(&self, message: impl Into<String>) -> Result<T, CompileError> {
        Err(CompileError::at(self.position, message))
    }

    /// Steps over one token or one blank; false at the end.
    fn token(&mut self) -> Result<bool, CompileError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(false);
        };
        let length = match first {
            ' ' | '\t' | '\n' | '\r' | '\x0c' => 1,
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            'a'..='z' | 'A'..='Z' | '_' => self.word(rest)?,
            '0'..='9' => {
                self.node()?;
                number_length(rest)
            }
            '"' | '\'' => self.string(rest, 0)?,
            '(' | '[' | '{' => {
                self.depth += 1;
                self.check_depth()?;
                if first != '(' {
                    self.node()?;
                }
                1
            }
            ')' | ']' | '}' => {
                self.depth = self.depth.saturating_sub(1);
                1
            }
            '?' => {
                self.conditionals += 1;
                self.check_depth()?;
                self.node()?;
                1
            }
            '.' | ',' | ':' => 1,
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '!' | '=' | '&' | '|' => {
                self.node()?;
                let double = ["==", "!=", "<=", ">=", "&&", "||"]
                    .iter()
                    .any(|two| rest.starts_with(two));
                match first {
                    '=' | '&' | '|' if !double => {
                        return self.refuse(format!("`{first}` is not a CEL operator; `{first}{first}` is"));
                    }
                    _ => 1 + usize::from(double),
                }
            }
            '`' => return self.refuse("names in backquotes are not supported"),
            other => return self.refuse(format!("unexpected character {other:?}")),
        };
        let blank = first.is_ascii_whitespace() || (first == '/' && length > 1);
        self.tokens += usize::from(!blank);
        self.position += length;
        Ok(true)
    }

    fn node(&mut self) -> Result<(), CompileError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.refuse(format!(
                "a condition has at most {MAX_NODES} nodes; the limit is reached here"
            ));
        }
        Ok(())
    }

    fn check_depth(&self) -> Result<(), CompileError> {
        if self.depth + self.conditionals > MAX_DEPTH {
            return self.refuse(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        Ok(())
    }

    /// A name, or the prefix of a raw or bytes string.
    fn word(&mut self, rest: &str) -> Result<usize, CompileError> {
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_prefix = matches!(word.to_ascii_lowercase().as_str(), "r" | "b" | "rb" | "br");
        if is_prefix && after.starts_with(['"', '\'']) {
            return self.string(rest, end);
        }
        self.node()?;
        Ok(end)
    }

    /// The length of a string whose opening quote follows `prefix` bytes.
    fn string(&mut self, rest: &str, prefix: usize) -> Result<usize, CompileError> {
        self.node()?;
        let (letters, body) = rest.split_at(prefix);
        let raw = letters.contains(['r', 'R']);
        let single = body.get(..1).unwrap_or_default();
        let triple = single.repeat(3);
        let quote = if body.starts_with(&triple) {
            triple.as_str()
        } else {
            single
        };
        let mut at = prefix + quote.len();
        loop {
            let tail = rest.get(at..).unwrap_or_default();
            if tail.starts_with(quote) {
                return Ok(at + quote.len());
            }
            let mut characters = tail.chars();
            match characters.next() {
                None => return self.refuse("the string is not closed"),
                Some('\n' | '\r') if quote.len() == 1 => {
                    return self.refuse("the string is not closed on its line");
                }
                Some('\\') if !raw => at += 1 + characters.next().map_or(0, char::len_utf8),
                Some(other) => at += other.len_utf8(),
            }
        }
    }
}

/// Digits, letters and points of a number, with the sign of an exponent: generous, since the parser decides.
fn number_length(rest: &str) -> usize {
    let hexadecimal = rest.starts_with("0x");
    let mut previous = '0';
    for (index, c) in rest.char_indices() {
        let exponent_sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !hexadecimal;
        // `1.e()` would be a call on a number; a point belongs to the number only before a digit.
        let point = c == '.'
            && rest
                .get(index + 1..)
                .is_some_and(|r| r.starts_with(|d: char| d.is_ascii_digit()));
        if !(c.is_ascii_alphanumeric() || exponent_sign || point) {
            return index;
        }
        previous = c;
    }
    rest.len()
}
