//! A strict JSON reader that borrows from its input.
//!
//! Why our own: an event is read four times on its way (split, scrubbed, checked, transformed), each time for a
//! few members. This reader finds them without building a tree, keeps the text of numbers (money is never read
//! through a float), tells duplicate members apart, and turns what JSON allows but nobody can store (lone surrogates)
//! into U+FFFD instead of failing.
//!
//! - It accepts what RFC 8259 accepts, nested up to [`MAX_DEPTH`] deep; a property test holds it against serde_json.
//! - It never recurses and never allocates, but to decode a string that has escapes.

use std::borrow::Cow;

/// Nesting beyond this is an attack on someone's stack.
pub(in crate::domain) const MAX_DEPTH: u32 = 128;

/// Where the input stops being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) struct Malformed {
    pub(in crate::domain) at: usize,
}

/// The value just read. After `Object` or `Array` the reader stands inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) enum Value<'a> {
    Object,
    Array,
    Text(Text<'a>),
    Number(&'a str),
    Bool(bool),
    Null,
}

/// A string as written, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) struct Text<'a> {
    pub(in crate::domain) raw: &'a str,
    pub(in crate::domain) escaped: bool,
}

/// A place in a text. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(in crate::domain) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Result<T> = std::result::Result<T, Malformed>;

impl<'a> Reader<'a> {
    pub(in crate::domain) fn new(text: &'a str) -> Self {
        Reader { text, at: 0 }
    }

    fn malformed<T>(&self) -> Result<T> {
        Err(Malformed { at: self.at })
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn skip_blanks(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                next => return next,
            }
        }
    }

    /// The text between this place and a later one.
    pub(in crate::domain) fn until(&self, later: &Reader<'a>) -> &'a str {
        self.text.get(self.at..later.at).unwrap_or_default().trim_ascii()
    }

    /// Nothing but blanks may follow.
    pub(in crate::domain) fn end(&mut self) -> Result<()> {
        if self.skip_blanks().is_none() {
            Ok(())
        } else {
            self.malformed()
        }
    }

    /// Reads a scalar, or enters an object or an array.
    #[inline]
    pub(in crate::domain) fn value(&mut self) -> Result<Value<'a>> {
        match self.skip_blanks() {
            Some(b'{') => {
                self.at += 1;
                Ok(Value::Object)
            }
            Some(b'[') => {
                self.at += 1;
                Ok(Value::Array)
            }
            Some(b'"') => self.string().map(Value::Text),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            _ => self.malformed(),
        }
    }

    /// The next member's key, or `None` at the end of the object, which is left. `first` starts as `true`.
    #[inline]
    pub(in crate::domain) fn key(&mut self, first: &mut bool) -> Result<Option<Text<'a>>> {
        match self.skip_blanks() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !*first => {
                self.at += 1;
                self.skip_blanks();
            }
            _ if *first => {}
            _ => return self.malformed(),
        }
        *first = false;
        if self.peek() != Some(b'"') {
            return self.malformed();
        }
        let key = self.string()?;
        if self.skip_blanks() != Some(b':') {
            return self.malformed();
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether another element follows; at the end of the array it is left. `first` starts as `true`.
    #[inline]
    pub(in crate::domain) fn element(&mut self, first: &mut bool) -> Result<bool> {
        match self.skip_blanks() {
            Some(b']') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.at += 1;
                // `[1,]` ends after a comma.
                if self.skip_blanks() == Some(b']') {
                    return self.malformed();
                }
            }
            Some(_) if *first => {}
            _ => return self.malformed(),
        }
        *first = false;
        Ok(true)
    }

    /// Reads over one whole value and returns its text.
    pub(in crate::domain) fn skip(&mut self) -> Result<&'a str> {
        self.skip_blanks();
        let start = self.at;
        // One bit per open container: 1 is an object.
        let mut open: u128 = 0;
        let mut depth = 0u32;
        let mut first;
        loop {
            match self.value()? {
                container @ (Value::Object | Value::Array) => {
                    if depth == MAX_DEPTH {
                        return self.malformed();
                    }
                    open = (open << 1) | u128::from(container == Value::Object);
                    depth += 1;
                    first = true;
                }
                _ => first = false,
            }
            // Leave every container that ends here.
            loop {
                if depth == 0 {
                    return Ok(self.text.get(start..self.at).unwrap_or_default());
                }
                let more = if open & 1 == 1 {
                    self.key(&mut first)?.is_some()
                } else {
                    self.element(&mut first)?
                };
                if more {
                    break;
                }
                open >>= 1;
                depth -= 1;
                first = false;
            }
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>> {
        if self
            .text
            .as_bytes()
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            self.at += word.len();
            Ok(value)
        } else {
            self.malformed()
        }
    }

    fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start {
            self.malformed()
        } else {
            Ok(())
        }
    }

    /// Stands on the opening quote.
    fn string(&mut self) -> Result<Text<'a>> {
        self.at += 1;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            while let Some(word) = bytes
                .get(self.at..self.at + 8)
                .and_then(|word| word.try_into().ok())
            {
                match plain_prefix(word) {
                    8 => self.at += 8,
                    plain => {
                        self.at += plain;
                        break;
                    }
                }
            }
            match bytes.get(self.at) {
                Some(b'"') => {
                    let raw = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    match bytes.get(self.at) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            let hex = bytes.get(self.at + 1..self.at + 5);
                            if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                                return self.malformed();
                            }
                            self.at += 5;
                        }
                        _ => return self.malformed(),
                    }
                }
                Some(byte) if *byte >= 0x20 => self.at += 1,
                _ => return self.malformed(),
            }
        }
    }
}

impl<'a> Text<'a> {
    /// The string meant; a lone surrogate becomes U+FFFD.
    #[inline]
    pub(in crate::domain) fn decode(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut out = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let escape = &rest[at + 1..];
            rest = escape.get(1..).unwrap_or_default();
            match escape.as_bytes().first() {
                Some(b'b') => out.push('\u{8}'),
                Some(b'f') => out.push('\u{c}'),
                Some(b'n') => out.push('\n'),
                Some(b'r') => out.push('\r'),
                Some(b't') => out.push('\t'),
                Some(b'u') => {
                    let high = hex4(rest);
                    rest = rest.get(4..).unwrap_or_default();
                    let low = if (0xd800..0xdc00).contains(&high) && rest.starts_with("\\u") {
                        Some(hex4(&rest[2..])).filter(|low| (0xdc00..0xe000).contains(low))
                    } else {
                        None
                    };
                    let code = match low {
                        Some(low) => {
                            rest = rest.get(6..).unwrap_or_default();
                            0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                        }
                        None => high,
                    };
                    out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                Some(other) => out.push(char::from(*other)),
                None => {}
            }
        }
        out.push_str(rest);
        Cow::Owned(out)
    }
}

/// How many of eight bytes come before the first quote, backslash or control character: all bytes are looked at
/// at once, as one integer. A byte is zero where subtracting one from it borrows; a borrow can only spoil bytes
/// after the first hit.
#[inline]
fn plain_prefix(word: [u8; 8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(word);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    (((control | quote | backslash) & HIGH).trailing_zeros() / 8) as usize
}

fn hex4(text: &str) -> u32 {
    text.get(..4)
        .and_then(|hex| u32::from_str_radix(hex, 16).ok())
        .unwrap_or(0xfffd)
}

/// Appends `text` as a JSON string, with its quotes. NUL, which some stores refuse, becomes U+FFFD.
pub(in crate::domain) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0 => "\u{fffd}".as_bytes(),
            1..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..at]);
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
        from = at + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Result<&str> {
        let mut reader = Reader::new(text);
        let value = reader.skip()?;
        reader.end()?;
        Ok(value)
    }

    fn serde_accepts(text: &str) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    }

    #[test]
    fn texts_are_judged_as_serde_json_does() {
        for text in [
            "",
            " ",
            "{}",
            "[]",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "[1 2]",
            "01",
            "-",
            "-0",
            "1.",
            ".1",
            "1e",
            "1e+",
            "1e5",
            "1E-5",
            "tru",
            "true",
            "truex",
            "nul",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u123g\"",
            "\"\\ud800\"",
            "\"\u{1}\"",
            "[[[]]]",
            "[[]",
            "{}}",
            "{\"a\":{\"b\":[1,{}]}} ",
            "1 2",
            "\u{feff}{}",
            "{\"a\":1 \"b\":2}",
            "[1,\n2]",
            "{ }",
            "[ ]",
        ] {
            assert_eq!(whole(text).is_ok(), serde_accepts(text), "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(whole(&nested(MAX_DEPTH as usize)).is_ok());
        assert!(whole(&nested(MAX_DEPTH as usize + 1)).is_err());
        assert!(whole(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn escapes_decode_and_lone_surrogates_become_replacement_characters() {
        for (raw, meant) in [
            (r"a\nb\t\u0041\/", "a\nb\tA/"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ude00\ud83d", "\u{fffd}\u{fffd}"),
            (r"\u0000", "\0"),
        ] {
            let text = format!("\"{raw}\"");
            let Ok(Value::Text(read)) = Reader::new(&text).value() else {
                panic!("{raw}")
            };
            assert_eq!(read.decode(), meant, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_as_serde_json_does(text in "[\\[\\]{}:,\"\\\\ a0-9.eEu+-]{0,24}|\\PC{0,32}") {
            prop_assert_eq!(whole(&text).is_ok(), serde_accepts(&text));
        }

        #[test]
        fn strings_round_trip(text in "\\PC{0,20}|[\\x01-\\x7f]{0,20}") {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            let written = String::from_utf8(out).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text.clone());
            let Ok(Value::Text(read)) = Reader::new(&written).value() else { panic!("no string") };
            prop_assert_eq!(read.decode(), text);
        }
    }
}
