//! One row of an Online Retail file, checked field by field.

use crate::domain::money::Decimal;

/// What an invoice is, by its number's first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Order,
    Refund,
    BadDebt,
}

/// A row whose every field means something; borrowed from the record.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) kind: Kind,
    /// `InvoiceNo` with its letter.
    pub(super) invoice: &'a str,
    pub(super) stock_code: &'a str,
    /// May be empty.
    pub(super) description: &'a str,
    pub(super) quantity: i64,
    /// `YYYY-MM-DDTHH:MM:SSZ`.
    pub(super) time: String,
    pub(super) price: Decimal,
    /// The price as it stands in the file, a JSON number.
    pub(super) price_text: &'a str,
    pub(super) customer: Option<&'a str>,
    pub(super) country: &'a str,
}

/// The largest quantity of the data set is 80,995; beyond a million it is a typing mistake.
const QUANTITY_LIMIT: i64 = 1_000_000;

/// Bytes that a code, a description or a country may have.
const TEXT_LIMIT: usize = 200;

impl<'a> Row<'a> {
    /// # Errors
    /// The reason, in words that name the column and the value.
    pub(super) fn parse(record: &'a csv::StringRecord) -> Result<Self, String> {
        let mut fields = [""; 8];
        if record.len() != fields.len() {
            return Err(format!("{} columns, expected {}", record.len(), fields.len()));
        }
        for (field, text) in fields.iter_mut().zip(record) {
            *field = text.trim();
        }
        let [
            invoice,
            stock_code,
            description,
            quantity,
            date,
            price_text,
            customer,
            country,
        ] = fields;
        let bad = |column: &str, value: &str, expected: &str| {
            let value: String = value.chars().take(60).collect();
            format!("{column} `{value}` is not {expected}")
        };

        let (kind, digits) = match invoice.as_bytes().first() {
            Some(b'C') => (Kind::Refund, &invoice[1..]),
            Some(b'A') => (Kind::BadDebt, &invoice[1..]),
            _ => (Kind::Order, invoice),
        };
        if !is_number(digits) {
            return Err(bad(
                "InvoiceNo",
                invoice,
                "a number, C and a number, or A and a number",
            ));
        }
        if stock_code.is_empty() || stock_code.len() > TEXT_LIMIT {
            return Err(bad("StockCode", stock_code, "a code of 1 to 200 bytes"));
        }
        if description.len() > TEXT_LIMIT {
            return Err(bad("Description", description, "at most 200 bytes long"));
        }
        let quantity: i64 = quantity
            .parse()
            .ok()
            .filter(|quantity: &i64| quantity.abs() <= QUANTITY_LIMIT)
            .ok_or_else(|| bad("Quantity", quantity, "a whole number up to a million"))?;
        let time = parse_time(date).ok_or_else(|| bad("InvoiceDate", date, "YYYY-MM-DD HH:MM:SS"))?;
        let price = Some(price_text)
            .filter(|text| is_plain_decimal(text))
            .and_then(Decimal::parse)
            .ok_or_else(|| bad("UnitPrice", price_text, "a decimal number such as 2.55"))?;
        if kind == Kind::Order && price.is_negative() {
            return Err(bad(
                "UnitPrice",
                price_text,
                "positive; only invoices A… carry negative prices",
            ));
        }
        if kind == Kind::Refund && (quantity >= 0 || price.is_negative()) {
            let found = format!("{quantity} × {price_text}");
            return Err(bad(
                "a refund's Quantity × UnitPrice",
                &found,
                "a negative quantity times a price",
            ));
        }
        if !customer.is_empty() && !is_number(customer) {
            return Err(bad("CustomerID", customer, "a number or empty"));
        }
        if country.len() > TEXT_LIMIT {
            return Err(bad("Country", country, "at most 200 bytes long"));
        }
        let customer = Some(customer).filter(|id| !id.is_empty());
        Ok(Row {
            kind,
            invoice,
            stock_code,
            description,
            quantity,
            time,
            price,
            price_text,
            customer,
            country,
        })
    }
}

fn is_number(text: &str) -> bool {
    (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `-?digits[.digits]` without superfluous zeros before it, so that the text is a JSON number as it stands.
fn is_plain_decimal(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    is_number(whole) && (whole == "0" || !whole.starts_with('0')) && is_number(fraction)
}

/// `YYYY-MM-DD HH:MM:SS`, a time that exists, as `YYYY-MM-DDTHH:MM:SSZ`.
fn parse_time(text: &str) -> Option<String> {
    let shape = text.len() == 19
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            10 => byte == b' ',
            13 | 16 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
    if !shape {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let exists = (1..=days).contains(&day) && part(11, 13)? < 24 && part(14, 16)? < 60 && part(17, 19)? < 60;
    exists.then(|| format!("{}T{}Z", &text[..10], &text[11..]))
}
