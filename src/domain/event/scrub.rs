//! Takes what identifies a person out of `properties` and `context` while writing them anew (invariant 6).
//!
//! One pass, from JSON text to JSON text without blanks or repeated members (the first of a name stays, also of those that
//! become the same name).
//!
//! | found | becomes |
//! |---|---|
//! | members that name an e-mail address, phone, user, visitor or session | a pseudonym of that kind |
//! | names of people, street addresses, postcodes, birthdays, positions on a map, advertising ids | left out |
//! | card and bank numbers, passwords, tokens | left out |
//! | `name`, `id` inside `traits`, `user`, `customer`, `device` … | left out; a pseudonym |
//! | text that looks like an e-mail address, anywhere, also inside keys and longer text | a pseudonym |
//! | text that is an IP address | its network: /24 of version 4, /48 of version 6 |
//! | URLs | without user, query string and fragment |
//! | with analytics denied, every pseudonym | left out, or `[removed]` inside text |
//!
//! It does not find names or phone numbers inside free text; shops are told not to send them.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::members::{Treatment, treatment};
use super::pseudonyms::Pseudonyms;
use super::traces::{Looks, bare_urls, find_at_sign, is_local_part, network};
use super::{EventLimits, QuarantineCode, RejectCode};
use crate::domain::ids::IdKind;
use crate::domain::json::{Malformed, Reader, Text, Value, write_string};

/// Longest number text kept: longer ones say nothing that a double could hold.
const MAX_NUMBER_BYTES: usize = 64;

pub(super) struct Scrubber<'s, 'c> {
    pub(super) limits: &'c EventLimits,
    pub(super) pseudonyms: &'s mut Pseudonyms<'c>,
    /// Whether pseudonyms may stay, or analytics is denied.
    pub(super) keep_ids: bool,
    pub(super) out: Vec<u8>,
    /// A value that had to be replaced, which makes the event unfit to fold.
    pub(super) flaw: Option<QuarantineCode>,
}

impl From<Malformed> for RejectCode {
    fn from(_: Malformed) -> RejectCode {
        RejectCode::MalformedEvent
    }
}

impl Scrubber<'_, '_> {
    /// Writes the object `text` scrubbed. `personal`: the object itself describes a person.
    pub(super) fn object_text(&mut self, text: &str, personal: bool) -> Result<(), RejectCode> {
        let mut reader = Reader::new(text);
        match reader.value()? {
            Value::Object => self.object(&mut reader, personal, 1),
            _ => Err(RejectCode::MalformedEvent),
        }
    }

    fn object(&mut self, reader: &mut Reader<'_>, personal: bool, depth: usize) -> Result<(), RejectCode> {
        if depth > self.limits.max_depth {
            return Err(RejectCode::TooDeep);
        }
        let mut seen: SmallVec<[Cow<'_, str>; 16]> = SmallVec::new();
        // One bit for each shape of name seen: most names are told apart without comparing.
        let mut shapes = 0u64;
        self.out.push(b'{');
        // Names that were not written as they came: two addresses of one network become one name.
        let mut rewritten: SmallVec<[Box<[u8]>; 2]> = SmallVec::new();
        let (mut first, mut empty) = (true, true);
        while let Some(key) = reader.key(&mut first)? {
            let name = key.decode();
            let shape = 1u64 << shape(&name);
            if shapes & shape != 0 && seen.contains(&name) {
                reader.skip()?;
                continue;
            }
            shapes |= shape;
            if seen.len() == self.limits.max_members {
                return Err(RejectCode::TooManyMembers);
            }
            let treatment = treatment(&name, personal);
            let dropped = match treatment {
                Treatment::Drop => true,
                Treatment::Pseudonym(_) => !self.keep_ids,
                _ => false,
            };
            if dropped {
                seen.push(name);
                reader.skip()?;
                continue;
            }
            let member = self.out.len();
            if !empty {
                self.out.push(b',');
            }
            let quoted = self.out.len();
            self.text(key, Treatment::Keep)?;
            let written = &self.out[quoted + 1..self.out.len() - 1];
            if written != name.as_bytes() {
                if rewritten.iter().any(|earlier| **earlier == *written) {
                    self.out.truncate(member);
                    seen.push(name);
                    reader.skip()?;
                    continue;
                }
                rewritten.push(written.into());
            }
            seen.push(name);
            empty = false;
            self.out.push(b':');
            self.value(reader, treatment, personal, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(
        &mut self,
        reader: &mut Reader<'_>,
        treatment: Treatment,
        personal: bool,
        depth: usize,
    ) -> Result<(), RejectCode> {
        match reader.value()? {
            Value::Object => {
                let personal = personal
                    || matches!(
                        treatment,
                        Treatment::Person | Treatment::Personal | Treatment::Pseudonym(_)
                    );
                return self.object(reader, personal, depth + 1);
            }
            Value::Array => {
                if depth >= self.limits.max_depth {
                    return Err(RejectCode::TooDeep);
                }
                self.out.push(b'[');
                let mut first = true;
                let mut separate = false;
                while reader.element(&mut first)? {
                    if separate {
                        self.out.push(b',');
                    }
                    separate = true;
                    self.value(reader, treatment, personal, depth + 1)?;
                }
                self.out.push(b']');
            }
            Value::Text(text) => return self.text(text, treatment),
            Value::Number(number) => match treatment {
                Treatment::Pseudonym(kind) => self.pseudonym(kind, number),
                Treatment::Person => self.pseudonym(IdKind::Other, number),
                _ if is_storable(number) => self.out.extend_from_slice(number.as_bytes()),
                _ => {
                    self.flaw = Some(QuarantineCode::NumberOutOfRange);
                    self.out.extend_from_slice(b"null");
                }
            },
            Value::Bool(flag) => self.out.extend_from_slice(if flag { b"true" } else { b"false" }),
            Value::Null => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    fn pseudonym(&mut self, kind: IdKind, value: &str) {
        if self.keep_ids {
            let pseudonym = self.pseudonyms.of(kind, value);
            write_string(&mut self.out, &pseudonym);
        } else {
            self.out.extend_from_slice(b"\"[removed]\"");
        }
    }

    fn text(&mut self, text: Text<'_>, treatment: Treatment) -> Result<(), RejectCode> {
        if text.raw.len() > self.limits.max_string_bytes {
            return Err(RejectCode::StringTooLong);
        }
        if !text.escaped && treatment == Treatment::Keep && !Looks::of(text.raw).suspicious() {
            self.out.push(b'"');
            self.out.extend_from_slice(text.raw.as_bytes());
            self.out.push(b'"');
            return Ok(());
        }
        let value = text.decode();
        match treatment {
            Treatment::Pseudonym(kind) if !value.trim().is_empty() => {
                let normal = match kind {
                    IdKind::Email => Cow::Owned(value.trim().to_lowercase()),
                    _ => value,
                };
                self.pseudonym(kind, &normal);
            }
            Treatment::Person if !value.trim().is_empty() => self.pseudonym(IdKind::Other, &value),
            Treatment::Ip => match network(&value) {
                Some(network) => write_string(&mut self.out, &network),
                None => self.out.extend_from_slice(b"null"),
            },
            Treatment::Url => {
                let bare = value.split(['?', '#']).next().unwrap_or_default();
                let clean = self.clean(bare);
                write_string(&mut self.out, &clean);
            }
            _ => {
                let clean = self.clean(&value);
                write_string(&mut self.out, &clean);
            }
        }
        Ok(())
    }

    /// Free text without addresses, queries and the like.
    fn clean<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let looks = Looks::of(text);
        if looks.like_an_ip()
            && let Some(network) = network(text)
        {
            return Cow::Owned(network);
        }
        let mut text = Cow::Borrowed(text);
        if looks.has(Looks::SLASH) && looks.has(Looks::COLON) && text.contains("://") {
            text = Cow::Owned(bare_urls(&text));
        }
        if looks.has(Looks::AT) {
            text = Cow::Owned(self.without_emails(&text));
        }
        text
    }

    fn without_emails(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, sign)) = find_at_sign(rest) {
            let (before, after) = (&rest[..at], &rest[at + sign..]);
            let start = before
                .rfind(|c: char| !is_local_part(c))
                .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
            let end = after
                .find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '-'))
                .unwrap_or(after.len());
            let (local, domain) = (&before[start..], after[..end].trim_end_matches(['.', '-']));
            out.push_str(&before[..start]);
            if local.is_empty() || !domain.contains('.') {
                out.push_str(&rest[start..at + sign]);
                rest = after;
            } else {
                if self.keep_ids {
                    let address = format!("{local}@{domain}").to_lowercase();
                    out.push_str(&self.pseudonyms.of(IdKind::Email, &address));
                } else {
                    out.push_str("[removed]");
                }
                rest = &after[domain.len()..];
            }
        }
        out.push_str(rest);
        out
    }
}

/// A number below 64 that differs for most names.
fn shape(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let byte = |at: usize| bytes.get(at).copied().map_or(0, u32::from);
    (byte(0).wrapping_mul(7)
        ^ byte(bytes.len() / 2).wrapping_mul(3)
        ^ byte(bytes.len().wrapping_sub(1))
        ^ bytes.len() as u32)
        & 63
}

/// Whether a double can hold the number.
fn is_storable(number: &str) -> bool {
    number.len() <= MAX_NUMBER_BYTES
        && (!number.bytes().any(|b| matches!(b, b'e' | b'E'))
            || number.parse::<f64>().is_ok_and(f64::is_finite))
}
