//! The monthly partitions of `fact_event`: made before a row needs them, in transactions of their own.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sqlx::PgPool;

use super::error::{Failure, commit};
use super::rows::Day;
use crate::domain::ids::Timestamp;
use crate::warehouse::Batch;

/// How long before its first day a month's partition is made. Longer than any outage of the lane, shorter than a
/// month.
const AHEAD_DAYS: i64 = 7;

const BEGIN_DROP: &str = "begin; set local statement_timeout = '60s'; set local lock_timeout = '2s'";

/// The days known to have a partition; forgotten when the retention took one away.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    known: Mutex<BTreeSet<i64>>,
}

impl Partitions {
    /// Makes what is missing for the batches, for now and for what comes next.
    pub(super) async fn ensure(&self, writer: &PgPool, batches: &[Batch<'_>]) -> Result<(), Failure> {
        let mut days = BTreeSet::new();
        for batch in batches {
            let today = batch.now.day();
            days.extend([today, today.saturating_add(AHEAD_DAYS)]);
            let received = batch.effects.iter().map(|(_, effect)| effect.event.received_at);
            days.extend(received.map(Timestamp::day));
        }
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            days.retain(|day| !known.contains(day));
        }
        if days.is_empty() {
            return Ok(());
        }
        let missing: Vec<Day> = days.iter().copied().map(Day).collect();
        sqlx::query!("select fact_event_make_partitions($1)", missing as _)
            .execute(writer)
            .await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(days);
        Ok(())
    }

    /// Drops the months that lie wholly before an instant, and names them. A drop waits for the batches under way, and the next ones for
    /// it; so it gives up soon, and leaves it to the one worker that is at it already.
    pub(super) async fn drop_before(
        &self,
        writer: &PgPool,
        before: Timestamp,
    ) -> Result<Vec<String>, Failure> {
        let mut tx = writer.begin_with(BEGIN_DROP).await?;
        let dropped = sqlx::query_scalar!(
            r#"select fact_event_drop_before($1) as "child!"
               where pg_try_advisory_xact_lock(hashtext('fact_event_drop_before'), 0)"#,
            Day(before.day()) as _
        )
        .fetch_all(&mut *tx)
        .await?;
        commit(tx).await?;
        if !dropped.is_empty() {
            self.forget();
        }
        Ok(dropped)
    }

    pub(super) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
