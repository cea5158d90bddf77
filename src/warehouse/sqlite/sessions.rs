//! What sessions touched, for the session index.

use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::rows::json;
use crate::domain::ids::{Shop, Timestamp};
use crate::domain::recommend::sessions::Interaction;
use crate::domain::recommend::{Gathering, TOUCHING, Touch};
use crate::warehouse::WarehouseError;
use crate::warehouse::turns::Turns;

/// See [`crate::warehouse::Warehouse::interactions`].
pub(super) async fn newest(
    conn: &mut SqliteConnection,
    shop: &Shop,
    max_events: usize,
) -> Result<Vec<Interaction>, WarehouseError> {
    let mut rows = sqlx::query(
        "select name, event_id, session_id, coalesce(user_id, anonymous_id) as subject, event_time, body
         from fact_event
         where shop = ?1 and name in (select value from json_each(?2))
         order by id desc
         limit ?3",
    )
    .bind(shop.as_str())
    .bind(json(&TOUCHING)?)
    .bind(i64::try_from(max_events).unwrap_or(i64::MAX))
    .fetch(conn);
    let mut gathering = Gathering::default();
    let mut turns = Turns::default();
    while let Some(row) = rows.try_next().await? {
        turns.row().await;
        gathering.add(&Touch {
            event: row.try_get("name")?,
            event_id: row.try_get("event_id")?,
            session: row.try_get("session_id")?,
            subject: row.try_get("subject")?,
            at: Timestamp(row.try_get("event_time")?),
            body: row.try_get("body")?,
        });
    }
    Ok(gathering.finish())
}
