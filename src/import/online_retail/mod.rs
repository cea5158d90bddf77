//! Online Retail: the invoices of a gift shop, one CSV row per invoice line.
//!
//! Why this format: it is the best known public set of real orders, with all the dirt of a real shop in it.
//! The rules, so that totals can be compared with any other reading of the file:
//!
//! - An invoice is all rows of one `InvoiceNo`, wherever they stand; its lines are in file order and its time
//!   is the earliest of its rows, the shop's local time read as UTC.
//! - `InvoiceNo` of digits: *Order Completed*. With a `C` before them: *Order Refunded*, a refund of its own
//!   (the file does not name the order). With an `A`: a correction of bad debt, counted and not sent.
//! - A row without `C` whose quantity is not positive is a stock adjustment: counted and not sent. An invoice
//!   of nothing else is no order.
//! - A stock code that is no product (postage, discount, fees, see [`is_product`]) is a line flagged as a charge.
//! - Rows that repeat each other exactly are lines like any other: two of a thing were scanned twice.
//! - A row's `CustomerID` names the user; an invoice without one belongs to a guest of its own. A blank among
//!   rows that name a customer adds nothing; two different customers on one invoice are an error.
//! - A line is `quantity × price`, rounded half to even to pence; the currency is GBP.
//!
//! Events are in order of time, then number, and their ids are made of the number alone. So a file whose rows
//! were shuffled makes the same events except for the *order of lines* within an invoice, under the same ids:
//! into a warehouse that has the history already it changes nothing, and into an empty one it gives the same
//! orders and totals, with lines numbered by the order of the file that came first. For the same reason an
//! excerpt must hold whole invoices: one that was cut counts as it came first.
//!
//! Memory: each row is kept as the JSON of its line, some 110 bytes, until the file has been read;
//! [`ROW_LIMIT`] bounds that.

mod row;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io::Read;

use serde::Serialize;
use serde_json::value::RawValue;

use self::row::{Kind, Row};
use super::{ImportError, OutgoingEvent, Problems, check_header, read};

/// The columns, in order.
pub const HEADER: [&str; 8] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];

/// Rows that one import takes: five times the whole data set, some 250 MB.
pub const ROW_LIMIT: u64 = 2_000_000;

const CURRENCY: &str = "GBP";

/// What a file holds, class by class. `order_lines`, `refund_lines` and the two kinds of adjustments add up to `rows`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub rows: u64,
    pub order_lines: u64,
    pub refund_lines: u64,
    /// Rows of invoices `A…`.
    pub adjustments_bad_debt: u64,
    /// Rows without `C` whose quantity is not positive.
    pub adjustments_stock: u64,
    pub orders: u64,
    pub refunds: u64,
    /// Order lines that are no products.
    pub charge_lines: u64,
    /// Different customers with an order or a refund.
    pub customers: u64,
    /// Orders and refunds without a customer.
    pub guests: u64,
    /// The sum of all order lines.
    pub revenue_pence: i64,
    /// The part of the revenue that is charges.
    pub charges_pence: i64,
    /// The sum of all refund lines, positive.
    pub refunded_pence: i64,
}

/// A file, converted: its events in order of time, and what it holds.
#[derive(Debug)]
pub struct Conversion {
    pub events: Vec<OutgoingEvent>,
    pub summary: Summary,
}

/// One invoice under way. Adjustments never get here.
struct Invoice {
    kind: Kind,
    number: String,
    /// `YYYY-MM-DDTHH:MM:SSZ`, which compares like the instant.
    time: String,
    customer: Option<String>,
    country: String,
    /// The lines as JSON objects with commas between them.
    products: String,
    total_pence: i64,
}

/// Reads a whole file. `progress` is told the number of rows read, now and then.
///
/// # Errors
/// See [`ImportError`]; nothing is returned of a file with a bad row.
pub fn convert(input: impl Read, mut progress: impl FnMut(u64)) -> Result<Conversion, ImportError> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .has_headers(false)
        .from_reader(input);
    let mut record = csv::StringRecord::new();
    read(&mut reader, &mut record)?;
    check_header(&record, &HEADER)?;

    let mut ledger = Ledger::default();
    while read(&mut reader, &mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        if ledger.summary.rows == ROW_LIMIT {
            return Err(ImportError::TooManyRows { limit: ROW_LIMIT });
        }
        ledger.summary.rows += 1;
        if let Err(reason) = Row::parse(&record).and_then(|row| ledger.enter(&row)) {
            ledger.problems.add(line, reason);
        }
        if ledger.summary.rows.is_multiple_of(4096) {
            progress(ledger.summary.rows);
        }
    }
    progress(ledger.summary.rows);
    ledger.close()
}

#[derive(Default)]
struct Ledger {
    invoices: Vec<Invoice>,
    /// Number to place in `invoices`: rows of one invoice may stand anywhere.
    places: HashMap<String, usize>,
    summary: Summary,
    problems: Problems,
}

/// A line of an order or a refund, as the E-commerce specification spells it.
#[derive(Serialize)]
struct Product<'a> {
    sku: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    quantity: i64,
    /// The decimal as it stands in the file.
    price: &'a RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_charge: bool,
}

impl Ledger {
    fn enter(&mut self, row: &Row<'_>) -> Result<(), String> {
        // Rows of an `A` invoice and of a `C` invoice are what their invoice is; only plain ones depend on the sign.
        match row.kind {
            Kind::BadDebt => {
                self.summary.adjustments_bad_debt += 1;
                return Ok(());
            }
            Kind::Order if row.quantity <= 0 => {
                self.summary.adjustments_stock += 1;
                return Ok(());
            }
            Kind::Order => self.summary.order_lines += 1,
            Kind::Refund => self.summary.refund_lines += 1,
        }
        // What comes back has a negative quantity in the file and a positive one in the event.
        let sign = if row.kind == Kind::Refund { -1 } else { 1 };
        let quantity = row.quantity * sign;
        let amount = row.price.times_to_minor(quantity, CURRENCY).ok_or_else(|| {
            format!(
                "Quantity {} × UnitPrice {} is too large",
                row.quantity, row.price_text
            )
        })?;
        let is_charge = !is_product(row.stock_code);
        let price = RawValue::from_string(row.price_text.to_owned()).map_err(|error| error.to_string())?;
        let product = Product {
            sku: row.stock_code,
            name: row.description,
            quantity,
            price: &price,
            is_charge,
        };
        let product = serde_json::to_string(&product).map_err(|error| error.to_string())?;

        let invoice = self.invoice(row)?;
        if !invoice.products.is_empty() {
            invoice.products.push(',');
        }
        invoice.products.push_str(&product);
        invoice.total_pence = add(invoice.total_pence, amount)?;
        if row.kind == Kind::Refund {
            self.summary.refunded_pence = add(self.summary.refunded_pence, amount)?;
        } else {
            self.summary.revenue_pence = add(self.summary.revenue_pence, amount)?;
            if is_charge {
                self.summary.charge_lines += 1;
                self.summary.charges_pence = add(self.summary.charges_pence, amount)?;
            }
        }
        Ok(())
    }

    /// The row's invoice, opened or brought up to date with what the row says of it.
    fn invoice(&mut self, row: &Row<'_>) -> Result<&mut Invoice, String> {
        let next = self.invoices.len();
        let place = *self.places.entry(row.invoice.to_owned()).or_insert(next);
        if place == next {
            self.invoices.push(Invoice {
                kind: row.kind,
                number: row.invoice.to_owned(),
                time: row.time.clone(),
                customer: None,
                country: row.country.to_owned(),
                products: String::new(),
                total_pence: 0,
            });
        }
        let invoice = self.invoices.get_mut(place).ok_or("an invoice was mislaid")?;
        if row.time < invoice.time {
            invoice.time.clone_from(&row.time);
        }
        match (row.customer, &invoice.customer) {
            (Some(customer), Some(known)) if customer != known => {
                return Err(format!(
                    "invoice {} belongs to customer {known} and to {customer}",
                    row.invoice
                ));
            }
            (Some(customer), None) => invoice.customer = Some(customer.to_owned()),
            _ => {}
        }
        Ok(invoice)
    }

    fn close(mut self) -> Result<Conversion, ImportError> {
        self.problems.none()?;
        self.invoices
            .sort_by(|a, b| (&a.time, &a.number).cmp(&(&b.time, &b.number)));
        let mut customers = BTreeSet::new();
        for invoice in &self.invoices {
            match invoice.kind {
                Kind::Refund => self.summary.refunds += 1,
                _ => self.summary.orders += 1,
            }
            match &invoice.customer {
                Some(customer) => {
                    customers.insert(customer.as_str());
                }
                None => self.summary.guests += 1,
            }
        }
        self.summary.customers = customers.len() as u64;
        drop(customers);
        let events = self.invoices.into_iter().map(Invoice::into_event).collect();
        Ok(Conversion {
            events,
            summary: self.summary,
        })
    }
}

impl Invoice {
    fn into_event(self) -> OutgoingEvent {
        let (name, id_field) = match self.kind {
            Kind::Refund => ("Order Refunded", "refund_id"),
            _ => ("Order Completed", "order_id"),
        };
        let owner = match &self.customer {
            Some(customer) => format!(r#""user_id":"{customer}""#),
            None => format!(r#""anonymous_id":"guest-{}""#, self.number),
        };
        // Number, customer and time were checked to be letters, digits and the punctuation of a time; the
        // country may be anything.
        let country = serde_json::Value::from(self.country);
        let event_id = format!("online-retail-{}", self.number);
        let json = format!(
            concat!(
                r#"{{"event_id":"{event_id}","event":"{name}",{owner},"timestamp":"{time}","#,
                r#""properties":{{"{id_field}":"{number}","currency":"{currency}","total":{total},"products":[{products}]}},"#,
                r#""context":{{"country":{country}}}}}"#
            ),
            event_id = event_id,
            name = name,
            owner = owner,
            time = self.time,
            id_field = id_field,
            number = self.number,
            currency = CURRENCY,
            total = pounds(self.total_pence),
            products = self.products,
            country = country,
        );
        OutgoingEvent { event_id, json }
    }
}

fn add(a: i64, b: i64) -> Result<i64, String> {
    a.checked_add(b)
        .ok_or_else(|| "the sum of the amounts is too large".to_owned())
}

/// Pence as a decimal of pounds, `1234` as `12.34`.
pub fn pounds(pence: i64) -> String {
    let sign = if pence < 0 { "-" } else { "" };
    let pence = pence.unsigned_abs();
    format!("{sign}{}.{:02}", pence / 100, pence % 100)
}

/// Whether a stock code is a product: five digits and an optional suffix (`85123A`), or one of the lettered
/// ranges the shop sells under (`DCGS…`, `gift_…`, `PADS`). The rest, known (`POST`, `DOT`, `M`, `D`, `S`,
/// `C2`, `B`, `BANK CHARGES`, `AMAZONFEE`, `CRUK`) or new, is a charge: recommending a fee is the worse mistake.
pub fn is_product(stock_code: &str) -> bool {
    let lower = stock_code.to_ascii_lowercase();
    let numbered = lower.bytes().take_while(u8::is_ascii_digit).count() >= 5;
    numbered || lower.starts_with("dcgs") || lower.starts_with("gift_") || lower == "pads"
}
