//! What sessions touched, for the session index.

use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::error::Failure;
use super::rows::Instant;
use crate::domain::ids::Shop;
use crate::domain::recommend::sessions::Interaction;
use crate::domain::recommend::{Gathering, TOUCHING, Touch};
use crate::warehouse::turns::Turns;

/// See [`crate::warehouse::Warehouse::interactions`].
pub(super) async fn newest(
    conn: &mut PgConnection,
    shop: &Shop,
    max_events: usize,
) -> Result<Vec<Interaction>, Failure> {
    let names = TOUCHING.map(str::to_owned);
    let mut rows = sqlx::query!(
        r#"select name, event_id, session_id, coalesce(user_id, anonymous_id) as subject,
                  event_time as "event_time: Instant", body::text as "body!"
           from fact_event
           where shop = $1 and name = any($2)
           order by received_at desc, partition, log_offset desc
           limit $3"#,
        shop.as_str(),
        &names[..],
        i64::try_from(max_events).unwrap_or(i64::MAX)
    )
    .fetch(conn);
    let mut gathering = Gathering::default();
    let mut turns = Turns::default();
    while let Some(row) = rows.try_next().await? {
        turns.row().await;
        gathering.add(&Touch {
            event: &row.name,
            event_id: &row.event_id,
            session: row.session_id.as_deref(),
            subject: row.subject.as_deref(),
            at: row.event_time.0,
            body: &row.body,
        });
    }
    Ok(gathering.finish())
}
