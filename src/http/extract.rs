//! What handlers take out of a request: the API key, the query's pairs, and a bounded body.
//!
//! - A key comes in `Authorization: Bearer`, as the user name of `Authorization: Basic` (Segment's libraries), in
//!   `?key=` (public keys only, since URLs end up in logs), or in the body. The first of these that is there counts;
//!   there is no falling through from a wrong one.
//! - A body is bounded as sent, after inflation and in time, before anything looks at it. A request waits for
//!   nobody: it gets its share of the memory for bodies at once or is told to come back.
//! - Query strings may hold identities, so nothing in here logs (invariant 6).

use std::borrow::Cow;
use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use percent_encoding::percent_decode_str;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{Code, Problem};
use crate::keys::{ApiKey, KeyKind, KeyRing};

/// Higher: a slow sender holds its share of memory for longer. Lower: phones on bad networks lose their events.
const BODY_BUDGET: Duration = Duration::from_secs(15);

/// The memory that one unit of the in-flight bound stands for: nearly every body takes one unit.
pub(super) const UNIT_BYTES: usize = 64 * 1024;

/// A key as presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    Header(Cow<'a, str>),
    Url(Cow<'a, str>),
}

/// The key in the header, else in the query.
///
/// # Errors
/// [`Code::UnknownKey`] for an `Authorization` header that cannot be read.
pub(super) fn presented_key(parts: &Parts) -> Result<Option<Presented<'_>>, Problem> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let unreadable = || {
            Problem::new(
                Code::UnknownKey,
                "expected Authorization: Bearer KEY, or Basic with the key as user name",
            )
        };
        let text = value.to_str().map_err(|_| unreadable())?;
        return header_key(text)
            .map(|key| Some(Presented::Header(key)))
            .ok_or_else(unreadable);
    }
    let pair = Query::new(parts.uri.query().unwrap_or_default())
        .pairs()
        .find(|(name, _)| name == "key");
    Ok(pair
        .map(|(_, value)| value.decode())
        .transpose()?
        .map(Presented::Url))
}

fn header_key(text: &str) -> Option<Cow<'_, str>> {
    let (scheme, credentials) = text.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Cow::Borrowed(credentials));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let user = decoded.split_once(':').map_or(&*decoded, |(user, _)| user);
    Some(Cow::Owned(user.to_owned()))
}

/// What the key grants: the one presented, else the one in the body.
///
/// # Errors
/// [`Code::MissingKey`], [`Code::UnknownKey`], and [`Code::ServerKeyInUrl`].
pub(super) fn authenticate<'a>(
    keys: &'a KeyRing,
    presented: Option<&Presented<'_>>,
    in_body: Option<&str>,
) -> Result<&'a ApiKey, Problem> {
    let (text, in_url) = match (presented, in_body) {
        (Some(Presented::Header(text)), _) => (&**text, false),
        (Some(Presented::Url(text)), _) => (&**text, true),
        (None, Some(text)) => (text, false),
        (None, None) => return Err(Code::MissingKey.into()),
    };
    let key = keys.find(text).ok_or(Code::UnknownKey)?;
    if in_url && key.kind == KeyKind::Server {
        return Err(Code::ServerKeyInUrl.into());
    }
    Ok(key)
}

/// A query, to be taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a>(Raw<'a>);

/// A piece of a query as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raw<'a> {
    pub(super) text: &'a str,
    /// Nothing in it is encoded. Looked for in the whole query at once, for most have nothing.
    is_plain: bool,
}

impl<'a> Query<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let is_plain = memchr::memchr2(b'%', b'+', text.as_bytes()).is_none();
        Query(Raw { text, is_plain })
    }

    /// The pairs. Names are decoded where that is possible, values are raw.
    pub(super) fn pairs(self) -> impl Iterator<Item = (Cow<'a, str>, Raw<'a>)> {
        let Query(Raw { text, is_plain }) = self;
        let raw = move |text| Raw { text, is_plain };
        pieces(text, b'&')
            .filter(|pair| !pair.is_empty())
            .map(move |pair| {
                let (name, value) = cut(pair, b'=').unwrap_or((pair, ""));
                (raw(name).decode().unwrap_or(Cow::Borrowed(name)), raw(value))
            })
    }
}

impl<'a> Raw<'a> {
    /// # Errors
    /// As of [`decode`].
    pub(super) fn decode(self) -> Result<Cow<'a, str>, Problem> {
        match self.is_plain {
            true => Ok(Cow::Borrowed(self.text)),
            false => decode(self.text),
        }
    }
}

/// What is before and after the first `mark`, an ASCII character. For short texts: a plain search of some ten bytes takes less
/// than the call of a fast one.
#[inline]
pub(super) fn cut(text: &str, mark: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == mark)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The pieces between `mark`s, an ASCII character.
pub(super) fn pieces(text: &str, mark: u8) -> impl Iterator<Item = &str> {
    let mut left = Some(text);
    std::iter::from_fn(move || {
        let text = left?;
        match cut(text, mark) {
            Some((piece, rest)) => {
                left = Some(rest);
                Some(piece)
            }
            None => left.take(),
        }
    })
}

/// Decodes a name or value of a query: percent-encoded, with `+` for a blank.
///
/// # Errors
/// [`Code::InvalidParameter`] where the bytes are not UTF-8.
fn decode(raw: &str) -> Result<Cow<'_, str>, Problem> {
    if memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = if raw.contains('+') {
        let spaced = raw.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8();
        decoded.map(|text| Cow::Owned(text.into_owned()))
    } else {
        percent_decode_str(raw).decode_utf8()
    };
    decoded.map_err(|_| Problem::new(Code::InvalidParameter, "the query is not percent-encoded UTF-8"))
}

/// Whether a text has a control character; most are plain by their bytes alone.
pub(super) fn has_control(text: &str) -> bool {
    let is_plain = text.bytes().all(|b| matches!(b, b' '..=b'~'));
    !is_plain && text.contains(char::is_control)
}

/// How large a body may be, and how much all of them together may take.
#[derive(Debug)]
pub(super) struct BodyLimits {
    pub(super) body_bytes: usize,
    pub(super) inflated_bytes: usize,
    /// In units of [`UNIT_BYTES`].
    room: Semaphore,
}

/// A body with the room it takes.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) bytes: Bytes,
    _room: SemaphorePermit<'a>,
}

impl BodyLimits {
    /// `in_flight` bodies of ordinary size at once; larger ones count for several.
    pub(super) fn new(body_bytes: usize, inflated_bytes: usize, in_flight: usize) -> Self {
        BodyLimits {
            body_bytes,
            inflated_bytes,
            room: Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS)),
        }
    }

    /// Reads a body whole, inflating gzip.
    ///
    /// # Errors
    /// A 413 beyond a limit, a 400 or 415 for what cannot be read, a 503 where there is no room or no time.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Held<'_>, Problem> {
        check_media_type(headers)?;
        let gzip = is_gzip(headers)?;
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > self.body_bytes) {
            return Err(Code::BodyTooLarge.into());
        }
        let room = self.room(declared.unwrap_or(self.body_bytes), gzip)?;
        let sent = Limited::new(body, self.body_bytes).collect();
        let sent = match tokio::time::timeout(BODY_BUDGET, sent).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Code::BodyTooLarge.into()),
            Ok(Err(_)) => return Err(Code::IncompleteBody.into()),
            Err(_) => return Err(Code::BodyTimeout.into()),
        };
        let bytes = if gzip {
            inflate(&sent, self.inflated_bytes)?
        } else {
            sent
        };
        Ok(Held { bytes, _room: room })
    }

    fn room(&self, length: usize, gzip: bool) -> Result<SemaphorePermit<'_>, Problem> {
        let bytes = if gzip {
            length.saturating_add(self.inflated_bytes)
        } else {
            length
        };
        let units = u32::try_from(1 + bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        self.room
            .try_acquire_many(units)
            .map_err(|_| Code::Overloaded.into())
    }
}

/// JSON, or `text/plain` that carries JSON: all that `sendBeacon` sends without a preflight.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let known = ["application/json", "text/plain"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known));
    if known {
        Ok(())
    } else {
        Err(Code::UnsupportedMediaType.into())
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(false);
    };
    match value
        .to_str()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        _ => Err(Code::UnsupportedEncoding.into()),
    }
}

/// Inflates all members of a gzip stream, up to `limit` bytes.
pub(super) fn inflate(sent: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let mut inflated = Vec::with_capacity(sent.len().saturating_mul(4).min(limit));
    let cap = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = flate2::read::MultiGzDecoder::new(sent)
        .take(cap)
        .read_to_end(&mut inflated);
    read.map_err(|_| Code::InvalidGzip)?;
    if inflated.len() > limit {
        return Err(Code::BodyTooLarge.into());
    }
    Ok(inflated.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, Problem>) -> Code {
        result.unwrap_err().code
    }

    fn parts(uri: &str, authorization: Option<&str>) -> Parts {
        let mut request = axum::http::Request::builder().uri(uri);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_header_goes_before_the_query() {
        let key =
            |uri, header| presented_key(&parts(uri, header)).map(|key| key.map(|key| format!("{key:?}")));
        assert_eq!(key("/x", None), Ok(None));
        assert_eq!(key("/x?a=b&key=p%2Bk", None), Ok(Some("Url(\"p+k\")".into())));
        assert_eq!(
            key("/x?key=pk", Some("Bearer sk")),
            Ok(Some("Header(\"sk\")".into()))
        );
        assert_eq!(key("/x", Some("bearer  sk ")), Ok(Some("Header(\"sk\")".into())));
        let basic = format!("Basic {}", STANDARD.encode("wk:"));
        assert_eq!(key("/x", Some(&basic)), Ok(Some("Header(\"wk\")".into())));
        for bad in ["sk", "Digest x", "Basic %%%", "Basic /////w=="] {
            assert_eq!(
                code(presented_key(&parts("/x?key=pk", Some(bad)))),
                Code::UnknownKey,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_query_is_decoded_as_forms_are() {
        assert_eq!(decode("a+b%20c%2B").unwrap(), "a b c+");
        assert_eq!(decode("100%").unwrap(), "100%");
        assert_eq!(code(decode("%FF")), Code::InvalidParameter);
        assert_eq!(code(decode("a+%FF")), Code::InvalidParameter);
        assert!(matches!(decode("a.b~c3"), Ok(Cow::Borrowed("a.b~c3"))));
        let of = |query| -> Vec<(Cow<'_, str>, &str, Cow<'_, str>)> {
            let pairs = Query::new(query).pairs();
            pairs
                .map(|(name, raw)| (name, raw.text, raw.decode().unwrap()))
                .collect()
        };
        assert_eq!(
            of("a=1&&b&%63=%64&=x"),
            [
                ("a".into(), "1", "1".into()),
                ("b".into(), "", "".into()),
                ("c".into(), "%64", "d".into()),
                ("".into(), "x", "x".into())
            ]
        );
        assert_eq!(
            of("a=1=2&b"),
            [("a".into(), "1=2", "1=2".into()), ("b".into(), "", "".into())]
        );
        assert_eq!(of(""), []);
    }

    #[test]
    fn pieces_are_those_of_the_standard_library() {
        for text in ["", ",", "a", "a,b", ",a,,b,", "\u{e9},\u{e9}"] {
            assert!(pieces(text, b',').eq(text.split(',')), "{text:?}");
            assert_eq!(cut(text, b','), text.split_once(','), "{text:?}");
        }
    }

    #[test]
    fn control_characters_are_those_of_unicode() {
        for c in (0..0x3000).filter_map(char::from_u32) {
            assert_eq!(has_control(&format!("a{c}b")), c.is_control(), "{c:?}");
        }
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn inflation_is_capped() {
        let bomb = gzip(&vec![b' '; 1 << 20]);
        assert!(bomb.len() < 4096);
        assert_eq!(code(inflate(&bomb, (1 << 20) - 1)), Code::BodyTooLarge);
        assert_eq!(inflate(&bomb, 1 << 20).unwrap().len(), 1 << 20);
        assert_eq!(code(inflate(&bomb[..bomb.len() / 2], 1 << 20)), Code::InvalidGzip);
        assert_eq!(code(inflate(b"{}", 100)), Code::InvalidGzip);
    }

    #[tokio::test]
    async fn bodies_share_a_bounded_room() {
        let limits = BodyLimits::new(200_000, 1 << 20, 4);
        let read = |length: usize| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_LENGTH, length.into());
            let limits = &limits;
            async move { limits.read(&headers, Body::from(vec![b' '; length])).await }
        };
        let held = read(100_000).await.unwrap();
        let small = read(10).await.unwrap();
        assert_eq!(code(read(100_000).await), Code::Overloaded);
        drop((held, small));
        assert!(read(200_000).await.is_ok());
        assert_eq!(code(read(200_001).await), Code::BodyTooLarge);
        // Without a length, the whole limit is reserved and enforced while reading.
        let endless = Body::from(vec![b' '; 200_001]);
        assert_eq!(
            code(limits.read(&HeaderMap::new(), endless).await),
            Code::BodyTooLarge
        );
    }
}
