//! API keys: who calls, for which shop, and how far they are trusted.
//!
//! - Only SHA-256 digests are kept, and every comparison looks at every configured key and at every byte, so that
//!   the time of a lookup tells nothing about a key.
//! - A key configured both as public and as server key counts as public: the lesser of the two.

use sha2::{Digest as _, Sha256};

use crate::domain::ids::Shop;

/// How far the bearer of a key is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Shipped to browsers and apps: identifies the shop, and proves nothing about a shopper.
    Public,
    /// Held by a shop's back end: what it says of identity is proof.
    Server,
}

/// What a key grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub kind: KeyKind,
    pub shop: Shop,
}

/// All configured keys.
pub struct KeyRing {
    /// The lesser kinds first, so that the first match is the lesser one.
    entries: Vec<([u8; 32], ApiKey)>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.entries.iter().map(|(_, key)| key))
            .finish()
    }
}

impl KeyRing {
    /// A ring of the keys' texts and what each grants. An empty text is no key.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, ApiKey)>) -> Self {
        let keys = keys.into_iter().filter(|(text, _)| !text.is_empty());
        let mut entries: Vec<_> = keys.map(|(text, key)| (digest(text), key)).collect();
        entries.sort_by_key(|(_, key)| key.kind);
        KeyRing { entries }
    }

    /// What `presented` grants; `None` where it is no key of ours.
    pub fn find(&self, presented: &str) -> Option<&ApiKey> {
        let presented = digest(presented);
        let mut found = None;
        for (stored, key) in &self.entries {
            let differing = stored
                .iter()
                .zip(&presented)
                .fold(0, |bits, (a, b)| bits | (a ^ b));
            if std::hint::black_box(differing) == 0 && found.is_none() {
                found = Some(key);
            }
        }
        found
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::Environment;

    #[test]
    fn a_key_grants_what_was_configured_and_nothing_else_does() {
        let shop = Shop::new("acme", Environment::Live).unwrap();
        let key = |kind| ApiKey {
            kind,
            shop: shop.clone(),
        };
        let ring = KeyRing::new([
            ("both", key(KeyKind::Server)),
            ("pk", key(KeyKind::Public)),
            ("sk", key(KeyKind::Server)),
            ("both", key(KeyKind::Public)),
            ("", key(KeyKind::Server)),
        ]);
        let kind = |text| ring.find(text).map(|key| key.kind);
        assert_eq!(kind("pk"), Some(KeyKind::Public));
        assert_eq!(kind("sk"), Some(KeyKind::Server));
        assert_eq!(kind("both"), Some(KeyKind::Public));
        for unknown in ["", "p", "pk ", "PK", "pksk"] {
            assert_eq!(kind(unknown), None, "{unknown:?}");
        }
        assert!(!format!("{ring:?}").contains("sk"));
    }
}
