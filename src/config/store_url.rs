//! The address of a store, whose password nothing shows.

use std::fmt;
use std::sync::Arc;

/// Stands for what is not shown.
const HIDDEN: &str = "…";

/// A store's URL. `Display` and `Debug` hide its password; [`StoreUrl::expose`] is for the one place that connects.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(Arc<str>);

impl StoreUrl {
    pub fn new(text: &str) -> Self {
        StoreUrl(text.into())
    }

    /// The whole URL.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// Whether a server of its own answers there, which several nodes may share.
    pub fn is_networked(&self) -> bool {
        self.0.contains("://")
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", masked(&self.0))
    }
}

/// A URL without its passwords: the part after the user's name, up to the last `@`, and the value of every query
/// parameter that may hold a secret. A path (`disk:PATH`) is shown as it is.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    // The last `@`, and looked for before the query: a password may hold any character, legal or not.
    let (user, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => (
            credentials
                .split_once(':')
                .map(|(user, _)| user)
                .or(Some(credentials)),
            place,
        ),
        None => (None, rest),
    };
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let mut text = format!("{scheme}://");
    if let Some(user) = user {
        let password = if rest
            .rsplit_once('@')
            .is_some_and(|(credentials, _)| credentials.contains(':'))
        {
            format!(":{HIDDEN}")
        } else {
            String::new()
        };
        text.push_str(&format!("{user}{password}@"));
    }
    text.push_str(place);
    for (index, parameter) in query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .enumerate()
    {
        text.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if name.contains("pass") || name.contains("key") => {
                text.push_str(&format!("{name}={HIDDEN}"));
            }
            _ => text.push_str(parameter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("disk:./data/queue", "disk:./data/queue"),
            ("memory:", "memory:"),
            ("redis://cache:6379/2", "redis://cache:6379/2"),
            ("redis://:s3cret@cache:6379", "redis://:…@cache:6379"),
            ("rediss://me:s3c@r/et?x@cache", "rediss://me:…@cache"),
            (
                "redis-cluster://:s3cret@a:1,:s3cret@b:2",
                "redis-cluster://:…@b:2",
            ),
            ("postgres://me@db/shop", "postgres://me@db/shop"),
            (
                "postgres://me:s3cret@db:5432/shop?sslmode=require&password=s3cret",
                "postgres://me:…@db:5432/shop?sslmode=require&password=…",
            ),
        ] {
            assert_eq!(masked(url), shown);
            let url = StoreUrl::new(url);
            assert!(!format!("{url} {url:?}").contains("s3c"), "{url}");
        }
    }

    #[test]
    fn networked_is_what_nodes_can_share() {
        for url in ["redis://a", "postgres://a/b"] {
            assert!(StoreUrl::new(url).is_networked());
        }
        for url in ["disk:/a", "memory:", "sqlite:/a"] {
            assert!(!StoreUrl::new(url).is_networked());
        }
    }
}
