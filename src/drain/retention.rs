//! Lets go of events that are older than they are to be kept, a month at a time. Profiles, orders and decisions stay.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::domain::ids::Timestamp;
use crate::warehouse::Warehouse;

/// How often it is looked. A month is over once in a month; a worker that starts looks at once.
const EVERY: Duration = Duration::from_secs(3_600);

/// The pause where that failed: the server was away, or the table in use for longer than the statement waits.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Retention {
    pub warehouse: Arc<dyn Warehouse>,
    pub keep: Duration,
}

impl Retention {
    /// Looks after old facts until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let look = async {
            loop {
                let pause = self.look().await;
                tokio::time::sleep(pause).await;
            }
        };
        let _: Option<()> = stop.run_until_cancelled(look).await;
    }

    async fn look(&self) -> Duration {
        let keep_ms = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp(clock::now().0.saturating_sub(keep_ms));
        match self.warehouse.forget_facts(before).await {
            Ok(forgotten) => {
                if !forgotten.is_empty() {
                    tracing::info!(
                        partitions = forgotten.join(", "),
                        "events older than fact.retention were let go"
                    );
                }
                EVERY
            }
            Err(error) => {
                tracing::warn!(error = %error, "events older than fact.retention could not be let go; trying again in a minute");
                AGAIN
            }
        }
    }
}
