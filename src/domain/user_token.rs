//! User tokens: a shop's proof that a browser speaks for one of its users.
//!
//! A token is `kid.exp.mac`, where `exp` is in Unix seconds and `mac` is
//! `base64url(HMAC-SHA-256(key, shop ‖ 0 ‖ user id ‖ 0 ‖ exp))` without padding; `shop` is `name/environment` and `exp`
//! the same decimal text as in the token. The separators are NUL bytes, which neither a shop nor an accepted user
//! id can hold, so two different claims never share an encoding. A shop's back end makes it at login; the page
//! passes it along with the user id.
//!
//! - The comparison takes the same time whatever differs.
//! - A token says who the user is, not what they may do; there is no revocation before `exp`, so keep it short.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::ids::{Shop, Timestamp};

/// The key that a deployment shares with its shops' back ends.
#[derive(Clone)]
pub struct UserTokenKey {
    kid: Arc<str>,
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for UserTokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserTokenKey({})", self.kid)
    }
}

/// Why a token proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserTokenError {
    #[error("a user token is kid.exp.mac")]
    Malformed,
    #[error("the user token was made with another key")]
    UnknownKey,
    #[error("the user token has expired")]
    Expired,
    #[error("the user token does not match the shop and the user id")]
    Forged,
}

impl UserTokenKey {
    /// `kid` names the key in every token and may not hold a full stop; `secret` should have 32 random bytes.
    pub fn new(kid: &str, secret: &[u8]) -> Self {
        let keyed = <Hmac<Sha256> as hmac::digest::KeyInit>::new_from_slice(secret);
        // HMAC takes a key of any length.
        #[allow(clippy::expect_used)]
        let keyed = keyed.expect("HMAC accepts keys of every length");
        UserTokenKey {
            kid: kid.into(),
            keyed,
        }
    }

    /// A token for `user_id` of `shop` that holds until `exp`, in Unix seconds.
    pub fn make(&self, shop: &Shop, user_id: &str, exp: i64) -> String {
        let exp = exp.to_string();
        let mac = self.mac(shop, user_id, &exp).finalize().into_bytes();
        format!("{}.{exp}.{}", self.kid, URL_SAFE_NO_PAD.encode(mac))
    }

    /// # Errors
    /// [`UserTokenError`] unless `token` proves that its bearer is `user_id` of `shop` at `now`.
    pub fn verify(
        &self,
        shop: &Shop,
        user_id: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<(), UserTokenError> {
        let (rest, mac) = token.rsplit_once('.').ok_or(UserTokenError::Malformed)?;
        let (kid, exp) = rest.rsplit_once('.').ok_or(UserTokenError::Malformed)?;
        if exp.is_empty() || exp.len() > 12 || !exp.bytes().all(|b| b.is_ascii_digit()) {
            return Err(UserTokenError::Malformed);
        }
        let expires: i64 = exp.parse().map_err(|_| UserTokenError::Malformed)?;
        let mac = URL_SAFE_NO_PAD
            .decode(mac)
            .map_err(|_| UserTokenError::Malformed)?;
        if kid != &*self.kid {
            return Err(UserTokenError::UnknownKey);
        }
        self.mac(shop, user_id, exp)
            .verify_slice(&mac)
            .map_err(|_| UserTokenError::Forged)?;
        if now.0.div_euclid(1000) >= expires {
            Err(UserTokenError::Expired)
        } else {
            Ok(())
        }
    }

    fn mac(&self, shop: &Shop, user_id: &str, exp: &str) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        for part in [
            shop.as_str().as_bytes(),
            &[0],
            user_id.as_bytes(),
            &[0],
            exp.as_bytes(),
        ] {
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::Environment;

    #[test]
    fn a_token_proves_one_user_of_one_shop_until_it_expires() {
        let key = UserTokenKey::new("t1", b"secret");
        let shop = Shop::new("acme", Environment::Live).unwrap();
        let test = Shop::new("acme", Environment::Test).unwrap();
        let token = key.make(&shop, "u.1", 1_000);
        let at = |seconds: i64| Timestamp(seconds * 1000);
        assert_eq!(key.verify(&shop, "u.1", &token, at(999)), Ok(()));
        assert_eq!(
            key.verify(&shop, "u.1", &token, at(1_000)),
            Err(UserTokenError::Expired)
        );
        assert_eq!(
            key.verify(&shop, "u.2", &token, at(1)),
            Err(UserTokenError::Forged)
        );
        assert_eq!(
            key.verify(&test, "u.1", &token, at(1)),
            Err(UserTokenError::Forged)
        );
        let prolonged = token.replacen(".1000.", ".2000.", 1);
        assert_eq!(
            key.verify(&shop, "u.1", &prolonged, at(1)),
            Err(UserTokenError::Forged)
        );
        let other = UserTokenKey::new("t2", b"secret").make(&shop, "u.1", 1_000);
        assert_eq!(
            key.verify(&shop, "u.1", &other, at(1)),
            Err(UserTokenError::UnknownKey)
        );
        let forged = UserTokenKey::new("t1", b"guess").make(&shop, "u.1", 1_000);
        assert_eq!(
            key.verify(&shop, "u.1", &forged, at(1)),
            Err(UserTokenError::Forged)
        );
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_by_chance(token in "\\PC{0,80}|t1\\.[0-9]{1,20}\\.[A-Za-z0-9_-]{0,44}") {
            let key = UserTokenKey::new("t1", b"secret");
            let shop = Shop::new("acme", Environment::Live).unwrap();
            prop_assert!(key.verify(&shop, "u", &token, Timestamp(0)).is_err());
        }
    }
}
