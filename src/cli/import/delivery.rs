//! Events on their way to a server, batch by batch, until its warehouse has them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hyper::StatusCode;
use serde_json::Value;

use crate::cli::operator::{OperatorClient, expect_success};
use crate::cli::progress::Progress;
use crate::import::OutgoingEvent;

/// Events and bytes of one request: large enough that the log syncs seldom, small enough that a bar moves and
/// that the server's bound on bodies is far.
const BATCH_EVENTS: usize = 500;
const BATCH_BYTES: usize = 512 << 10;

/// Lost connections before giving up; with the pauses between them, half a minute.
const ATTEMPTS: u32 = 8;

/// How long a server that takes no events is left alone: what it asks for in `Retry-After`.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often the lane's place is asked for.
const POLL: Duration = Duration::from_millis(50);

/// A batch takes milliseconds; a lane that stands still for so long waits for a store or has stopped.
const LANE_PATIENCE: Duration = Duration::from_secs(60);

/// Rejections that are shown; all are counted.
const SHOWN: usize = 10;

/// What became of the events, by the server's receipts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Receipts {
    pub(in crate::cli) accepted: u64,
    pub(in crate::cli) duplicate: u64,
    pub(in crate::cli) quarantined: u64,
    pub(in crate::cli) rejected: u64,
}

impl Receipts {
    pub(in crate::cli) fn all_counted(&self) -> bool {
        self.quarantined == 0 && self.rejected == 0
    }
}

/// Posts all events to a server's operator listener, and waits until its warehouse has them.
pub(in crate::cli) async fn send(
    client: &mut OperatorClient,
    events: &[OutgoingEvent],
) -> anyhow::Result<Receipts> {
    let mut progress = Progress::new("sending", "events", Some(events.len() as u64));
    let mut receipts = Receipts::default();
    let mut shown = 0;
    let mut sent = 0;
    while let Some((body, count)) = batch(events.get(sent..).unwrap_or_default()) {
        let answer = post(client, body, &progress).await?;
        let results = answer
            .get("results")
            .and_then(Value::as_array)
            .context("no receipts came")?;
        for result in results {
            let text = |name| result.get(name).and_then(Value::as_str).unwrap_or_default();
            match text("status") {
                "accepted" => receipts.accepted += 1,
                "duplicate" => receipts.duplicate += 1,
                "quarantined" => receipts.quarantined += 1,
                _ => receipts.rejected += 1,
            }
            if matches!(text("status"), "quarantined" | "rejected") && shown < SHOWN {
                shown += 1;
                progress.note(format!(
                    "{} was {}: {}",
                    text("event_id"),
                    text("status"),
                    text("code")
                ));
            }
        }
        sent += count;
        progress.set(sent as u64);
    }
    progress.finish();
    wait_until_applied(client).await?;
    Ok(receipts)
}

/// The next request's body and how many events are in it; `None` when there are none left.
fn batch(events: &[OutgoingEvent]) -> Option<(String, usize)> {
    let mut body = String::from(r#"{"events":["#);
    let mut count = 0;
    for event in events.iter().take(BATCH_EVENTS) {
        if count > 0 && body.len() + event.json.len() > BATCH_BYTES {
            break;
        }
        if count > 0 {
            body.push(',');
        }
        body.push_str(&event.json);
        count += 1;
    }
    body.push_str("]}");
    (count > 0).then_some((body, count))
}

/// Posts one batch for as long as it takes: a full log is waited for, a lost connection opened again.
async fn post(client: &mut OperatorClient, body: String, progress: &Progress) -> anyhow::Result<Value> {
    let body = bytes::Bytes::from(body);
    let (mut lost, mut refused) = (0, 0);
    loop {
        let pause = match client
            .post("/operator/v1/events", "application/json", body.clone())
            .await
        {
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => {
                if refused == 0 {
                    progress.note("the server takes no more events now; waiting");
                }
                refused += 1;
                PATIENCE
            }
            Ok(answer) => return Ok(serde_json::from_slice(&expect_success(answer)?)?),
            Err(error) if lost + 1 == ATTEMPTS => {
                return Err(error.context("the server is gone; import again: what arrived counts once"));
            }
            Err(_) => {
                lost += 1;
                Duration::from_millis(250) * lost * lost
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Where the log ends, and how far the lane has come.
struct Status {
    log_next: u64,
    applied: u64,
}

async fn status(client: &mut OperatorClient) -> anyhow::Result<Status> {
    let body = expect_success(client.get("/operator/v1/status").await?)?;
    let status: Value = serde_json::from_slice(&body).context("the server's status is not JSON")?;
    let number = |pointer: &str| {
        let number = status.pointer(pointer).and_then(Value::as_u64);
        number.with_context(|| format!("the server's status has no {pointer}; is it another release?"))
    };
    Ok(Status {
        log_next: number("/log/next_offset")?,
        applied: number("/fast_lane/offset")?,
    })
}

/// Waits until the lane has applied what the log held when this was called. Live traffic goes on meanwhile and is
/// not waited for. A lane that does not move is an error: it has stopped, and says why in the server's log.
async fn wait_until_applied(client: &mut OperatorClient) -> anyhow::Result<()> {
    let Status {
        log_next: end,
        applied: start,
    } = status(client).await?;
    let mut progress = Progress::new("applying", "events", Some(end.saturating_sub(start)));
    let (mut applied, mut moved) = (start, Instant::now());
    while applied < end {
        if moved.elapsed() > LANE_PATIENCE {
            bail!(
                "the lane has not moved for {} s, with {} events to go. They are safe in the log; \
                 the server's log says why it stopped",
                LANE_PATIENCE.as_secs(),
                end - applied
            );
        }
        tokio::time::sleep(POLL).await;
        let now = status(client).await?.applied;
        if now > applied {
            (applied, moved) = (now, Instant::now());
        }
        progress.set(applied.min(end).saturating_sub(start));
    }
    progress.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> OutgoingEvent {
        OutgoingEvent {
            event_id: "e".to_owned(),
            json: "x".repeat(bytes),
        }
    }

    #[test]
    fn batches_end_at_either_limit_and_hold_at_least_one_event() {
        let small: Vec<_> = (0..BATCH_EVENTS + 1).map(|_| event(10)).collect();
        assert_eq!(batch(&small).unwrap().1, BATCH_EVENTS);
        assert_eq!(
            batch(&[event(BATCH_BYTES / 2), event(BATCH_BYTES / 2), event(10)])
                .unwrap()
                .1,
            1
        );
        assert_eq!(batch(&[event(2 * BATCH_BYTES)]).unwrap().1, 1);
        assert_eq!(batch(&[]), None);
        assert_eq!(batch(&[event(1), event(2)]).unwrap().0, r#"{"events":[x,xx]}"#);
    }
}
