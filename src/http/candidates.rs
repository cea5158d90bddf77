//! What a shop offers right now, by ranking placement: `candidates.payment_methods=card,paypal`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::ask::MAX_PLACEMENTS;
use super::error::{Code, Problem};
use super::extract::{Raw, pieces};

/// In a query, in front of the placement's name.
pub(super) const PREFIX: &str = "candidates.";

/// Ways to pay or to ship; a shop has a dozen.
const MAX_CANDIDATES: usize = 100;
/// Bytes of one candidate, as in a ruleset.
const MAX_CANDIDATE_BYTES: usize = 128;

/// By placement, as the shop lists them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Candidates<'a>(Vec<(Cow<'a, str>, Vec<Cow<'a, str>>)>);

impl<'a> Candidates<'a> {
    /// Reads one parameter of a query; an empty one offers nothing.
    ///
    /// # Errors
    /// A 400 that names the placement.
    pub(super) fn add_query(&mut self, placement: &str, raw: Raw<'a>) -> Result<(), Problem> {
        let listed = match raw.decode()? {
            Cow::Borrowed(text) => pieces(text, b',').map(Cow::Borrowed).collect(),
            Cow::Owned(text) => pieces(&text, b',')
                .map(|item| Cow::Owned(item.to_owned()))
                .collect(),
        };
        let listed: Vec<Cow<'a, str>> = listed;
        let is_empty = matches!(listed.as_slice(), [only] if only.is_empty());
        self.add(
            Cow::Owned(placement.to_owned()),
            if is_empty { Vec::new() } else { listed },
        )
    }

    /// Takes what JSON says.
    ///
    /// # Errors
    /// A 400 that names the placement.
    pub(super) fn from_json(listed: BTreeMap<String, Vec<String>>) -> Result<Self, Problem> {
        let mut candidates = Candidates::default();
        for (placement, items) in listed {
            let items = items.into_iter().map(Cow::Owned).collect();
            candidates.add(Cow::Owned(placement), items)?;
        }
        Ok(candidates)
    }

    fn add(&mut self, placement: Cow<'a, str>, items: Vec<Cow<'a, str>>) -> Result<(), Problem> {
        let refuse = |reason: String| {
            let name = placement.escape_debug();
            Err(Problem::new(
                Code::InvalidParameter,
                format!("{PREFIX}{name} {reason}"),
            ))
        };
        if self.0.iter().any(|(known, _)| *known == placement) {
            return refuse("is given twice".to_owned());
        }
        if self.0.len() >= MAX_PLACEMENTS {
            return refuse(format!("is one of over {MAX_PLACEMENTS} placements"));
        }
        if items.len() > MAX_CANDIDATES {
            return refuse(format!("has over {MAX_CANDIDATES} candidates"));
        }
        let ok = |item: &Cow<'_, str>| {
            (1..=MAX_CANDIDATE_BYTES).contains(&item.len()) && !item.contains(char::is_control)
        };
        if !items.iter().all(ok) {
            return refuse(format!(
                "has a candidate that is not 1 to {MAX_CANDIDATE_BYTES} bytes without control characters"
            ));
        }
        let mut distinct: Vec<Cow<'a, str>> = Vec::with_capacity(items.len());
        for item in items {
            if !distinct.contains(&item) {
                distinct.push(item);
            }
        }
        self.0.push((placement, distinct));
        Ok(())
    }

    /// As a decision takes them, the inner lists first.
    pub(super) fn lists(&self) -> Vec<(&str, Vec<&str>)> {
        let offers = self.0.iter();
        offers
            .map(|(placement, items)| (&**placement, items.iter().map(|item| &**item).collect()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::http::ask::{Ask, AskBody};

    #[test]
    fn query_and_json_say_the_same() {
        let query = "candidates.pay=card,pay%20pal,card&candidates.ship=&placements=pay";
        let ask = Ask::from_query(query).unwrap();
        let expected = vec![("pay", vec!["card", "pay pal"]), ("ship", vec![])];
        assert_eq!(ask.candidates.lists(), expected);
        let body = br#"{"candidates": {"pay": ["card", "pay pal"], "ship": []}}"#;
        let body = AskBody::parse(body).unwrap().into_ask().unwrap();
        assert_eq!(body.candidates, ask.candidates);
    }

    #[test]
    fn what_is_not_valid_is_refused() {
        let long = format!("candidates.pay={}", "x".repeat(129));
        let many = format!("candidates.pay={}", vec!["x"; 101].join(","));
        for query in [
            "candidates.pay=a&candidates.pay=b",
            "candidates.pay=a,,b",
            "candidates.pay=%00",
            &long,
            &many,
        ] {
            assert!(Ask::from_query(query).is_err(), "{query}");
        }
    }
}
