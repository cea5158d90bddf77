//! The answer as JSON, written straight into the response's buffer.

use std::io::Write as _;

use super::{Decision, Filling, Item, PlacementDecision};

impl Decision<'_> {
    /// Appends the `placements` member's value: a JSON object, one member for each placement.
    pub fn write_placements(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, placement) in self.placements.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(placement.name, out);
            out.push(b':');
            placement.write(out);
        }
        out.push(b'}');
    }

    /// Appends the `segments` member's value: a JSON array of names.
    pub fn write_segments(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(segment, out);
        }
        out.push(b']');
    }
}

impl PlacementDecision<'_> {
    /// The kind's name on the wire.
    pub fn kind(&self) -> &'static str {
        match self.filling {
            Filling::Content(_) => "content",
            Filling::Ranking(_) => "ranking",
            Filling::Recommendation(_) => "recommendation",
        }
    }

    /// Appends the placement's value.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"kind\":\"");
        out.extend_from_slice(self.kind().as_bytes());
        out.push(b'"');
        if let Some(experience) = self.experience {
            out.extend_from_slice(b",\"experience\":");
            write_text(experience, out);
        }
        if let Some(variant) = self.variant {
            out.extend_from_slice(b",\"variant\":");
            write_text(variant, out);
        }
        match &self.filling {
            Filling::Content(payload) => {
                out.extend_from_slice(b",\"payload\":");
                out.extend_from_slice(payload.map_or("null", |payload| payload.as_json()).as_bytes());
            }
            Filling::Ranking(items) | Filling::Recommendation(items) => write_items(items, out),
        }
        out.extend_from_slice(b",\"reason\":\"");
        out.extend_from_slice(self.reason.as_str().as_bytes());
        out.extend_from_slice(b"\"}");
    }
}

fn write_items(items: &[Item<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"items\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"id\":");
        write_text(item.id, out);
        out.extend_from_slice(b",\"score\":");
        write_micros(item.micros, out);
        if let Some(because) = item.because {
            out.extend_from_slice(b",\"because\":");
            write_text(because, out);
        }
        out.push(b'}');
    }
    out.push(b']');
}

/// Millionths as a decimal number without trailing zeros.
fn write_micros(micros: u64, out: &mut Vec<u8>) {
    let (whole, mut fraction) = (micros / 1_000_000, (micros % 1_000_000) as u32);
    if whole < 10 {
        out.push(b'0' + whole as u8);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    }
    if fraction == 0 {
        return;
    }
    let mut digits = *b".000000";
    for digit in digits.iter_mut().skip(1).rev() {
        *digit += (fraction % 10) as u8;
        fraction /= 10;
    }
    let last = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
    out.extend_from_slice(digits.get(..=last).unwrap_or_default());
}

/// Bytes that a JSON string holds as they are.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

/// A JSON string.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if !text.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
                '\0'..='\u{1f}' => {
                    let _ = write!(out, "\\u{:04x}", c as u32);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}
