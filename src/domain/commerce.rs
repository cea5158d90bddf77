//! What the properties of an E-commerce event say, read and checked in one place.
//!
//! Validation calls this to tell whether an event can be folded, and the transform calls it to fold it, so the two
//! cannot disagree. Ids may be strings or numbers; amounts and quantities may be numbers or numeric strings; unknown
//! members are passed over; `null` is absent.

use std::borrow::Cow;

use super::event::{KnownEvent, QuarantineCode};
use super::json::{Reader, Value};
use super::money::Decimal;

/// Lines of one order or cart; real invoices have over a thousand.
const MAX_PRODUCTS: usize = 5_000;

/// Bytes of an id or of a method's name.
const MAX_ID_BYTES: usize = 256;

/// A product, at the top of an event or in `products[]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Product<'a> {
    pub(super) product_id: Option<Cow<'a, str>>,
    sku: Option<Cow<'a, str>>,
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) category: Option<Cow<'a, str>>,
    pub(super) price: Option<Price<'a>>,
    pub(super) quantity: Option<i64>,
    /// Pieces that can be sold.
    pub(super) stock: Option<i64>,
    pub(super) image_url: Option<Cow<'a, str>>,
    is_charge: bool,
}

/// A unit price, with its text as sent.
#[derive(Debug, Clone)]
pub(super) struct Price<'a> {
    pub(super) value: Decimal,
    pub(super) text: Cow<'a, str>,
}

/// The known properties of one event.
#[derive(Debug, Clone, Default)]
pub(super) struct Commerce<'a> {
    /// The product that the event is about, where it is about one.
    pub(super) product: Product<'a>,
    pub(super) products: Vec<Product<'a>>,
    /// Whether `products` was there at all: an empty cart is not an unknown one.
    pub(super) lists_products: bool,
    pub(super) order_id: Option<Cow<'a, str>>,
    pub(super) refund_id: Option<Cow<'a, str>>,
    /// Three upper-case letters.
    pub(super) currency: Option<String>,
    pub(super) total: Option<Decimal>,
    revenue: Option<Decimal>,
    pub(super) step: Option<u16>,
    pub(super) payment_method: Option<Cow<'a, str>>,
    pub(super) shipping_method: Option<Cow<'a, str>>,
    pub(super) coupon: Option<Cow<'a, str>>,
}

impl Product<'_> {
    pub(super) fn item(&self) -> Option<&str> {
        self.product_id.as_deref().or(self.sku.as_deref())
    }

    /// Postage and fees: in totals, never recommended.
    pub(super) fn is_charge(&self) -> bool {
        self.is_charge
            || self
                .category
                .as_deref()
                .is_some_and(|c| c.eq_ignore_ascii_case("charge"))
    }

    /// The line's value in minor units; an unknown price counts as zero.
    pub(super) fn amount_minor(&self, currency: &str) -> Result<i64, QuarantineCode> {
        match &self.price {
            Some(price) => price
                .value
                .times_to_minor(self.quantity.unwrap_or(1), currency)
                .ok_or(QuarantineCode::InvalidPrice),
            None => Ok(0),
        }
    }

    pub(super) fn price_minor(&self, currency: &str) -> Option<i64> {
        self.price
            .as_ref()
            .and_then(|price| price.value.to_minor(currency))
    }
}

impl<'a> Commerce<'a> {
    /// Reads and checks the properties of `event`; absent properties are an empty object.
    pub(super) fn read(event: KnownEvent, properties: Option<&'a str>) -> Result<Self, QuarantineCode> {
        let mut commerce = Commerce::default();
        if let Some(properties) = properties {
            let mut reader = Reader::new(properties);
            if reader.value() != Ok(Value::Object) {
                return Err(QuarantineCode::InvalidProperties);
            }
            commerce.read_members(&mut reader)?;
        }
        commerce.check(event)?;
        Ok(commerce)
    }

    fn read_members(&mut self, reader: &mut Reader<'a>) -> Result<(), QuarantineCode> {
        use QuarantineCode as Code;
        let mut first = true;
        while let Some(key) = reader.key(&mut first).map_err(|_| Code::InvalidProperties)? {
            match &*key.decode() {
                "order_id" | "orderId" => self.order_id = id(reader, Code::InvalidOrderId)?,
                "refund_id" | "refundId" => self.refund_id = id(reader, Code::InvalidOrderId)?,
                "currency" => self.currency = currency(reader)?,
                "total" => self.total = decimal(reader, Code::InvalidTotal)?.map(|price| price.value),
                "revenue" => self.revenue = decimal(reader, Code::InvalidTotal)?.map(|price| price.value),
                "step" => self.step = step(reader)?,
                "payment_method" | "paymentMethod" => self.payment_method = id(reader, Code::InvalidText)?,
                "shipping_method" | "shippingMethod" => self.shipping_method = id(reader, Code::InvalidText)?,
                "coupon" => self.coupon = id(reader, Code::InvalidText)?,
                "products" => {
                    if let Some(products) = products(reader)? {
                        self.products = products;
                        self.lists_products = true;
                    }
                }
                other => self.product.read_member(other, reader)?,
            }
        }
        Ok(())
    }

    fn check(&self, event: KnownEvent) -> Result<(), QuarantineCode> {
        use KnownEvent as Event;
        match event {
            Event::ProductViewed
            | Event::ProductClicked
            | Event::ProductAdded
            | Event::ProductRemoved
            | Event::ProductAddedToWishlist
            | Event::ProductRemovedFromWishlist
            | Event::WishlistProductAddedToCart
            | Event::ProductReviewed
            | Event::ProductUpdated
                if self.product.item().is_none() =>
            {
                return Err(QuarantineCode::MissingProductId);
            }
            Event::OrderCompleted | Event::OrderUpdated | Event::OrderCancelled
                if self.order_id.is_none() =>
            {
                return Err(QuarantineCode::MissingOrderId);
            }
            _ => {}
        }
        if self.products.iter().any(|product| product.item().is_none()) {
            return Err(QuarantineCode::MissingProductId);
        }
        // Only a refund may take goods back.
        let lines = self.products.iter().chain([&self.product]);
        if event != Event::OrderRefunded && lines.into_iter().any(|line| line.quantity.is_some_and(|n| n < 0))
        {
            return Err(QuarantineCode::InvalidQuantity);
        }
        match event {
            Event::OrderCompleted => self.order_total().map(|_| ()),
            Event::OrderUpdated if self.has_amount() => self.order_total().map(|_| ()),
            Event::OrderRefunded => self.refund_total().map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Whether the event says what the order is worth.
    pub(super) fn has_amount(&self) -> bool {
        !self.products.is_empty() || self.stated_total().is_some()
    }

    fn stated_total(&self) -> Option<Decimal> {
        self.total.or(self.revenue)
    }

    /// The currency, and the sum of the lines; where a line has no price, or there is none, the stated total.
    pub(super) fn order_total(&self) -> Result<(&str, i64), QuarantineCode> {
        let currency = self.currency.as_deref().ok_or(QuarantineCode::MissingCurrency)?;
        let sum = self.products.iter().try_fold(0i64, |sum, line| {
            sum.checked_add(line.amount_minor(currency)?)
                .ok_or(QuarantineCode::InvalidPrice)
        })?;
        let priced = !self.products.is_empty() && self.products.iter().all(|line| line.price.is_some());
        match self.stated_total() {
            Some(total) if !priced => Ok((
                currency,
                total.to_minor(currency).ok_or(QuarantineCode::InvalidTotal)?,
            )),
            None if self.products.is_empty() => Err(QuarantineCode::InvalidTotal),
            _ => Ok((currency, sum)),
        }
    }

    /// The currency, and the amount refunded, positive: the stated total, else the sum of the lines.
    pub(super) fn refund_total(&self) -> Result<(&str, i64), QuarantineCode> {
        let (currency, amount) = match (&self.currency, self.stated_total()) {
            (Some(currency), Some(total)) => (
                currency.as_str(),
                total.to_minor(currency).ok_or(QuarantineCode::InvalidTotal)?,
            ),
            _ => self.order_total()?,
        };
        Ok((
            currency,
            amount.checked_abs().ok_or(QuarantineCode::InvalidTotal)?,
        ))
    }
}

impl<'a> Product<'a> {
    fn read_member(&mut self, key: &str, reader: &mut Reader<'a>) -> Result<(), QuarantineCode> {
        use QuarantineCode as Code;
        match key {
            "product_id" | "productId" => self.product_id = id(reader, Code::InvalidProductId)?,
            "sku" => self.sku = id(reader, Code::InvalidProductId)?,
            "name" => self.name = text(reader)?,
            "category" => self.category = id(reader, Code::InvalidText)?,
            "price" => self.price = decimal(reader, Code::InvalidPrice)?,
            "quantity" => {
                let quantity = decimal(reader, Code::InvalidQuantity)?;
                self.quantity = match quantity {
                    Some(price) => Some(price.value.to_integer().ok_or(Code::InvalidQuantity)?),
                    None => None,
                };
            }
            "stock" => {
                let stock = decimal(reader, Code::InvalidQuantity)?;
                self.stock = match stock {
                    Some(stock) => Some(stock.value.to_integer().ok_or(Code::InvalidQuantity)?.max(0)),
                    None => None,
                };
            }
            "image_url" | "imageUrl" => self.image_url = text(reader)?,
            "is_charge" | "isCharge" => {
                self.is_charge = match reader.value() {
                    Ok(Value::Bool(flag)) => flag,
                    Ok(Value::Null) => false,
                    _ => return Err(Code::InvalidProducts),
                }
            }
            _ => drop(reader.skip().map_err(|_| Code::InvalidProperties)?),
        }
        Ok(())
    }
}

fn products<'a>(reader: &mut Reader<'a>) -> Result<Option<Vec<Product<'a>>>, QuarantineCode> {
    match reader.value() {
        Ok(Value::Null) => return Ok(None),
        Ok(Value::Array) => {}
        _ => return Err(QuarantineCode::InvalidProducts),
    }
    let mut products = Vec::new();
    let mut first = true;
    while reader
        .element(&mut first)
        .map_err(|_| QuarantineCode::InvalidProducts)?
    {
        if products.len() == MAX_PRODUCTS {
            return Err(QuarantineCode::TooManyProducts);
        }
        if reader.value() != Ok(Value::Object) {
            return Err(QuarantineCode::InvalidProducts);
        }
        let mut product = Product::default();
        let mut first_member = true;
        while let Some(key) = reader
            .key(&mut first_member)
            .map_err(|_| QuarantineCode::InvalidProducts)?
        {
            product.read_member(&key.decode(), reader)?;
        }
        products.push(product);
    }
    Ok(Some(products))
}

/// A short string or a number, kept as text; blank is absent.
fn id<'a>(reader: &mut Reader<'a>, code: QuarantineCode) -> Result<Option<Cow<'a, str>>, QuarantineCode> {
    let id = match reader.value() {
        Ok(Value::Text(text)) => text.decode(),
        Ok(Value::Number(number)) => Cow::Borrowed(number),
        Ok(Value::Null) => return Ok(None),
        _ => return Err(code),
    };
    if id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
        return Err(code);
    }
    Ok(Some(id).filter(|id| !id.trim().is_empty()))
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<Option<Cow<'a, str>>, QuarantineCode> {
    match reader.value() {
        Ok(Value::Text(text)) => Ok(Some(text.decode()).filter(|text| !text.trim().is_empty())),
        Ok(Value::Null) => Ok(None),
        _ => Err(QuarantineCode::InvalidText),
    }
}

fn decimal<'a>(reader: &mut Reader<'a>, code: QuarantineCode) -> Result<Option<Price<'a>>, QuarantineCode> {
    let text = match reader.value() {
        Ok(Value::Number(number)) => Cow::Borrowed(number),
        Ok(Value::Text(text)) => text.decode(),
        Ok(Value::Null) => return Ok(None),
        _ => return Err(code),
    };
    match Decimal::parse(&text) {
        Some(value) => Ok(Some(Price { value, text })),
        None if text.trim().is_empty() => Ok(None),
        None => Err(code),
    }
}

fn currency(reader: &mut Reader<'_>) -> Result<Option<String>, QuarantineCode> {
    match reader.value() {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Text(text)) => {
            match text.raw.len() == 3 && text.raw.bytes().all(|b| b.is_ascii_alphabetic()) {
                true => Ok(Some(text.raw.to_ascii_uppercase())),
                false if text.raw.is_empty() => Ok(None),
                false => Err(QuarantineCode::InvalidCurrency),
            }
        }
        _ => Err(QuarantineCode::InvalidCurrency),
    }
}

fn step(reader: &mut Reader<'_>) -> Result<Option<u16>, QuarantineCode> {
    match decimal(reader, QuarantineCode::InvalidStep)? {
        None => Ok(None),
        Some(price) => {
            let step = price.value.to_integer().and_then(|step| u16::try_from(step).ok());
            step.map(Some).ok_or(QuarantineCode::InvalidStep)
        }
    }
}
