//! The `cart` parameter: `SKU:QTY[:PRICE],…`.
//!
//! - Each part is percent-decoded after the split, so an SKU may hold any character as long as `,`, `:` and `%` in
//!   it are escaped.
//! - The price is the decimal unit price, as text: `12.50`. It is turned into minor units by whoever knows the
//!   currency, never through a float.
//! - An empty text is an empty cart, which differs from no cart: the request's cart goes before the profile's.
//! - A cart, a line and a quantity are bounded; what is over a bound is refused, not cut.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::extract::{has_control, pieces};
use crate::domain::money::Decimal;

/// Lines of one cart; more than a checkout page shows.
pub(super) const MAX_CART_LINES: usize = 200;
/// Bytes of one SKU after decoding, as for a product id in an event.
pub(super) const MAX_SKU_BYTES: usize = 256;
/// Pieces of one line.
pub(super) const MAX_QUANTITY: u32 = 1_000_000;

/// One line of the request's cart.
#[derive(Debug, Clone, PartialEq)]
pub struct CartLine<'a> {
    pub sku: Cow<'a, str>,
    pub quantity: u32,
    /// Per unit; never negative.
    pub price: Option<Decimal>,
}

impl CartLine<'_> {
    pub(super) fn into_owned(self) -> CartLine<'static> {
        CartLine {
            sku: Cow::Owned(self.sku.into_owned()),
            quantity: self.quantity,
            price: self.price,
        }
    }
}

/// Why a text is not a cart. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CartError {
    #[error("a cart has at most {MAX_CART_LINES} lines")]
    TooManyLines,
    #[error("line {line} is not SKU:QTY or SKU:QTY:PRICE")]
    Shape { line: usize },
    #[error("the SKU of line {line} is empty, over {MAX_SKU_BYTES} bytes, or not percent-encoded UTF-8")]
    Sku { line: usize },
    #[error("the quantity of line {line} is not a whole number from 1 to {MAX_QUANTITY}")]
    Quantity { line: usize },
    #[error("the price of line {line} is not a decimal number of zero or more")]
    Price { line: usize },
}

/// Reads a cart whose separators are literal.
///
/// # Errors
/// [`CartError`] names the line.
pub fn parse_cart(text: &str) -> Result<Vec<CartLine<'_>>, CartError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = Vec::new();
    for (index, part) in pieces(text, b',').enumerate() {
        if index == MAX_CART_LINES {
            return Err(CartError::TooManyLines);
        }
        lines.push(parse_line(part, index + 1)?);
    }
    Ok(lines)
}

fn parse_line(text: &str, line: usize) -> Result<CartLine<'_>, CartError> {
    let mut parts = pieces(text, b':');
    let (Some(sku), Some(quantity), price, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(CartError::Shape { line });
    };
    let sku = match sku.bytes().any(|byte| byte == b'%') {
        true => percent_decode_str(sku)
            .decode_utf8()
            .map_err(|_| CartError::Sku { line })?,
        false => Cow::Borrowed(sku),
    };
    Ok(CartLine {
        sku: checked_sku(sku).ok_or(CartError::Sku { line })?,
        quantity: parse_quantity(quantity).ok_or(CartError::Quantity { line })?,
        price: price
            .map(|price| parse_price(price).ok_or(CartError::Price { line }))
            .transpose()?,
    })
}

/// The SKU, if it is neither empty nor too long and has no control characters.
pub(super) fn checked_sku(sku: Cow<'_, str>) -> Option<Cow<'_, str>> {
    (!sku.is_empty() && sku.len() <= MAX_SKU_BYTES && !has_control(&sku)).then_some(sku)
}

fn parse_quantity(text: &str) -> Option<u32> {
    // `parse` would take a leading plus sign, which a query means as a blank.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let quantity = digits.then(|| text.parse().ok())??;
    (1..=MAX_QUANTITY).contains(&quantity).then_some(quantity)
}

fn parse_price(text: &str) -> Option<Decimal> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| Decimal::parse(text))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line<'a>(sku: &'a str, quantity: u32, price: Option<&str>) -> CartLine<'a> {
        CartLine {
            sku: sku.into(),
            quantity,
            price: price.map(|text| Decimal::parse(text).unwrap()),
        }
    }

    #[test]
    fn a_cart_is_read_line_by_line() {
        assert_eq!(parse_cart(""), Ok(vec![]));
        let expected = vec![line("85123A", 2, None), line("a,b:c%", 1, Some("2.55"))];
        assert_eq!(parse_cart("85123A:2,a%2Cb%3Ac%25:1:2.55"), Ok(expected));
        assert_eq!(parse_cart("%E2%82%AC:1"), Ok(vec![line("€", 1, None)]));
    }

    #[test]
    fn what_is_not_a_cart_is_refused_with_its_line() {
        use CartError as E;
        let long = format!("{}:1", "x".repeat(MAX_SKU_BYTES + 1));
        let many = vec!["a:1"; MAX_CART_LINES + 1].join(",");
        for (text, error) in [
            ("a", E::Shape { line: 1 }),
            ("a:1,", E::Shape { line: 2 }),
            (",", E::Shape { line: 1 }),
            ("a:1:2:3", E::Shape { line: 1 }),
            (":1", E::Sku { line: 1 }),
            ("%00:1", E::Sku { line: 1 }),
            ("%FF:1", E::Sku { line: 1 }),
            (&*long, E::Sku { line: 1 }),
            ("a:0", E::Quantity { line: 1 }),
            ("a:", E::Quantity { line: 1 }),
            ("a:-1", E::Quantity { line: 1 }),
            ("a:+1", E::Quantity { line: 1 }),
            ("a:1.5", E::Quantity { line: 1 }),
            ("a:1000001", E::Quantity { line: 1 }),
            ("a:99999999999", E::Quantity { line: 1 }),
            ("a:1,b:1:-2", E::Price { line: 2 }),
            ("a:1:", E::Price { line: 1 }),
            ("a:1:1e9", E::Price { line: 1 }),
            ("a:1:£2", E::Price { line: 1 }),
            (&*many, E::TooManyLines),
        ] {
            assert_eq!(parse_cart(text), Err(error), "{text:.40}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}|[a-c0-9:,.%]{0,80}") {
            let _ = parse_cart(&text);
        }

        #[test]
        fn any_sku_survives_its_encoding(sku in "[^\\p{Cc}]{1,40}", quantity in 1..=MAX_QUANTITY) {
            let encoded: String = percent_encoding::utf8_percent_encode(&sku, percent_encoding::NON_ALPHANUMERIC).collect();
            let text = format!("{encoded}:{quantity}");
            let lines = parse_cart(&text).unwrap();
            prop_assert_eq!(&*lines[0].sku, sku.as_str());
            prop_assert_eq!(lines[0].quantity, quantity);
        }
    }
}
