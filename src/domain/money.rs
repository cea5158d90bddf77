//! Money: decimals read from the JSON text, integer minor units everywhere else.
//!
//! - A price is read from its digits, never through a binary float: `0.1 + 0.2` is `0.3` here, and
//!   `19.999` times three is `59.997`, rounded once.
//! - A line is `quantity × price`, rounded half to even to the currency's minor units (ISO 4217).
//! - Everything is checked: a value that doesn't fit is `None`, and nothing wraps or panics.

/// A decimal number: `coefficient · 10^-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    coefficient: i64,
    scale: u32,
}

/// Digits that a coefficient may have: what fits 64 bits, whatever they are.
const MAX_DIGITS: u32 = 18;

/// Decimal places kept; more than any price has, few enough to be a power of ten in 64 bits.
const MAX_SCALE: u32 = 18;

impl Decimal {
    pub const ZERO: Decimal = Decimal {
        coefficient: 0,
        scale: 0,
    };

    /// Reads JSON number text, or the same grammar out of a string (surrounding blanks, a leading `+` and leading
    /// zeros are forgiven): `12`, `-0.50`, `1.5e3`. `None` where it is no number or has over 18 significant
    /// digits or decimal places.
    pub fn parse(text: &str) -> Option<Decimal> {
        let text = text.trim_ascii().as_bytes();
        let (is_negative, text) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        let mut digits = Digits::default();
        let mut rest = text;
        let mut point = None;
        let exponent = loop {
            let Some((byte, after)) = rest.split_first() else {
                break 0;
            };
            match byte {
                b'0'..=b'9' => digits.push(byte - b'0', point.is_some())?,
                b'.' if point.is_none() => point = Some(after.len()),
                b'e' | b'E' => break parse_exponent(after)?,
                _ => return None,
            }
            rest = after;
        };
        let after_whole = point.map_or(rest.len(), |after| after + 1);
        if after_whole == text.len() || point == Some(rest.len()) {
            // No digit before the point, or none after it.
            return None;
        }
        let Digits {
            mut coefficient,
            mut significant,
            scale,
            ..
        } = digits;
        if coefficient == 0 {
            return Some(Decimal::ZERO);
        }
        let mut scale = scale - exponent;
        while scale < 0 && significant < MAX_DIGITS {
            coefficient *= 10;
            significant += 1;
            scale += 1;
        }
        while scale > i64::from(MAX_SCALE) && coefficient % 10 == 0 {
            coefficient /= 10;
            scale -= 1;
        }
        let scale = u32::try_from(scale).ok().filter(|scale| *scale <= MAX_SCALE)?;
        Some(Decimal {
            coefficient: if is_negative { -coefficient } else { coefficient },
            scale,
        })
    }

    pub fn is_negative(&self) -> bool {
        self.coefficient < 0
    }

    /// The number as an integer, where it is one.
    pub fn to_integer(&self) -> Option<i64> {
        let divisor = 10i64.checked_pow(self.scale)?;
        (self.coefficient % divisor == 0).then_some(self.coefficient / divisor)
    }

    /// `quantity × self`, rounded half to even to minor units of `currency`. `None` where it doesn't fit.
    pub fn times_to_minor(&self, quantity: i64, currency: &str) -> Option<i64> {
        let digits = minor_digits(currency);
        if self.scale == digits {
            return self.coefficient.checked_mul(quantity);
        }
        let product = i128::from(self.coefficient).checked_mul(i128::from(quantity))?;
        let minor = if self.scale <= digits {
            product.checked_mul(10i128.checked_pow(digits - self.scale)?)?
        } else {
            divide_half_even(product, 10i128.checked_pow(self.scale - digits)?)
        };
        i64::try_from(minor).ok()
    }

    /// The amount in minor units of `currency`, rounded half to even.
    pub fn to_minor(&self, currency: &str) -> Option<i64> {
        self.times_to_minor(1, currency)
    }
}

/// Digits read so far.
#[derive(Default)]
struct Digits {
    coefficient: i64,
    /// Digits from the first that is not zero.
    significant: u32,
    scale: i64,
    /// Zeros of the fraction that no other digit followed yet: those at its end carry no value and must not use up the scale.
    zeros: usize,
}

impl Digits {
    /// `None` where there are too many.
    fn push(&mut self, digit: u8, is_fraction: bool) -> Option<()> {
        if is_fraction && digit == 0 {
            self.zeros += 1;
            return Some(());
        }
        for _ in 0..std::mem::take(&mut self.zeros) {
            self.append(0, is_fraction)?;
        }
        self.append(digit, is_fraction)
    }

    fn append(&mut self, digit: u8, is_fraction: bool) -> Option<()> {
        self.significant += u32::from(self.significant > 0 || digit != 0);
        if self.significant > MAX_DIGITS {
            return None;
        }
        self.scale += i64::from(is_fraction);
        self.coefficient = self.coefficient * 10 + i64::from(digit);
        Some(())
    }
}

/// At most four digits: more could only mean zero or infinity.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 4 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(if is_negative { -value } else { value })
}

/// `divisor` is positive.
fn divide_half_even(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend.div_euclid(divisor);
    let twice = dividend.rem_euclid(divisor).saturating_mul(2);
    match twice.cmp(&divisor) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + (quotient & 1),
    }
}

/// The decimal places of a currency's minor unit, by ISO 4217; 2 for the unknown.
pub fn minor_digits(currency: &str) -> u32 {
    let Ok(code) = <&[u8; 3]>::try_from(currency.as_bytes()) else {
        return 2;
    };
    // Bytes: a table of texts is compared one by one.
    match code {
        b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG" | b"RWF" | b"UGX"
        | b"UYI" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
        b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
        b"CLF" | b"UYW" => 4,
        _ => 2,
    }
}

/// An amount in minor units as decimal text: `1234` in GBP is `12.34`.
pub fn format_minor(amount_minor: i64, currency: &str) -> String {
    let digits = minor_digits(currency) as usize;
    let sign = if amount_minor < 0 { "-" } else { "" };
    let magnitude = amount_minor.unsigned_abs().to_string();
    if digits == 0 {
        return format!("{sign}{magnitude}");
    }
    let padded = format!("{magnitude:0>width$}", width = digits + 1);
    let (whole, fraction) = padded.split_at(padded.len() - digits);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_come_from_the_text() {
        let minor = |text: &str, quantity, currency| {
            Decimal::parse(text).and_then(|price| price.times_to_minor(quantity, currency))
        };
        for (text, quantity, currency, expected) in [
            ("0.1", 3, "GBP", Some(30)),
            ("19.999", 3, "EUR", Some(6000)),
            ("0.125", 1, "USD", Some(12)),
            ("0.135", 1, "USD", Some(14)),
            ("-0.125", 1, "USD", Some(-12)),
            ("0.125", -1, "USD", Some(-12)),
            ("100", 1, "JPY", Some(100)),
            ("0.5", 1, "JPY", Some(0)),
            ("1.5", 1, "JPY", Some(2)),
            ("1.2345", 1, "KWD", Some(1234)),
            ("1.5e3", 2, "GBP", Some(300_000)),
            ("1E-2", 1, "GBP", Some(1)),
            (" 2.50 ", 2, "GBP", Some(500)),
            ("0.00000000000000000000000000000000000", 1, "GBP", Some(0)),
            ("0e9999", 1, "GBP", Some(0)),
            ("1000000000000000000000000e-20", 1, "GBP", None),
            ("1e400", 1, "GBP", None),
            ("1e99999", 1, "GBP", None),
            ("999999999999999999", i64::MAX, "GBP", None),
            ("", 1, "GBP", None),
            ("-", 1, "GBP", None),
            (".5", 1, "GBP", None),
            ("5.", 1, "GBP", None),
            ("1,5", 1, "GBP", None),
            ("NaN", 1, "GBP", None),
            ("1e", 1, "GBP", None),
            ("£5", 1, "GBP", None),
            ("+007.250", 2, "GBP", Some(1450)),
            ("1.0203000", 1, "KWD", Some(1020)),
            ("1.0000000000000000000000", 1, "GBP", Some(100)),
            ("0.1000000000000000000001", 1, "GBP", None),
            ("123456789012345678", 1, "JPY", Some(123_456_789_012_345_678)),
            ("1234567890123456789", 1, "JPY", None),
            ("0.000000000000000001", 1, "GBP", Some(0)),
            ("0.0000000000000000001", 1, "GBP", None),
            ("1e17", 1, "JPY", Some(100_000_000_000_000_000)),
            ("1e18", 1, "JPY", None),
            ("1.2.3", 1, "GBP", None),
            ("e5", 1, "GBP", None),
            (".e5", 1, "GBP", None),
            ("5.e1", 1, "GBP", None),
            ("1e5.0", 1, "GBP", None),
            ("--1", 1, "GBP", None),
            ("1 2", 1, "GBP", None),
            ("2", 0, "GBP", Some(0)),
        ] {
            assert_eq!(
                minor(text, quantity, currency),
                expected,
                "{text} × {quantity} {currency}"
            );
        }
    }

    #[test]
    fn integers_are_recognised_through_any_notation() {
        for (text, expected) in [
            ("2", Some(2)),
            ("2.0", Some(2)),
            ("2e1", Some(20)),
            ("20e-1", Some(2)),
            ("2.5", None),
        ] {
            assert_eq!(
                Decimal::parse(text).and_then(|d| d.to_integer()),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn minor_units_print_as_decimals() {
        assert_eq!(format_minor(-5, "GBP"), "-0.05");
        assert_eq!(format_minor(1234, "JPY"), "1234");
        assert_eq!(format_minor(i64::MIN, "KWD"), "-9223372036854775.808");
    }

    proptest! {
        #[test]
        fn what_prints_reads_back(amount in any::<i64>().prop_map(|a| a / 10), currency in "GBP|JPY|KWD") {
            let text = format_minor(amount, &currency);
            prop_assert_eq!(Decimal::parse(&text).and_then(|d| d.to_minor(&currency)), Some(amount));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[-+0-9.eE]{0,40}", quantity in any::<i64>()) {
            if let Some(price) = Decimal::parse(&text) {
                let _ = (price.times_to_minor(quantity, "GBP"), price.to_integer());
            }
        }

        #[test]
        fn rounding_is_never_off_by_more_than_half(coefficient in -1_000_000i64..1_000_000, quantity in -999i64..999) {
            let text = format!("{}{}.{:04}", if coefficient < 0 { "-" } else { "" }, coefficient.abs() / 10_000, coefficient.abs() % 10_000);
            let minor = Decimal::parse(&text).and_then(|d| d.times_to_minor(quantity, "GBP")).unwrap();
            prop_assert!((i128::from(minor) * 100 - i128::from(coefficient) * i128::from(quantity)).abs() <= 50);
        }
    }
}
