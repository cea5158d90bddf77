//! Secrets: values that no log line, error or debug output may show.

use std::fmt;
use std::sync::Arc;

/// A secret text. `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A signing key with the id that its signatures carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// 1 to 16 characters of `a-z 0-9`.
    pub kid: String,
    pub secret: Secret,
}

impl SigningKey {
    /// `[KID:]SECRET`, as configured.
    pub fn expose(&self) -> String {
        format!("{}:{}", self.kid, self.secret.expose())
    }
}
