//! Reports of orders, cancellations and refunds against the rows stored.
//!
//! One order counts once: the report of greatest rank is the row, and a change of the row folds the difference: the
//! old row is retracted, the new one added. A row remembers the *generation* of the part it was folded into. After
//! a reset (consent withdrawn) that generation is gone with all it held, so a later correction of the same
//! shopper's order is folded into the gone generation too, that is, nowhere: it must neither subtract what is no
//! longer there nor bring back what was forgotten.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Map;
use crate::domain::ids::Shop;
use crate::domain::order::Sign;
use crate::domain::transform::{CancellationReport, OrderReport, Rank, RefundReport};

/// An order as stored: the winning report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::warehouse) struct OrderRow {
    pub(in crate::warehouse) report: OrderReport,
    pub(in crate::warehouse) cancelled: bool,
    /// Of the part that it was folded into.
    pub(in crate::warehouse) generation: u32,
}

/// A refund as stored: the winning report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::warehouse) struct RefundRow {
    pub(in crate::warehouse) report: RefundReport,
    pub(in crate::warehouse) generation: u32,
}

/// `(shop, order_id)`.
pub(in crate::warehouse) type OrderKey = (Shop, Arc<str>);
/// `(shop, order_id, refund_id)`.
pub(in crate::warehouse) type RefundKey = (Shop, Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct OrderState {
    row: Option<OrderRow>,
    cancellation: Option<Rank>,
    row_changed: bool,
    cancellation_changed: bool,
}

/// All orders and refunds that a batch touches.
#[derive(Debug, Default)]
pub(in crate::warehouse) struct Orders {
    orders: Map<OrderKey, OrderState>,
    refunds: Map<RefundKey, (RefundRow, bool)>,
}

/// A cancellation stands against an order unless it is the less trusted of the two: a browser cannot cancel what
/// the shop's own back end reported.
fn stands(cancellation: Option<&Rank>, order: &OrderReport) -> bool {
    cancellation.is_some_and(|rank| rank.verified >= order.rank.verified)
}

impl Orders {
    pub(in crate::warehouse) fn add_stored_order(&mut self, shop: Shop, row: OrderRow) {
        let key = (shop, Arc::clone(&row.report.order_id));
        self.orders.entry(key).or_default().row = Some(row);
    }

    pub(in crate::warehouse) fn add_stored_cancellation(
        &mut self,
        shop: Shop,
        order_id: Arc<str>,
        rank: Rank,
    ) {
        self.orders.entry((shop, order_id)).or_default().cancellation = Some(rank);
    }

    pub(in crate::warehouse) fn add_stored_refund(&mut self, shop: Shop, row: RefundRow) {
        let key = (
            shop,
            Arc::clone(&row.report.order_id),
            Arc::clone(&row.report.refund_id),
        );
        self.refunds.insert(key, (row, false));
    }

    /// Joins a report or a cancellation (or both). `fold` folds a row's effect into its subject's part, in the
    /// generation given or else in the current one, which it returns.
    pub(super) fn report(
        &mut self,
        shop: &Shop,
        order_id: &Arc<str>,
        report: Option<&OrderReport>,
        cancellation: Option<&CancellationReport>,
        mut fold: impl FnMut(&OrderRow, Sign, Option<u32>) -> u32,
    ) {
        let state = self
            .orders
            .entry((shop.clone(), Arc::clone(order_id)))
            .or_default();
        if let Some(report) = cancellation
            && state.cancellation.as_ref().is_none_or(|have| report.rank > *have)
        {
            state.cancellation = Some(report.rank.clone());
            state.cancellation_changed = true;
        }
        let Some(winner) = report
            .filter(|report| state.row.as_ref().is_none_or(|row| report.rank > row.report.rank))
            .or(state.row.as_ref().map(|row| &row.report))
        else {
            return;
        };
        let cancelled = stands(state.cancellation.as_ref(), winner);
        if state
            .row
            .as_ref()
            .is_some_and(|row| row.cancelled == cancelled && row.report == *winner)
        {
            return;
        }
        let mut row = OrderRow {
            report: winner.clone(),
            cancelled,
            generation: 0,
        };
        let kept = match &state.row {
            Some(old) => {
                fold(old, Sign::Retract, Some(old.generation));
                (old.report.subject == row.report.subject).then_some(old.generation)
            }
            None => None,
        };
        row.generation = fold(&row, Sign::Add, kept);
        state.row = Some(row);
        state.row_changed = true;
    }

    /// Joins a refund's report; `fold` as in [`Orders::report`].
    pub(super) fn refund(
        &mut self,
        shop: &Shop,
        report: &RefundReport,
        mut fold: impl FnMut(&RefundRow, Sign, Option<u32>) -> u32,
    ) {
        let key = (
            shop.clone(),
            Arc::clone(&report.order_id),
            Arc::clone(&report.refund_id),
        );
        let mut row = RefundRow {
            report: report.clone(),
            generation: 0,
        };
        match self.refunds.entry(key) {
            Entry::Occupied(mut entry) => {
                let (old, changed) = entry.get_mut();
                if report.rank > old.report.rank {
                    fold(old, Sign::Retract, Some(old.generation));
                    let kept = (old.report.subject == report.subject).then_some(old.generation);
                    row.generation = fold(&row, Sign::Add, kept);
                    *old = row;
                    *changed = true;
                }
            }
            Entry::Vacant(entry) => {
                row.generation = fold(&row, Sign::Add, None);
                entry.insert((row, true));
            }
        }
    }

    /// The orders to write, by key.
    pub(in crate::warehouse) fn changed_orders(&self) -> Vec<(&Shop, &OrderRow)> {
        let changed = self.orders.iter().filter(|(_, state)| state.row_changed);
        let mut rows: Vec<_> = changed
            .filter_map(|((shop, _), state)| Some((shop, state.row.as_ref()?)))
            .collect();
        rows.sort_unstable_by_key(|(shop, row)| (*shop, &row.report.order_id));
        rows
    }

    /// The cancellations to write, by key.
    pub(in crate::warehouse) fn changed_cancellations(&self) -> Vec<(&OrderKey, &Rank)> {
        let changed = self.orders.iter().filter(|(_, state)| state.cancellation_changed);
        let mut rows: Vec<_> = changed
            .filter_map(|(key, state)| Some((key, state.cancellation.as_ref()?)))
            .collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        rows
    }

    /// The refunds to write, by key.
    pub(in crate::warehouse) fn changed_refunds(&self) -> Vec<(&Shop, &RefundRow)> {
        let changed = self.refunds.iter().filter(|(_, (_, changed))| *changed);
        let mut rows: Vec<_> = changed.map(|((shop, ..), (row, _))| (shop, row)).collect();
        rows.sort_unstable_by_key(|(shop, row)| (*shop, &row.report.order_id, &row.report.refund_id));
        rows
    }

    /// The subjects whose parts a correction of a stored row may change.
    pub(in crate::warehouse) fn stored_subjects(
        &self,
    ) -> impl Iterator<Item = (&Shop, &crate::domain::ids::SubjectId)> {
        let orders = self
            .orders
            .iter()
            .filter_map(|((shop, _), state)| Some((shop, state.row.as_ref()?.report.subject.as_ref()?)));
        let refunds = self
            .refunds
            .iter()
            .filter_map(|((shop, ..), (row, _))| Some((shop, row.report.subject.as_ref()?)));
        orders.chain(refunds)
    }
}
