//! How the text of a setting becomes its value. Every parser says what it expected.

use std::time::Duration;

use super::secret::{Secret, SigningKey};
use super::store_url::StoreUrl;
use super::{ConsentDefault, RecordPolicy, Roles};

/// The key id of a signing key that names none.
const DEFAULT_KID: &str = "k1";
/// Fewer characters could be guessed; 16 random ones of base64 hold 96 bits.
const MIN_KEY_CHARS: usize = 16;
/// A higher share of a window or a budget is a mistyped unit.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(super) type Parsed<T> = Result<T, String>;

pub(super) fn text(text: &str) -> Parsed<String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn address(text: &str) -> Parsed<String> {
    let expected = || "expected HOST:PORT, for instance 127.0.0.1:8080 or [::1]:8080".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || port.parse::<u16>().is_err() || (host.contains(':') && !bracketed) {
        return Err(expected());
    }
    Ok(text.to_owned())
}

pub(super) fn shop(text: &str) -> Parsed<String> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if text.is_empty() || text.len() > 64 || !text.bytes().all(legal) {
        return Err("expected 1 to 64 characters of a-z, 0-9, '-' and '_'".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn environment(text: &str) -> Parsed<String> {
    match text {
        "live" | "test" => Ok(text.to_owned()),
        _ => Err("expected live or test".to_owned()),
    }
}

pub(super) fn roles(text: &str) -> Parsed<Roles> {
    let mut roles = Roles {
        api: false,
        drain: false,
    };
    for role in list(text) {
        match role {
            "api" => roles.api = true,
            "drain" => roles.drain = true,
            other => {
                return Err(format!(
                    "{other:?} is not a role; expected a list of api and drain"
                ));
            }
        }
    }
    if roles.api || roles.drain {
        Ok(roles)
    } else {
        Err("expected at least one of api and drain".to_owned())
    }
}

pub(super) fn origins(text: &str) -> Parsed<Vec<String>> {
    let legal = |origin: &str| {
        origin == "*"
            || origin.split_once("://").is_some_and(|(scheme, host)| {
                matches!(scheme, "http" | "https")
                    && !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'?' | b'#' | b'@'))
            })
    };
    list(text)
        .map(|origin| {
            if legal(origin) {
                Ok(origin.to_owned())
            } else {
                Err(format!(
                    "{origin:?} is not an origin; expected https://HOST[:PORT] without a path, or *"
                ))
            }
        })
        .collect()
}

pub(super) fn log_filter(text: &str) -> Parsed<String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; expected for instance info,cartwright=debug")),
    }
}

pub(super) fn milliseconds(text: &str) -> Parsed<Duration> {
    match text.parse::<u64>() {
        Ok(ms @ 1..=600_000) => Ok(Duration::from_millis(ms)),
        _ => Err("expected milliseconds, 1 to 600000".to_owned()),
    }
}

pub(super) fn count(text: &str) -> Parsed<usize> {
    match text.parse::<u32>() {
        Ok(count @ 1..=1_000_000) => Ok(count as usize),
        _ => Err("expected a whole number, 1 to 1000000".to_owned()),
    }
}

/// A number and its unit, as in `90 s` or `4GiB`.
fn measured(text: &str) -> Option<(u64, &str)> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    Some((number.parse().ok()?, unit.trim()))
}

pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let expected = || "expected a duration such as 500ms, 30s, 10m, 1h or 30d".to_owned();
    let (number, unit) = measured(text).ok_or_else(expected)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    let duration = number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(expected)?;
    if duration > MAX_DURATION {
        Err("is longer than ten years".to_owned())
    } else {
        Ok(duration)
    }
}

pub(super) fn size(text: &str) -> Parsed<u64> {
    let expected = || "expected bytes, or a size such as 512KiB, 64MiB or 4GiB".to_owned();
    let (number, unit) = measured(text).ok_or_else(expected)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(expected()),
    };
    match number.checked_mul(1 << shift) {
        Some(bytes @ 1..) => Ok(bytes),
        _ => Err(expected()),
    }
}

/// A size, of which zero means none.
pub(super) fn size_or_none(text: &str) -> Parsed<u64> {
    if text == "0" { Ok(0) } else { size(text) }
}

pub(super) fn consent_default(text: &str) -> Parsed<ConsentDefault> {
    match text {
        "granted" => Ok(ConsentDefault::Granted),
        "denied" => Ok(ConsentDefault::Denied),
        _ => Err("expected granted or denied".to_owned()),
    }
}

pub(super) fn record_policy(text: &str) -> Parsed<RecordPolicy> {
    let expected = || "expected all, experiments, or sampled:R with R from 0 to 1".to_owned();
    match text.split_once(':') {
        None if text == "all" => Ok(RecordPolicy::All),
        None if text == "experiments" => Ok(RecordPolicy::Experiments),
        Some(("sampled", share)) => match share.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(RecordPolicy::Sampled(share)),
            _ => Err(expected()),
        },
        _ => Err(expected()),
    }
}

/// The URL of a store. It may hold a password, so no message repeats it.
fn url(text: &str, local: &str, networked: &[&str], expected: &str) -> Parsed<StoreUrl> {
    let legal = match text.split_once(':') {
        Some((scheme, path)) if scheme == local => !scheme.is_empty() && !path.is_empty(),
        Some((scheme, rest)) if networked.contains(&scheme) => {
            rest.strip_prefix("//").is_some_and(|place| !place.is_empty())
        }
        _ => false,
    };
    match text.split_once(':') {
        _ if legal => Ok(StoreUrl::new(text)),
        Some(("kafka", _)) => Err(format!("this build holds no Kafka client; expected {expected}")),
        _ => Err(format!("expected {expected}")),
    }
}

const REDIS: &[&str] = &["redis", "rediss", "redis-cluster", "rediss-cluster"];

pub(super) fn queue_url(text: &str) -> Parsed<StoreUrl> {
    url(text, "disk", REDIS, "disk:PATH or redis://HOST:PORT")
}

pub(super) fn hot_url(text: &str) -> Parsed<StoreUrl> {
    match text {
        "memory:" => Ok(StoreUrl::new(text)),
        _ => url(text, "", REDIS, "memory: or redis://HOST:PORT"),
    }
}

pub(super) fn warehouse_url(text: &str) -> Parsed<StoreUrl> {
    url(
        text,
        "sqlite",
        &["postgres", "postgresql"],
        "sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE",
    )
}

/// A power of two would suit a hash no better; a thousand streams is more than any deployment has workers for.
pub(super) fn partitions(text: &str) -> Parsed<u16> {
    match text.parse::<u16>() {
        Ok(count @ 1..=1_024) => Ok(count),
        _ => Err("expected a whole number, 1 to 1024".to_owned()),
    }
}

pub(super) fn api_key(text: &str) -> Parsed<Secret> {
    if text.len() < MIN_KEY_CHARS || text.len() > 200 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "expected {MIN_KEY_CHARS} to 200 visible ASCII characters"
        ));
    }
    Ok(Secret::new(text))
}

pub(super) fn signing_key(text: &str) -> Parsed<SigningKey> {
    let (kid, secret) = text.split_once(':').unwrap_or((DEFAULT_KID, text));
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if kid.is_empty() || kid.len() > 16 || !kid.bytes().all(legal) {
        return Err("expected [KID:]SECRET, where KID is 1 to 16 characters of a-z and 0-9".to_owned());
    }
    Ok(SigningKey {
        kid: kid.to_owned(),
        secret: api_key(secret)?,
    })
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_a_known_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1 h"), Ok(Duration::from_secs(3_600)));
        for bad in [
            "",
            "s",
            "10",
            "10 parsecs",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "300000000000d",
            "11000d",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        assert_eq!(size("4GiB"), Ok(4 << 30));
        assert_eq!(size("17"), Ok(17));
        for bad in ["", "0", "GiB", "4GB", "-1", "99999999999TiB", "4 GiBs"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:8080", "localhost:0", "[::1]:80"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ":80",
            "localhost",
            "::1:80",
            "localhost:http",
            "localhost:70000",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_have_no_path() {
        assert_eq!(
            origins("https://a.example, http://localhost:3000").unwrap().len(),
            2
        );
        assert_eq!(origins("").unwrap().len(), 0);
        for bad in [
            "a.example",
            "https://a.example/",
            "ftp://a",
            "https://",
            "https://u@a",
        ] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_has_a_scheme_of_its_store_and_is_never_repeated() {
        for good in [
            "disk:./x",
            "redis://cache",
            "rediss://:pw@cache:6380/1",
            "redis-cluster://a,b",
        ] {
            assert!(queue_url(good).is_ok(), "{good}");
        }
        for good in ["memory:", "redis://cache:6379", "redis-cluster://a:1"] {
            assert!(hot_url(good).is_ok(), "{good}");
        }
        for good in ["sqlite:./x.db", "postgres://u:p@db/shop", "postgresql://db/shop"] {
            assert!(warehouse_url(good).is_ok(), "{good}");
        }
        for bad in [
            "dsk:/hunter2",
            "disk:",
            "redis:",
            "redis://",
            "postgres://u:hunter2@db",
            "hunter2",
        ] {
            let error = queue_url(bad).unwrap_err();
            assert!(
                error.contains("expected disk:PATH or redis://") && !error.contains("hunter2"),
                "{error}"
            );
        }
        assert!(hot_url("memory:x").is_err() && hot_url(":x").is_err());
        let wrong = warehouse_url("mysql://u:hunter2@db/shop").unwrap_err();
        assert!(
            wrong.contains("expected sqlite:PATH or postgres://") && !wrong.contains("hunter2"),
            "{wrong}"
        );
        assert!(
            queue_url("kafka://b:9092")
                .unwrap_err()
                .contains("no Kafka client")
        );
    }

    #[test]
    fn signing_keys_may_name_themselves() {
        let named = signing_key("k7:0123456789abcdef").unwrap();
        assert_eq!(
            (named.kid.as_str(), named.secret.expose()),
            ("k7", "0123456789abcdef")
        );
        assert_eq!(signing_key("0123456789abcdef").unwrap().kid, DEFAULT_KID);
        assert!(signing_key("k7:short").is_err() && signing_key("K 7:0123456789abcdef").is_err());
        assert!(!format!("{named:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn record_policies_have_a_share_of_zero_to_one() {
        assert_eq!(record_policy("sampled:0.25"), Ok(RecordPolicy::Sampled(0.25)));
        for bad in ["", "none", "sampled", "sampled:2", "sampled:NaN", "sampled:-0.1"] {
            assert!(record_policy(bad).is_err(), "{bad:?}");
        }
    }
}
