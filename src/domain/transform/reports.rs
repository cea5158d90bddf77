//! Orders, refunds and products, as one event reports them.

use std::sync::Arc;

use super::{OrderLine, OrderReport, ProductSeen, Rank, RefundReport};
use crate::domain::commerce::Commerce;
use crate::domain::event::{Event, Source};

pub(super) fn rank(event: &Event) -> Rank {
    Rank {
        verified: event.is_verified(),
        stamp: event.stamp(),
    }
}

pub(super) fn order(event: &Event, commerce: &Commerce<'_>) -> Option<OrderReport> {
    let order_id = commerce.order_id.as_deref()?;
    let (currency, total_minor) = commerce.order_total().ok()?;
    let lines = commerce.products.iter().enumerate().filter_map(|(at, product)| {
        Some(OrderLine {
            line: u32::try_from(at + 1).unwrap_or(u32::MAX),
            item: product.item()?.into(),
            category: product.category.as_deref().map(Arc::from),
            quantity: product.quantity.unwrap_or(1),
            unit_price: product.price.as_ref().map_or("0", |price| &*price.text).into(),
            amount_minor: product.amount_minor(currency).unwrap_or(0),
            is_charge: product.is_charge(),
        })
    });
    Some(OrderReport {
        order_id: order_id.into(),
        rank: rank(event),
        subject: event.subject().cloned(),
        currency: currency.into(),
        total_minor,
        payment_method: commerce.payment_method.as_deref().map(Arc::from),
        shipping_method: commerce.shipping_method.as_deref().map(Arc::from),
        coupon: commerce.coupon.as_deref().map(Arc::from),
        lines: lines.collect(),
    })
}

pub(super) fn refund(event: &Event, commerce: &Commerce<'_>) -> Option<RefundReport> {
    let (currency, amount_minor) = commerce.refund_total().ok()?;
    Some(RefundReport {
        order_id: commerce.order_id.as_deref().unwrap_or_default().into(),
        refund_id: commerce
            .refund_id
            .as_deref()
            .map_or_else(|| Arc::clone(&event.event_id), Arc::from),
        rank: rank(event),
        subject: event.subject().cloned(),
        currency: currency.into(),
        amount_minor,
    })
}

pub(super) fn products_seen(event: &Event, commerce: &Commerce<'_>) -> Vec<ProductSeen> {
    // What can be sold is the shop's to say.
    let by_the_shop = event.source != Source::Public;
    let seen = commerce
        .products
        .iter()
        .chain([&commerce.product])
        .filter_map(|product| {
            let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(Arc::from);
            let currency = commerce.currency.as_deref();
            Some(ProductSeen {
                item: product.item()?.into(),
                name: text(&product.name),
                category: text(&product.category),
                price_minor: currency.and_then(|currency| product.price_minor(currency)),
                currency: currency.map(Arc::from),
                is_charge: product.is_charge(),
                stock: product.stock.filter(|_| by_the_shop),
                image_url: text(&product.image_url),
                stamp: event.stamp(),
            })
        });
    seen.collect()
}
