//! What an import tells its user: what the file holds, and what became of it.

use std::time::Duration;

use super::Receipts;
use crate::import::online_retail::{Summary, pounds};

/// What became of the events, in one sentence.
pub(super) fn sentence(receipts: &Receipts, elapsed: Duration) -> String {
    let Receipts {
        accepted,
        duplicate,
        quarantined,
        rejected,
    } = receipts;
    let total = accepted + duplicate + quarantined + rejected;
    let mut text = format!("{} events sent", grouped(total));
    if *duplicate > 0 {
        text.push_str(&format!(", {} of them lately before", grouped(*duplicate)));
    }
    if !receipts.all_counted() {
        text.push_str(&format!(", {quarantined} quarantined and {rejected} rejected"));
    }
    text.push_str(&format!(
        "; what was accepted is in the warehouse after {:.1} s",
        elapsed.as_secs_f64()
    ));
    text
}

/// The summary as a table whose rows add up.
pub(in crate::cli) fn table(summary: &Summary) -> String {
    let mut text = format!("{:<28}{:>10}{:>10}{:>18}\n", "", "rows", "invoices", "GBP");
    let mut row = |name: &str, rows: u64, invoices: Option<u64>, pence: Option<i64>| {
        let invoices = invoices.map(grouped).unwrap_or_default();
        let amount = pence.map(amount).unwrap_or_default();
        text.push_str(format!("{name:<28}{:>10}{invoices:>10}{amount:>18}", grouped(rows)).trim_end());
        text.push('\n');
    };
    row(
        "orders",
        summary.order_lines,
        Some(summary.orders),
        Some(summary.revenue_pence),
    );
    row(
        "  of these, charges",
        summary.charge_lines,
        None,
        Some(summary.charges_pence),
    );
    row(
        "refunds",
        summary.refund_lines,
        Some(summary.refunds),
        Some(-summary.refunded_pence),
    );
    row(
        "stock adjustments, not sent",
        summary.adjustments_stock,
        None,
        None,
    );
    row("bad debts, not sent", summary.adjustments_bad_debt, None, None);
    let net = summary.revenue_pence - summary.refunded_pence;
    row(
        "in all",
        summary.rows,
        Some(summary.orders + summary.refunds),
        Some(net),
    );
    text.push_str(&format!(
        "{} customers, {} guests\n",
        grouped(summary.customers),
        grouped(summary.guests)
    ));
    text
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Pence as `1,234.56`.
fn amount(pence: i64) -> String {
    let decimal = pounds(pence.saturating_abs());
    let (whole, fraction) = decimal.split_once('.').unwrap_or((&decimal, "00"));
    let sign = if pence < 0 { "-" } else { "" };
    format!("{sign}{}.{fraction}", grouped(whole.parse().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_every_class() {
        let summary = Summary {
            rows: 370_931,
            order_lines: 363_253,
            refund_lines: 6_652,
            adjustments_bad_debt: 3,
            adjustments_stock: 1_023,
            orders: 14_873,
            refunds: 2_887,
            charge_lines: 1_727,
            customers: 3_658,
            guests: 1_840,
            revenue_pence: 735_235_417,
            charges_pence: 26_016_892,
            refunded_pence: 55_967_311,
        };
        let expected = [
            "                                  rows  invoices               GBP\n",
            "orders                         363,253    14,873      7,352,354.17\n",
            "  of these, charges              1,727                  260,168.92\n",
            "refunds                          6,652     2,887       -559,673.11\n",
            "stock adjustments, not sent      1,023\n",
            "bad debts, not sent                  3\n",
            "in all                         370,931    17,760      6,792,681.06\n",
            "3,658 customers, 1,840 guests\n",
        ];
        assert_eq!(table(&summary), expected.concat());
    }

    #[test]
    fn amounts_are_grouped() {
        for (pence, text) in [
            (0, "0.00"),
            (-5, "-0.05"),
            (99_999, "999.99"),
            (-100_000, "-1,000.00"),
        ] {
            assert_eq!(amount(pence), text);
        }
    }
}
