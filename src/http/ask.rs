//! What a caller of `/personalize` asks, from a query or from JSON.
//!
//! - Everything is borrowed from the request where nothing had to be decoded.
//! - What is not valid is a 400 that names it. Two exceptions: an empty id is no id, since pages send those, and
//!   consent that cannot be read is denied (invariant 6).
//! - A parameter that this build does not know is ignored, so that old nodes serve new pages; one given twice is
//!   refused, since two readers could choose differently.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::candidates::{Candidates, PREFIX};
use super::cart::{CartLine, MAX_CART_LINES, MAX_QUANTITY, checked_sku, parse_cart};
use super::error::{Code, Problem};
use super::extract::{Query, Raw, has_control, pieces};
use crate::domain::consent::ConsentStatement;
use crate::domain::money::Decimal;

/// Bytes of one id, as for an event.
const MAX_ID_BYTES: usize = 256;
/// Bytes of a token: a key id, a time and a MAC take about 80.
const MAX_TOKEN_BYTES: usize = 512;
/// Bytes of a placement's name, a locale or a device.
const MAX_WORD_BYTES: usize = 64;
/// Placements of one request; a page has a handful.
pub(super) const MAX_PLACEMENTS: usize = 32;
/// A longer wait is no checkout.
const MAX_DEADLINE_MS: u64 = 60_000;

/// A valid request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ask<'a> {
    pub(super) user_id: Option<Cow<'a, str>>,
    pub(super) user_token: Option<Cow<'a, str>>,
    pub(super) anonymous_id: Option<Cow<'a, str>>,
    pub(super) session_id: Option<Cow<'a, str>>,
    /// `None` asks for all.
    pub(super) placements: Option<SmallVec<[Cow<'a, str>; 4]>>,
    /// `None` takes the profile's.
    pub(super) cart: Option<Vec<CartLine<'a>>>,
    pub(super) currency: Option<Cow<'a, str>>,
    pub(super) country: Option<Cow<'a, str>>,
    pub(super) locale: Option<Cow<'a, str>>,
    pub(super) device: Option<Cow<'a, str>>,
    pub(super) consent: ConsentStatement,
    pub(super) deadline_ms: Option<u64>,
    pub(super) explain: bool,
    pub(super) candidates: Candidates<'a>,
    /// Experiences with the variant that is to be shown: for trying out, with keys of a test environment.
    pub(super) force: Vec<(String, String)>,
}

impl<'a> Ask<'a> {
    /// Reads the query of `GET /personalize`.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(super) fn from_query(query: &'a str) -> Result<Self, Problem> {
        let mut ask = Ask::default();
        let mut seen = 0u32;
        for (name, raw) in Query::new(query).pairs() {
            let Some(parameter) = Parameter::named(&name) else {
                if let Some(placement) = name.strip_prefix(PREFIX) {
                    ask.candidates.add_query(placement, raw)?;
                }
                continue;
            };
            let bit = 1 << parameter as u32;
            if seen & bit != 0 {
                return Err(invalid(parameter.name(), "is given twice"));
            }
            seen |= bit;
            ask.set(parameter, raw)?;
        }
        Ok(ask)
    }

    fn set(&mut self, parameter: Parameter, raw: Raw<'a>) -> Result<(), Problem> {
        let name = parameter.name();
        match parameter {
            Parameter::UserId => self.user_id = text(name, raw.decode()?, MAX_ID_BYTES)?,
            Parameter::UserToken => self.user_token = text(name, raw.decode()?, MAX_TOKEN_BYTES)?,
            Parameter::AnonymousId => self.anonymous_id = text(name, raw.decode()?, MAX_ID_BYTES)?,
            Parameter::SessionId => self.session_id = text(name, raw.decode()?, MAX_ID_BYTES)?,
            Parameter::Placements => self.placements = placements(raw.decode()?)?,
            Parameter::Cart => self.cart = Some(cart(raw)?),
            Parameter::Currency => self.currency = letters(name, raw.decode()?, 3)?,
            Parameter::Country => self.country = letters(name, raw.decode()?, 2)?,
            Parameter::Locale => self.locale = text(name, raw.decode()?, MAX_WORD_BYTES)?,
            Parameter::Device => self.device = text(name, raw.decode()?, MAX_WORD_BYTES)?,
            Parameter::Consent => self.consent = ConsentStatement::parse_list(&raw.decode()?),
            Parameter::DeadlineMs => self.deadline_ms = Some(deadline(&raw.decode()?)?),
            Parameter::Force => self.force = force(&raw.decode()?)?,
            Parameter::Explain => self.explain = flag(name, &raw.decode()?)?,
        }
        Ok(())
    }
}

/// Declares the parameters that a query may give once: variant, name.
macro_rules! parameters {
    ($($variant:ident => $name:literal;)*) => {
        #[derive(Clone, Copy)]
        enum Parameter { $($variant,)* }

        impl Parameter {
            fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Parameter::$variant),)* _ => None }
            }

            fn name(self) -> &'static str {
                match self { $(Parameter::$variant => $name,)* }
            }
        }
    };
}

parameters! {
    UserId => "user_id";
    UserToken => "user_token";
    AnonymousId => "anonymous_id";
    SessionId => "session_id";
    Placements => "placements";
    Cart => "cart";
    Currency => "currency";
    Country => "country";
    Locale => "locale";
    Device => "device";
    Consent => "consent";
    DeadlineMs => "deadline_ms";
    Force => "force";
    Explain => "explain";
}

fn invalid(name: &'static str, reason: &str) -> Problem {
    Problem::new(Code::InvalidParameter, format!("{name} {reason}"))
}

/// A text without control characters; `None` when empty.
fn text<'a>(name: &'static str, value: Cow<'a, str>, max: usize) -> Result<Option<Cow<'a, str>>, Problem> {
    if value.len() > max {
        return Err(invalid(name, &format!("is over {max} bytes")));
    }
    if has_control(&value) {
        return Err(invalid(name, "has a control character"));
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// A code of so many letters, in capitals; `None` when empty.
fn letters<'a>(
    name: &'static str,
    value: Cow<'a, str>,
    count: usize,
) -> Result<Option<Cow<'a, str>>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    if value.len() != count || !value.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(invalid(name, &format!("is not a code of {count} letters")));
    }
    let capital = value.bytes().all(|b| b.is_ascii_uppercase());
    Ok(Some(if capital {
        value
    } else {
        Cow::Owned(value.to_ascii_uppercase())
    }))
}

fn placements(value: Cow<'_, str>) -> Result<Option<SmallVec<[Cow<'_, str>; 4]>>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let mut names = SmallVec::new();
    match value {
        Cow::Borrowed(value) => pieces(value, b',').for_each(|name| names.push(Cow::Borrowed(name))),
        Cow::Owned(value) => pieces(&value, b',').for_each(|name| names.push(Cow::Owned(name.to_owned()))),
    }
    checked_placements(names).map(Some)
}

fn checked_placements(names: SmallVec<[Cow<'_, str>; 4]>) -> Result<SmallVec<[Cow<'_, str>; 4]>, Problem> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if names.len() > MAX_PLACEMENTS {
        return Err(Problem::new(
            Code::InvalidPlacements,
            format!("over {MAX_PLACEMENTS} placements"),
        ));
    }
    let ok =
        |name: &Cow<'_, str>| !name.is_empty() && name.len() <= MAX_WORD_BYTES && name.bytes().all(legal);
    if !names.iter().all(ok) {
        let detail = format!("a name is 1 to {MAX_WORD_BYTES} of a-z, A-Z, 0-9, '_', '-' and '.'");
        return Err(Problem::new(Code::InvalidPlacements, detail));
    }
    Ok(names)
}

/// The separators may be literal, or encoded with all the rest as URL libraries do. A text that is a cart as it
/// stands is taken so; its SKUs are decoded once.
fn cart(raw: Raw<'_>) -> Result<Vec<CartLine<'_>>, Problem> {
    if let Ok(lines) = parse_cart(raw.text) {
        return Ok(lines);
    }
    let decoded = raw.decode()?;
    match parse_cart(&decoded) {
        Ok(lines) => Ok(lines.into_iter().map(CartLine::into_owned).collect()),
        Err(error) => Err(Problem::new(Code::InvalidCart, error.to_string())),
    }
}

fn deadline(value: &str) -> Result<u64, Problem> {
    let ms = value.parse().ok().filter(|ms| (1..=MAX_DEADLINE_MS).contains(ms));
    ms.ok_or_else(|| {
        Problem::new(
            Code::InvalidDeadline,
            format!("deadline_ms is 1 to {MAX_DEADLINE_MS}"),
        )
    })
}

/// `experience:variant,…`, or `experience` alone where it has one variant.
fn force(value: &str) -> Result<Vec<(String, String)>, Problem> {
    let pairs = value.split(',').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once(':').unwrap_or((pair, "")));
    let forced: Vec<(String, String)> = pairs
        .map(|(experience, variant)| (experience.to_owned(), variant.to_owned()))
        .collect();
    if forced.len() > MAX_PLACEMENTS {
        return Err(invalid("force", "names too many experiences"));
    }
    Ok(forced)
}

fn flag(name: &'static str, value: &str) -> Result<bool, Problem> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(invalid(name, "is neither true nor false")),
    }
}

/// The body of `POST /personalize`: what the query of `GET /personalize` says, and events.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AskBody<'a> {
    #[serde(borrow)]
    pub(super) key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) user_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) user_token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) anonymous_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) session_id: Option<Cow<'a, str>>,
    pub(super) placements: Option<Vec<String>>,
    #[serde(borrow)]
    pub(super) cart: Option<Vec<LineBody<'a>>>,
    #[serde(borrow)]
    pub(super) currency: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) country: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) locale: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) device: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) consent: Option<&'a RawValue>,
    pub(super) deadline_ms: Option<u64>,
    pub(super) explain: Option<bool>,
    #[serde(borrow)]
    pub(super) force: Option<Cow<'a, str>>,
    pub(super) candidates: Option<BTreeMap<String, Vec<String>>>,
    #[serde(borrow)]
    pub(super) events: Option<Vec<&'a RawValue>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LineBody<'a> {
    #[serde(borrow)]
    sku: Cow<'a, str>,
    quantity: u32,
    /// A number or a text, read from its digits.
    #[serde(borrow, default)]
    price: Option<&'a RawValue>,
}

impl<'a> AskBody<'a> {
    /// # Errors
    /// [`Code::InvalidBody`] with the place.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        // Serde would read an array as the members in their order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Code::InvalidBody, "expected an object"));
        }
        serde_json::from_slice(bytes).map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))
    }

    /// The same checks as for a query.
    ///
    /// # Errors
    /// A 400 that names the member.
    pub(super) fn into_ask(self) -> Result<Ask<'a>, Problem> {
        let bounded = |name, value: Option<Cow<'a, str>>, max| match value {
            Some(value) => text(name, value, max),
            None => Ok(None),
        };
        let code = |name, value: Option<Cow<'a, str>>, count| match value {
            Some(value) => letters(name, value, count),
            None => Ok(None),
        };
        let names = self.placements.filter(|names| !names.is_empty());
        let names = names.map(|names| checked_placements(names.into_iter().map(Cow::Owned).collect()));
        Ok(Ask {
            user_id: bounded("user_id", self.user_id, MAX_ID_BYTES)?,
            user_token: bounded("user_token", self.user_token, MAX_TOKEN_BYTES)?,
            anonymous_id: bounded("anonymous_id", self.anonymous_id, MAX_ID_BYTES)?,
            session_id: bounded("session_id", self.session_id, MAX_ID_BYTES)?,
            placements: names.transpose()?,
            cart: self.cart.map(cart_lines).transpose()?,
            currency: code("currency", self.currency, 3)?,
            country: code("country", self.country, 2)?,
            locale: bounded("locale", self.locale, MAX_WORD_BYTES)?,
            device: bounded("device", self.device, MAX_WORD_BYTES)?,
            consent: self
                .consent
                .map(|raw| ConsentStatement::read_json(raw.get()))
                .unwrap_or_default(),
            deadline_ms: self.deadline_ms.map(|ms| deadline(&ms.to_string())).transpose()?,
            explain: self.explain.unwrap_or(false),
            force: self
                .force
                .map(|list| force(&list))
                .transpose()?
                .unwrap_or_default(),
            candidates: self
                .candidates
                .map(Candidates::from_json)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

fn cart_lines(lines: Vec<LineBody<'_>>) -> Result<Vec<CartLine<'_>>, Problem> {
    let refuse = |line: usize, what: &str| {
        Problem::new(Code::InvalidCart, format!("{what} of line {line} is not valid"))
    };
    if lines.len() > MAX_CART_LINES {
        return Err(Problem::new(
            Code::InvalidCart,
            format!("a cart has at most {MAX_CART_LINES} lines"),
        ));
    }
    let read = |(index, line): (usize, LineBody<'_>)| {
        let number = index + 1;
        if !(1..=MAX_QUANTITY).contains(&line.quantity) {
            return Err(refuse(number, "the quantity"));
        }
        let price = line
            .price
            .filter(|raw| raw.get() != "null")
            .map(|raw| Decimal::parse(raw.get().trim_matches('"')));
        let price = price.map(|price| {
            price
                .filter(|price| !price.is_negative())
                .ok_or_else(|| refuse(number, "the price"))
        });
        let sku = line.sku.into_owned();
        let sku = checked_sku(Cow::Owned(sku)).ok_or_else(|| refuse(number, "the SKU"))?;
        Ok((sku, line.quantity, price.transpose()?))
    };
    let lines = lines.into_iter().enumerate().map(read);
    lines
        .map(|line| {
            line.map(|(sku, quantity, price)| CartLine {
                sku: Cow::Owned(sku.into_owned()),
                quantity,
                price,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::consent::Choice;

    fn code(query: &str) -> Code {
        Ask::from_query(query).unwrap_err().code
    }

    #[test]
    fn a_query_is_read_whole() {
        let query = "user_id=u%401&user_token=t.1.x&anonymous_id=a&session_id=s&placements=promo,upsell\
            &cart=85123A:2:2.55,b%2Cc:1&currency=gbp&country=GB&locale=en-GB&device=mobile\
            &consent=analytics:granted,personalization:denied&deadline_ms=20&explain=true&utm_source=x";
        let ask = Ask::from_query(query).unwrap();
        assert_eq!(ask.user_id.as_deref(), Some("u@1"));
        assert_eq!(
            ask.placements.as_deref(),
            Some(&["promo".into(), "upsell".into()][..])
        );
        let cart = ask.cart.unwrap();
        assert_eq!(
            (&*cart[0].sku, cart[0].quantity, cart[0].price),
            ("85123A", 2, Decimal::parse("2.55"))
        );
        assert_eq!(&*cart[1].sku, "b,c");
        assert_eq!(ask.currency.as_deref(), Some("GBP"));
        assert_eq!(ask.consent.analytics, Some(Choice::Granted));
        assert_eq!(ask.consent.personalization, Some(Choice::Denied));
        assert_eq!((ask.deadline_ms, ask.explain), (Some(20), true));
    }

    #[test]
    fn a_cart_may_be_encoded_by_a_library_or_by_hand() {
        for query in [
            "cart=A:2,B:1",
            "cart=A%3A2%2CB%3A1",
            "cart=A%3A2,B%3A1",
            "cart=A:2%2CB:1",
        ] {
            let skus: Vec<_> = Ask::from_query(query)
                .unwrap()
                .cart
                .unwrap()
                .into_iter()
                .map(|l| l.sku.into_owned())
                .collect();
            assert_eq!(skus, ["A", "B"], "{query}");
        }
    }

    #[test]
    fn what_is_not_valid_is_named() {
        assert_eq!(code("cart=A"), Code::InvalidCart);
        assert_eq!(code("placements=a,,b"), Code::InvalidPlacements);
        assert_eq!(code("placements=a%20b"), Code::InvalidPlacements);
        assert_eq!(code("deadline_ms=0"), Code::InvalidDeadline);
        assert_eq!(code("deadline_ms=-5"), Code::InvalidDeadline);
        assert_eq!(code("deadline_ms=1e3"), Code::InvalidDeadline);
        for query in [
            "currency=EURO",
            "country=1",
            "user_id=%00",
            "user_id=a&user_id=b",
            "explain=maybe",
            "device=%FF",
        ] {
            assert_eq!(code(query), Code::InvalidParameter, "{query}");
        }
        assert_eq!(
            code(&format!("anonymous_id={}", "x".repeat(257))),
            Code::InvalidParameter
        );
    }

    #[test]
    fn unreadable_consent_is_denied_and_an_empty_id_is_none() {
        let ask = Ask::from_query("consent=yes&user_id=&anonymous_id=").unwrap();
        assert_eq!(ask.consent, ConsentStatement::DENIED);
        assert_eq!((ask.user_id, ask.anonymous_id), (None, None));
        // Spelled as in events.
        let ask = Ask::from_query("consent=Analytics:denied,personalisation:Denied").unwrap();
        assert_eq!(ask.consent, ConsentStatement::DENIED);
        let ask = Ask::from_query("consent=analytics:maybe,other:granted").unwrap();
        assert_eq!(
            ask.consent,
            ConsentStatement {
                analytics: Some(Choice::Denied),
                personalization: None
            }
        );
        assert_eq!(Ask::from_query("").unwrap(), Ask::default());
    }

    #[test]
    fn json_says_the_same() {
        let body = br#"{"user_id":"u@1","placements":["promo"],"cart":[{"sku":"85123A","quantity":2,"price":2.550},
            {"sku":"b,c","quantity":1,"price":"3"}],"currency":"gbp","consent":{"personalization":"denied","x":1},
            "deadline_ms":20,"events":[{"event":"Product Added"}],"later":{"a":[1]}}"#;
        let body = AskBody::parse(body).unwrap();
        assert_eq!(body.events.as_ref().map(Vec::len), Some(1));
        let ask = body.into_ask().unwrap();
        let mut query = Ask::from_query(
            "user_id=u%401&placements=promo&cart=85123A:2:2.55,b%2Cc:1:3&currency=GBP&consent=personalization:denied&deadline_ms=20",
        )
        .unwrap();
        query.placements = ask.placements.clone();
        assert_eq!(ask, query);
        for (text, code) in [
            ("[]", Code::InvalidBody),
            ("{\"cart\":[{\"sku\":\"\",\"quantity\":1}]}", Code::InvalidCart),
            ("{\"cart\":[{\"sku\":\"a\",\"quantity\":0}]}", Code::InvalidCart),
            (
                "{\"cart\":[{\"sku\":\"a\",\"quantity\":1,\"price\":-1}]}",
                Code::InvalidCart,
            ),
            (
                "{\"cart\":[{\"sku\":\"a\",\"quantity\":1,\"price\":true}]}",
                Code::InvalidCart,
            ),
            ("{\"deadline_ms\":0}", Code::InvalidDeadline),
            ("{\"placements\":[\"\"]}", Code::InvalidPlacements),
        ] {
            let result = AskBody::parse(text.as_bytes()).and_then(AskBody::into_ask);
            assert_eq!(result.unwrap_err().code, code, "{text}");
        }
        let denied = AskBody::parse(b"{\"consent\":\"yes\"}")
            .unwrap()
            .into_ask()
            .unwrap();
        assert_eq!(denied.consent, ConsentStatement::DENIED);
    }

    proptest! {
        #[test]
        fn no_query_and_no_body_panics(text in "\\PC{0,120}|[a-z_=&%,:0-9]{0,120}") {
            let _ = Ask::from_query(&text);
            let _ = AskBody::parse(text.as_bytes()).and_then(AskBody::into_ask);
        }
    }
}
