//! What an order adds to a profile, and takes back.
//!
//! Why apart from the transform: several reports of one order compete, and it can be cancelled, so its effect
//! depends on rows already stored. A warehouse computes the *effective row* before and after (of all reports the
//! one of greatest rank, and whether it is cancelled), retracts the old one and adds the new one. As both are pure
//! functions of the rows, every order of arrival ends in the same profile.

use std::sync::Arc;

use super::profile::{Affinity, Contribution, Delta};
use super::transform::{OrderReport, RefundReport};

/// A bought item says more than a viewed one (weight 1).
const ITEM_BOUGHT: f64 = 5.0;
const CATEGORY_BOUGHT: f64 = 3.0;
/// One use of a payment or shipping method.
const METHOD_USED: f64 = 1.0;

/// Whether a row's effect is added to a profile or taken back from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Add,
    Retract,
}

impl Sign {
    fn integer(self) -> i64 {
        match self {
            Sign::Add => 1,
            Sign::Retract => -1,
        }
    }
}

/// The effect of an effective order row, to be folded into the part of `report.subject`.
///
/// A cancelled order counts as cancelled: no revenue, no affinity. The contribution carries the report's own
/// stamp, so a retraction cancels exactly what the addition put in, however much later it comes.
pub fn order_contribution(report: &OrderReport, cancelled: bool, sign: Sign) -> Contribution {
    let signed = sign.integer();
    let mut deltas = Vec::with_capacity(if cancelled { 1 } else { 3 + 2 * report.lines.len() });
    deltas.push(Delta::Orders {
        orders: if cancelled { 0 } else { signed },
        cancelled: if cancelled { signed } else { 0 },
        currency: Arc::clone(&report.currency),
        revenue_minor: if cancelled {
            0
        } else {
            report.total_minor.wrapping_mul(signed)
        },
    });
    if !cancelled {
        let mut weigh = |affinity, key: &Arc<str>, weight: f64| {
            deltas.push(Delta::Weight {
                affinity,
                key: Arc::clone(key),
                weight: weight * signed as f64,
            });
        };
        for line in report
            .lines
            .iter()
            .filter(|line| !line.is_charge && line.quantity > 0)
        {
            weigh(Affinity::Item, &line.item, ITEM_BOUGHT);
            if let Some(category) = &line.category {
                weigh(Affinity::Category, category, CATEGORY_BOUGHT);
            }
        }
        if let Some(method) = &report.payment_method {
            weigh(Affinity::PaymentMethod, method, METHOD_USED);
        }
        if let Some(method) = &report.shipping_method {
            weigh(Affinity::ShippingMethod, method, METHOD_USED);
        }
    }
    Contribution {
        stamp: report.rank.stamp.clone(),
        deltas,
        resets: false,
    }
}

/// The effect of an effective refund row, to be folded into the part of `report.subject`.
pub fn refund_contribution(report: &RefundReport, sign: Sign) -> Contribution {
    let signed = sign.integer();
    let delta = Delta::Refunds {
        refunds: signed,
        currency: Arc::clone(&report.currency),
        refunded_minor: report.amount_minor.wrapping_mul(signed),
    };
    Contribution {
        stamp: report.rank.stamp.clone(),
        deltas: vec![delta],
        resets: false,
    }
}
