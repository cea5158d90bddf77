//! What a caller of OFREP says: an evaluation context, as the parameters of `/personalize`.
//!
//! - Members that this build does not know are ignored; applications share one context between providers.
//! - A known member of the wrong type is refused, but for consent, which counts as denied where it cannot be read
//!   (invariant 6).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::ask::{Ask, AskBody};
use crate::http::cart::{CartLine, parse_cart};
use crate::http::error::{Code, Problem};

/// The body of an OFREP request.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(super) struct OfrepRequest<'a> {
    #[serde(borrow)]
    #[schema(value_type = Option<OfrepContext>)]
    context: Option<&'a RawValue>,
}

/// Who is asking, and what the page knows of the checkout. Other members are ignored.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
struct OfrepContext<'a> {
    /// The guest's `anonymous_id`. Without any id the answer depends on the cart and the page alone.
    #[serde(borrow, rename = "targetingKey")]
    targeting_key: Option<Cow<'a, str>>,
    /// Also `user_id`. With a public key it needs `userToken`.
    #[serde(borrow, rename = "userId", alias = "user_id")]
    user_id: Option<Cow<'a, str>>,
    /// Also `user_token`: `kid.exp.mac`, made by the shop's back end; proves `userId`.
    #[serde(borrow, rename = "userToken", alias = "user_token")]
    user_token: Option<Cow<'a, str>>,
    /// Also `session_id`. Counts frequency caps per session.
    #[serde(borrow, rename = "sessionId", alias = "session_id")]
    session_id: Option<Cow<'a, str>>,
    /// Text as in `GET /personalize`, or a list of lines as in `POST /personalize`.
    #[serde(borrow)]
    #[schema(value_type = Option<serde_json::Value>, example = "85123A:2:2.55,22423:1")]
    cart: Option<&'a RawValue>,
    /// Of the cart's prices, ISO 4217.
    #[serde(borrow)]
    #[schema(example = "GBP")]
    currency: Option<Cow<'a, str>>,
    /// ISO 3166-1 alpha-2.
    #[serde(borrow)]
    #[schema(example = "GB")]
    country: Option<Cow<'a, str>>,
    /// BCP 47.
    #[serde(borrow)]
    locale: Option<Cow<'a, str>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
    /// Text as in `GET /personalize`, or an object as in `POST /personalize`; what cannot be read is denied.
    #[serde(borrow)]
    #[schema(value_type = Option<serde_json::Value>, example = "analytics:granted,personalization:denied")]
    consent: Option<&'a RawValue>,
}

/// Reads a body. A context that is absent says nothing.
///
/// # Errors
/// [`Code::InvalidBody`] for what is no request, other 400s for what is no context.
pub(super) fn read(bytes: &[u8]) -> Result<Ask<'_>, Problem> {
    let unreadable = |error: serde_json::Error| Problem::new(Code::InvalidBody, error.to_string());
    // Serde would read an array as the members in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(Code::InvalidBody, "expected an object"));
    }
    let request: OfrepRequest<'_> = serde_json::from_slice(bytes).map_err(unreadable)?;
    let context = match request.context {
        None => OfrepContext::default(),
        Some(raw) if raw.get().starts_with('{') => {
            serde_json::from_str(raw.get()).map_err(|error| invalid(&error))?
        }
        Some(_) => return Err(Problem::new(Code::InvalidParameter, "context is not an object")),
    };
    let (text, lines) = match context.cart.map(RawValue::get) {
        None => (None, None),
        Some(raw) if raw.starts_with('"') => (Some(text_cart(raw)?), None),
        Some(raw) => (
            None,
            Some(serde_json::from_str(raw).map_err(|error| invalid(&error))?),
        ),
    };
    let body = AskBody {
        anonymous_id: context.targeting_key,
        user_id: context.user_id,
        user_token: context.user_token,
        session_id: context.session_id,
        cart: lines,
        currency: context.currency,
        country: context.country,
        locale: context.locale,
        device: context.device,
        consent: context.consent,
        ..AskBody::default()
    };
    let ask = body.into_ask()?;
    Ok(Ask {
        cart: text.or(ask.cart),
        ..ask
    })
}

fn invalid(error: &serde_json::Error) -> Problem {
    Problem::new(Code::InvalidParameter, error.to_string())
}

fn text_cart(raw: &str) -> Result<Vec<CartLine<'_>>, Problem> {
    let text: Cow<'_, str> = serde_json::from_str(raw).map_err(|error| invalid(&error))?;
    let lines = parse_cart(&text).map_err(|error| Problem::new(Code::InvalidCart, error.to_string()))?;
    Ok(lines.into_iter().map(CartLine::into_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::consent::{Choice, ConsentStatement};

    #[test]
    fn a_context_says_what_a_query_says() {
        let query = "anonymous_id=a&user_id=u&user_token=t&session_id=s&cart=85123A:2:2.55,b%2Cc:1&currency=gbp&country=gb\
            &locale=en-GB&device=mobile&consent=analytics:granted,personalization:denied";
        let expected = Ask::from_query(query).unwrap();
        let camel = br#"{"context": {"targetingKey": "a", "userId": "u", "userToken": "t", "sessionId": "s",
            "cart": "85123A:2:2.55,b%2Cc:1", "currency": "gbp", "country": "gb", "locale": "en-GB", "device": "mobile",
            "consent": "analytics:granted,personalization:denied", "plan": {"deep": [1]}, "explain": 7}, "more": 1}"#;
        let snake =
            br#"{"context": {"targetingKey": "a", "user_id": "u", "user_token": "t", "session_id": "s",
            "cart": [{"sku": "85123A", "quantity": 2, "price": 2.55}, {"sku": "b,c", "quantity": 1}],
            "currency": "GBP", "country": "GB", "locale": "en-GB", "device": "mobile",
            "consent": {"analytics": "granted", "personalization": "denied"}}}"#;
        assert_eq!(read(camel).unwrap(), expected);
        assert_eq!(read(snake).unwrap(), expected);
    }

    #[test]
    fn what_is_absent_or_null_says_nothing() {
        for body in ["{}", r#"{"context": null}"#, r#"{"context": {}}"#] {
            assert_eq!(read(body.as_bytes()).unwrap(), Ask::default(), "{body}");
        }
        let nulls = br#"{"context": {"targetingKey": null, "cart": null, "consent": null, "userId": null}}"#;
        assert_eq!(read(nulls).unwrap(), Ask::default());
    }

    #[test]
    fn what_is_no_request_differs_from_what_is_no_context() {
        let code = |body: &str| read(body.as_bytes()).unwrap_err().code;
        for body in [
            "",
            "[]",
            "{",
            "{}x",
            r#"{"context": {}"#,
            r#"{"context": {"a": }}"#,
        ] {
            assert_eq!(code(body), Code::InvalidBody, "{body}");
        }
        for context in [
            "7",
            "[]",
            r#"{"targetingKey": 7}"#,
            r#"{"userId": ["u"]}"#,
            r#"{"userId": "a", "user_id": "b"}"#,
            r#"{"sessionId": {}}"#,
            r#"{"cart": 7}"#,
            r#"{"cart": {"sku": "a"}}"#,
            r#"{"cart": [7]}"#,
            r#"{"country": true}"#,
            r#"{"country": "GBR"}"#,
            r#"{"targetingKey": "\u0000"}"#,
        ] {
            let body = format!(r#"{{"context": {context}}}"#);
            assert_eq!(code(&body), Code::InvalidParameter, "{body}");
        }
        assert_eq!(code(r#"{"context": {"cart": "A"}}"#), Code::InvalidCart);
        let consent = read(br#"{"context": {"consent": 7}}"#).unwrap().consent;
        assert_eq!(consent, ConsentStatement::DENIED);
        assert_eq!(consent.analytics, Some(Choice::Denied));
    }
}
