//! The entity tag of a bulk answer: the same for the same answer to the same shopper, on every node.
//!
//! - It covers who asks, with what context, the ruleset's version, how much the shopper has done, and each flag's value,
//!   variant and reason. What time, a cap or what a bandit learned makes of an answer is in the flags.
//! - It does not cover what merely serving writes into a profile (an assignment, a count towards a cap): an answer would
//!   make itself out of date, and each look at what has changed would be served, recorded and counted again.
//! - SHA-256 under no key: identities go in as pseudonyms, so a tag tells nobody who it is about.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::flag::{value, variant};
use crate::domain::decision::Decision;
use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::profile::Snapshot;
use crate::domain::ruleset::Ruleset;
use crate::http::personalize::case::Case;

/// A build that changes what is hashed takes the next number.
const FORMAT: &str = "ofrep1";

/// The tag, quoted.
pub(super) fn of(case: &Case<'_, '_>, ruleset: &Ruleset, decision: &Decision<'_>) -> String {
    let mut hash = Hash(Sha256::new());
    hash.text(Some(FORMAT));
    hash.text(Some(case.shop.as_str()));
    hash.number(ruleset.version());
    let shopper = &case.shopper;
    hash.text(shopper.user.as_ref().map(SubjectId::as_str));
    hash.text(shopper.anonymous.as_ref().map(SubjectId::as_str));
    hash.text(shopper.session.as_deref());
    hash.context(case);
    hash.profile(case);
    for placement in &decision.placements {
        hash.text(Some(placement.name));
        hash.text(value(placement));
        hash.text(placement.experience);
        hash.text(Some(variant(placement)));
        hash.text(Some(placement.reason.as_str()));
    }
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash.0.finalize()))
}

/// Whether `If-None-Match` lists the tag. Proxies that compress make it weak, and some clients lose the quotes.
pub(super) fn is_among(tag: &str, headers: &HeaderMap) -> bool {
    let bare = |text: &str| {
        let text = text.trim();
        text.strip_prefix("W/")
            .unwrap_or(text)
            .trim_matches('"')
            .to_owned()
    };
    let own = bare(tag);
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|listed| bare(listed) == own)
}

/// Feeds each value with its length, so that no two sequences of values look alike.
struct Hash(Sha256);

impl Hash {
    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn text(&mut self, text: Option<&str>) {
        // No text is as long as this.
        self.number(text.map_or(u64::MAX, |text| text.len() as u64));
        self.0.update(text.unwrap_or_default());
    }

    fn context(&mut self, case: &Case<'_, '_>) {
        let ask = case.ask;
        for text in [&ask.currency, &ask.country, &ask.locale, &ask.device] {
            self.text(text.as_deref());
        }
        for choice in [ask.consent.analytics, ask.consent.personalization] {
            self.number(choice.map_or(0, |choice| 1 + choice as u64));
        }
        let Some(lines) = &ask.cart else {
            return self.number(u64::MAX);
        };
        self.number(lines.len() as u64);
        for line in lines {
            self.text(Some(&line.sku));
            self.number(u64::from(line.quantity));
            self.text(line.price.map(|price| format!("{price:?}")).as_deref());
        }
    }

    /// How much the shopper has done, whether the stores or only this node know of it yet. Nothing at all is the same as no
    /// profile, since the first answer may make one.
    fn profile(&mut self, case: &Case<'_, '_>) {
        let profile = case.read.profile.as_deref();
        self.number(u64::from(profile.map_or(0, Snapshot::generation)));
        self.number(profile.map_or(0, Snapshot::events).cast_unsigned());
        let times = [Snapshot::first_seen, Snapshot::last_seen, Snapshot::last_order];
        for time in times.map(|time| profile.and_then(time)) {
            let Timestamp(millis) = time.unwrap_or(Timestamp(i64::MIN));
            self.number(millis.cast_unsigned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_however_it_comes_back() {
        let listed = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            is_among("\"abc\"", &headers)
        };
        for values in [
            &["\"abc\""][..],
            &["W/\"abc\""],
            &["abc"],
            &["\"x\", \"abc\""],
            &["\"x\"", "\"abc\""],
        ] {
            assert!(listed(values), "{values:?}");
        }
        for values in [&[][..], &["*"], &["\"ab\""], &["\"abcd\""], &["\"\""]] {
            assert!(!listed(values), "{values:?}");
        }
    }
}
