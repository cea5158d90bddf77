//! Taking events in: judge, append, remember.
//!
//! Why one use case: `POST /events`, `POST /personalize`, the operator's import endpoint and `cartwright import`
//! must mean the same by "accepted".
//!
//! - Receipts exist only after the append returned (invariant 1), of all events of the call. A failure means that the whole
//!   body may be sent again; see [`spread`].
//! - `duplicate` is a hint from a small memory of recent ids. Such an event is appended like any other; the
//!   warehouse decides.
//! - Events that are durable are [`News`]: this node's next decision counts them, and other nodes are told.

mod news;
pub(crate) mod spread;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::news::{News, Teller};
use self::spread::{Placed, Spread, placed};
use crate::domain::event::{Body, Event, EventLimits, IngestContext, Outcome, Source};
use crate::domain::ids::{PseudonymKey, Shop, Timestamp};
use crate::domain::user_token::UserTokenKey;
use crate::queue::{AppendError, EventQueue};
use crate::telemetry::{Metrics, Outcome as Ended, Receipt as Counted};

/// Higher: a stuck disk holds more requests. Lower: a slow disk turns durable appends into unknown outcomes.
const APPEND_BUDGET: Duration = Duration::from_secs(10);

/// Who sends, and for which shop.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub shop: &'a Shop,
    pub source: Source,
}

/// What became of one event, in the order sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Receipt {
    /// The event's id, given or derived; null where a rejected event had none that could be read.
    #[schema(value_type = Option<String>)]
    pub event_id: Option<Arc<str>>,
    pub status: ReceiptStatus,
    /// Why an event was quarantined or rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub code: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptStatus {
    /// Durable.
    Accepted,
    /// Durable, and probably sent before; it counts once.
    Duplicate,
    /// Durable, but set aside instead of being counted: a property is missing or has the wrong type.
    Quarantined,
    /// Not stored; sending it again changes nothing.
    Rejected,
}

impl From<ReceiptStatus> for Counted {
    fn from(status: ReceiptStatus) -> Counted {
        match status {
            ReceiptStatus::Accepted => Counted::Accepted,
            ReceiptStatus::Duplicate => Counted::Duplicate,
            ReceiptStatus::Quarantined => Counted::Quarantined,
            ReceiptStatus::Rejected => Counted::Rejected,
        }
    }
}

/// Why nothing was acknowledged. All but `TooLarge` are transient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    #[error("the log is full")]
    Full,
    #[error("the log is closed for writing")]
    Closed,
    #[error("an event is too large for the log")]
    TooLarge,
    #[error("the log is unavailable")]
    Unavailable,
    /// The events may or may not be stored.
    #[error("the outcome of the append is unknown")]
    Unknown,
}

impl From<AppendError> for IngestError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { .. } => IngestError::Full,
            AppendError::Closed { .. } => IngestError::Closed,
            AppendError::TooLarge { .. } => IngestError::TooLarge,
            AppendError::Unavailable { .. } => IngestError::Unavailable,
            AppendError::Unknown { .. } => IngestError::Unknown,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ingest {
    queue: Arc<dyn EventQueue>,
    pseudonym_key: PseudonymKey,
    user_token_key: Option<UserTokenKey>,
    limits: EventLimits,
    news: Arc<News>,
    metrics: Metrics,
}

impl Ingest {
    /// Without a `user_token_key` no token proves anything.
    pub fn new(
        queue: Arc<dyn EventQueue>,
        pseudonym_key: PseudonymKey,
        user_token_key: Option<UserTokenKey>,
        limits: EventLimits,
        news: Arc<News>,
        metrics: Metrics,
    ) -> Self {
        Ingest {
            queue,
            pseudonym_key,
            user_token_key,
            limits,
            news,
            metrics,
        }
    }

    pub fn limits(&self) -> &EventLimits {
        &self.limits
    }

    /// Takes the events of `body` and returns a receipt for each, once those that are stored are durable.
    ///
    /// # Errors
    /// [`IngestError`]: nothing is acknowledged, and after [`IngestError::Unknown`] it may be stored all the same.
    pub async fn accept(
        &self,
        body: &Body<'_>,
        origin: Origin<'_>,
        received_at: Timestamp,
    ) -> Result<Vec<Receipt>, IngestError> {
        let (receipts, events) = self.judge(body, origin, received_at);
        if !events.is_empty() {
            let placed = self.append(events).await?;
            self.remember(placed, &receipts, origin);
        }
        for receipt in &receipts {
            self.metrics.receipt(receipt.status.into());
        }
        Ok(receipts)
    }

    /// A receipt for every event, and the events to append, in the same order.
    fn judge(
        &self,
        body: &Body<'_>,
        origin: Origin<'_>,
        received_at: Timestamp,
    ) -> (Vec<Receipt>, Vec<Event>) {
        let context = IngestContext {
            shop: origin.shop,
            source: origin.source,
            key: &self.pseudonym_key,
            user_token_key: self.user_token_key.as_ref(),
            received_at,
            limits: &self.limits,
        };
        let outcomes = body.validate(&context, &mut || uuid::Uuid::now_v7().to_string());
        let mut receipts = Vec::with_capacity(outcomes.len());
        let mut events = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            match outcome {
                Outcome::Accepted(event) | Outcome::Quarantined(event) => {
                    let status = if event.quarantine.is_some() {
                        ReceiptStatus::Quarantined
                    } else {
                        ReceiptStatus::Accepted
                    };
                    let code = event.quarantine.clone();
                    receipts.push(Receipt {
                        event_id: Some(Arc::clone(&event.event_id)),
                        status,
                        code,
                    });
                    events.push(event);
                }
                Outcome::Rejected { event_id, code } => receipts.push(Receipt {
                    event_id: event_id.map(Arc::from),
                    status: ReceiptStatus::Rejected,
                    code: Some(code.as_str().into()),
                }),
            }
        }
        self.hint_duplicates(origin.shop, &mut receipts);
        (receipts, events)
    }

    /// Marks accepted events whose id was durable before, or comes twice in this body.
    fn hint_duplicates(&self, shop: &Shop, receipts: &mut [Receipt]) {
        let accepted = receipts
            .iter_mut()
            .filter(|receipt| receipt.status == ReceiptStatus::Accepted);
        let mut check = self.news.recent().check(shop);
        for receipt in accepted {
            if receipt
                .event_id
                .as_deref()
                .is_some_and(|id| check.is_repeated(id))
            {
                receipt.status = ReceiptStatus::Duplicate;
            }
        }
    }

    async fn append(&self, events: Vec<Event>) -> Result<Vec<Placed>, IngestError> {
        let started = Instant::now();
        let mut spread = Spread::over(self.queue.partitions(), events);
        let count = spread.len();
        let append = spread.append(&*self.queue);
        let result = match tokio::time::timeout(APPEND_BUDGET, append).await {
            Ok((landed, None)) => Ok(placed(landed)),
            Ok((_, Some(error))) => Err(IngestError::from(error)),
            Err(_) => Err(IngestError::Unknown),
        };
        let ended = match &result {
            Ok(_) => Ended::Ok,
            Err(IngestError::Full) => Ended::Full,
            Err(IngestError::Closed | IngestError::Unavailable) => Ended::Unavailable,
            Err(IngestError::TooLarge) => Ended::Rejected,
            Err(IngestError::Unknown) => Ended::Unknown,
        };
        self.metrics.append(ended, count, started.elapsed());
        result
    }

    /// Notes the ids of durable events, and which of them are news. `placed` is in the order of `receipts`,
    /// without the rejected ones.
    fn remember(&self, placed: Vec<Placed>, receipts: &[Receipt], origin: Origin<'_>) {
        self.news
            .recent()
            .insert(origin.shop, placed.iter().map(|placed| &*placed.event.event_id));
        if origin.source == Source::Import {
            // History, in bulk, about nobody who is on the page now.
            return;
        }
        let stored = receipts
            .iter()
            .filter(|receipt| receipt.status != ReceiptStatus::Rejected);
        for (placed, receipt) in placed.into_iter().zip(stored) {
            if receipt.status == ReceiptStatus::Accepted {
                self.news.add(placed.partition, placed.offset, placed.event);
            }
        }
    }
}
