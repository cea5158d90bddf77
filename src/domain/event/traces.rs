//! What addresses, URLs and IP addresses look like inside text.

use std::net::IpAddr;

/// Whether `text` holds something that looks like an e-mail address.
pub(super) fn has_email(text: &str) -> bool {
    let mut from = 0;
    // Each sign by itself: one that is no address's must not hide another that is.
    while let Some((at, sign)) = text.get(from..).and_then(find_at_sign) {
        let (sign_at, after) = (from + at, from + at + sign);
        let is_after_local_part = text[..sign_at].chars().next_back().is_some_and(is_local_part);
        if is_after_local_part && text[after..].contains('.') {
            return true;
        }
        from = after;
    }
    false
}

/// Where the first `@`, plain or percent-encoded, stands, and how long it is. Reads no further, so that a text of
/// nothing but signs takes no longer than any other.
pub(super) fn find_at_sign(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().find_map(|(at, byte)| match byte {
        b'@' => Some((at, 1)),
        b'%' if bytes.get(at + 1..at + 3) == Some(b"40") => Some((at, 3)),
        _ => None,
    })
}

pub(super) fn is_local_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'')
}

/// What one look at each byte of a text tells.
#[derive(Clone, Copy)]
pub(super) struct Looks(u8);

impl Looks {
    /// `@`, or the `%` of an encoded one.
    pub(super) const AT: u8 = 1;
    pub(super) const SLASH: u8 = 2;
    pub(super) const COLON: u8 = 4;
    const DOT: u8 = 8;
    /// Anything that no IP address with a port holds. Beyond ASCII there may be blanks around it.
    const NOT_IP: u8 = 16;

    const TABLE: [u8; 256] = {
        let mut table = [Looks::NOT_IP; 256];
        let mut byte = 0;
        while byte < 256 {
            let blank = matches!(byte as u8, b' ' | b'\t'..=b'\r') || byte >= 0x80;
            if (byte as u8).is_ascii_hexdigit() || matches!(byte as u8, b'[' | b']') || blank {
                table[byte] = 0;
            }
            byte += 1;
        }
        table[b'@' as usize] = Looks::AT | Looks::NOT_IP;
        table[b'%' as usize] = Looks::AT | Looks::NOT_IP;
        table[b'/' as usize] = Looks::SLASH | Looks::NOT_IP;
        table[b':' as usize] = Looks::COLON;
        table[b'.' as usize] = Looks::DOT;
        table
    };

    pub(super) fn of(text: &str) -> Looks {
        Looks(
            text.bytes()
                .fold(0, |looks, byte| looks | Looks::TABLE[usize::from(byte)]),
        )
    }

    pub(super) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub(super) fn like_an_ip(self) -> bool {
        !self.has(Looks::NOT_IP) && (self.has(Looks::DOT) || self.has(Looks::COLON))
    }

    /// Whether the text may be or hold an e-mail address, a URL or an IP address.
    pub(super) fn suspicious(self) -> bool {
        self.has(Looks::AT) || (self.has(Looks::SLASH) && self.has(Looks::COLON)) || self.like_an_ip()
    }
}

/// The network of an IP address, where `text` is one, with or without a port.
pub(super) fn network(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > 64 {
        return None;
    }
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<std::net::SocketAddr>().map(|socket| socket.ip()))
        .ok()?;
    Some(match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_string()
        }
    })
}

/// Cuts user, query string and fragment from every URL in `text`.
pub(super) fn bare_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(char::is_whitespace).unwrap_or(after.len());
        let (url, next) = after.split_at(end);
        let url = url.split(['?', '#']).next().unwrap_or_default();
        let authority = url.find('/').unwrap_or(url.len());
        let user = url[..authority].rfind('@').map_or(0, |at| at + 1);
        out.push_str(&url[user..]);
        rest = next;
    }
    out.push_str(rest);
    out
}
