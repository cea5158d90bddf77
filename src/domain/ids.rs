//! Identifiers: shops, pseudonyms, subjects, event ids and instants.
//!
//! Why: no raw identifier may come to rest (invariant 6), and nothing of one shop may ever meet another's.
//! Both are cheapest to hold where ids are made, so a [`SubjectId`] can only be built from a [`PseudonymKey`].
//!
//! - A pseudonym is `kid.base64url(HMAC-SHA-256(key, kind ‖ 0 ‖ shop ‖ 0 ‖ value))`. The separators are NUL
//!   bytes; a shop name cannot contain one, so two different inputs never share an encoding.
//! - The environment (`live`, `test`) is part of the shop, so test traffic cannot touch live profiles.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Milliseconds since the Unix epoch, UTC. May be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whole days since the epoch (floor), the key of per-day counters and of `dim_date`.
    pub fn day(self) -> i64 {
        self.0.div_euclid(86_400_000)
    }
}

/// The environment a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    Live,
    Test,
}

impl Environment {
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Live => "live",
            Environment::Test => "test",
        }
    }
}

/// A shop in one environment, written `name/live` or `name/test`. Part of every id and unique key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shop(Arc<str>);

/// A shop's name is 1 to 64 characters of `a-z 0-9 - _`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a shop is NAME/live or NAME/test, where NAME is 1 to 64 characters of a-z, 0-9, '-' and '_'")]
pub struct InvalidShop;

impl Shop {
    /// # Errors
    /// [`InvalidShop`] when `name` is empty, longer than 64 bytes, or has a character outside `a-z 0-9 - _`.
    pub fn new(name: &str, environment: Environment) -> Result<Self, InvalidShop> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(legal) {
            return Err(InvalidShop);
        }
        Ok(Shop(format!("{name}/{}", environment.as_str()).into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn environment(&self) -> Environment {
        if self.0.ends_with("/test") {
            Environment::Test
        } else {
            Environment::Live
        }
    }
}

impl TryFrom<String> for Shop {
    type Error = InvalidShop;

    fn try_from(text: String) -> Result<Self, InvalidShop> {
        match text.rsplit_once('/') {
            Some((name, "live")) => Shop::new(name, Environment::Live),
            Some((name, "test")) => Shop::new(name, Environment::Test),
            _ => Err(InvalidShop),
        }
    }
}

impl From<Shop> for String {
    fn from(shop: Shop) -> String {
        shop.0.as_ref().to_owned()
    }
}

impl From<&Shop> for Arc<str> {
    fn from(shop: &Shop) -> Arc<str> {
        Arc::clone(&shop.0)
    }
}

impl fmt::Display for Shop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of value a pseudonym stands for. The kind is part of the hashed input, so a user id `x` and an
/// anonymous id `x` get unrelated pseudonyms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdKind {
    Anonymous,
    User,
    Session,
    Email,
    Phone,
    /// Any other personal value found in an event (a name, a street).
    Other,
}

impl IdKind {
    fn as_str(self) -> &'static str {
        match self {
            IdKind::Anonymous => "anonymous",
            IdKind::User => "user",
            IdKind::Session => "session",
            IdKind::Email => "email",
            IdKind::Phone => "phone",
            IdKind::Other => "other",
        }
    }
}

/// Of a hash in Base64 without padding.
const DIGITS: usize = 43;

/// The key that turns identifiers into pseudonyms, with its key id. Keyed once, cloned per use: the two
/// HMAC pads are compressed only when the key is built.
#[derive(Clone)]
pub struct PseudonymKey {
    kid: Arc<str>,
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PseudonymKey({})", self.kid)
    }
}

impl PseudonymKey {
    /// `kid` names the key in every pseudonym; `secret` should have 32 random bytes.
    pub fn new(kid: &str, secret: &[u8]) -> Self {
        let keyed = <Hmac<Sha256> as hmac::digest::KeyInit>::new_from_slice(secret);
        // HMAC takes a key of any length.
        #[allow(clippy::expect_used)]
        let keyed = keyed.expect("HMAC accepts keys of every length");
        PseudonymKey {
            kid: kid.into(),
            keyed,
        }
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// `kid.base64url(HMAC-SHA-256(kind ‖ 0 ‖ shop ‖ 0 ‖ value))`.
    pub fn pseudonym(&self, kind: IdKind, shop: &Shop, value: &str) -> String {
        self.prefixed("", kind, shop, value)
    }

    fn prefixed(&self, prefix: &str, kind: IdKind, shop: &Shop, value: &str) -> String {
        let mut mac = self.keyed.clone();
        for part in [
            kind.as_str().as_bytes(),
            &[0],
            shop.as_str().as_bytes(),
            &[0],
            value.as_bytes(),
        ] {
            mac.update(part);
        }
        let mut text = String::with_capacity(prefix.len() + self.kid.len() + 1 + DIGITS);
        text.push_str(prefix);
        text.push_str(&self.kid);
        text.push('.');
        // The encoder for a text works through a large buffer of its own.
        let mut digits = [0; DIGITS];
        let encoded = URL_SAFE_NO_PAD.encode_slice(mac.finalize().into_bytes(), &mut digits);
        let encoded = encoded
            .ok()
            .and_then(|count| str::from_utf8(digits.get(..count)?).ok());
        // A hash of 256 bits is that many characters of ASCII.
        #[allow(clippy::expect_used)]
        text.push_str(encoded.expect("Base64 of a hash"));
        text
    }

    /// A value that tells whether two nodes hold the same key, without revealing it. Stored in the warehouse;
    /// a node whose value differs refuses to start.
    pub fn check_value(&self) -> String {
        let mut mac = self.keyed.clone();
        mac.update(b"cartwright key check value v1");
        format!(
            "{}.{}",
            self.kid,
            URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..16])
        )
    }

    pub fn anonymous(&self, shop: &Shop, raw: &str) -> SubjectId {
        SubjectId(self.prefixed("a:", IdKind::Anonymous, shop, raw).into())
    }

    pub fn user(&self, shop: &Shop, raw: &str) -> SubjectId {
        SubjectId(self.prefixed("u:", IdKind::User, shop, raw).into())
    }
}

/// One identity of a shopper: the pseudonym of an anonymous id (`a:…`) or of a user id (`u:…`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectId(Arc<str>);

impl SubjectId {
    /// Reads back what [`SubjectId::as_str`] wrote; never for raw identifiers.
    pub fn from_stored(text: &str) -> Self {
        SubjectId(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_user(&self) -> bool {
        self.0.starts_with("u:")
    }

    /// The partition of the log, of `partitions`, that holds this subject's events. The pseudonym is keyed already, so
    /// nobody can aim at a partition: CRC-32C of its text, modulo `partitions`.
    pub fn partition(&self, partitions: u16) -> u16 {
        let hash = crc32c::crc32c(self.0.as_bytes());
        (hash % u32::from(partitions.max(1))) as u16
    }
}

impl From<&SubjectId> for Arc<str> {
    fn from(subject: &SubjectId) -> Arc<str> {
        Arc::clone(&subject.0)
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The total order of events: by time, ties by event id. Extremes, last writers and the earliest assignment
/// compare stamps, so that every order of arrival agrees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    pub time: Timestamp,
    pub event_id: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_differ_by_kind_shop_and_key() {
        let key = PseudonymKey::new("k1", b"secret");
        let live = Shop::new("acme", Environment::Live).unwrap();
        let test = Shop::new("acme", Environment::Test).unwrap();
        let base = key.pseudonym(IdKind::User, &live, "x");
        assert!(base.starts_with("k1."));
        assert_eq!(base, key.pseudonym(IdKind::User, &live, "x"));
        assert_ne!(base, key.pseudonym(IdKind::Anonymous, &live, "x"));
        assert_ne!(base, key.pseudonym(IdKind::User, &test, "x"));
        assert_ne!(
            base,
            PseudonymKey::new("k1", b"other").pseudonym(IdKind::User, &live, "x")
        );
    }

    #[test]
    fn subjects_spread_evenly_over_partitions_that_never_change() {
        let subject = SubjectId::from_stored("a:k1.x");
        assert_eq!([1, 64, 500].map(|count| subject.partition(count)), [0, 33, 325]);
        let key = PseudonymKey::new("k1", b"secret");
        let shop = Shop::new("acme", Environment::Live).unwrap();
        let mut counts = [0; 64];
        for id in 0..6400 {
            counts[usize::from(key.anonymous(&shop, &id.to_string()).partition(64))] += 1;
        }
        assert!(
            counts.iter().all(|count| (60..=145).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn shops_refuse_what_could_collide() {
        for bad in ["", "A", "a b", "a/b", "a\0b", &"x".repeat(65)] {
            assert!(Shop::new(bad, Environment::Live).is_err(), "{bad:?}");
        }
        let shop = Shop::try_from("acme/test".to_owned()).unwrap();
        assert_eq!(shop.environment(), Environment::Test);
    }
}
