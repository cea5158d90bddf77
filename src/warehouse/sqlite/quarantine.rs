//! `quarantine`: records that are not counted, with the reason.

use sqlx::sqlite::SqliteConnection;

use super::error::integer;
use super::rows::Insert;
use crate::domain::ids::Timestamp;
use crate::warehouse::WarehouseError;
use crate::warehouse::batch::{Quarantined, Record, event_json};
use crate::warehouse::fold::{Place, Set};

const INSERT: Insert = Insert {
    into: "insert into quarantine (log_id, partition, log_offset, code, detail, shop, event_id, event, record, \
           quarantined_at)",
    columns: 10,
    then: "on conflict do nothing",
};

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    log_id: uuid::Uuid,
    quarantined: &[Quarantined<'_>],
    unnamed: &Set<Place>,
    now: Timestamp,
) -> Result<(), WarehouseError> {
    let log_id = log_id.to_string();
    let mut rows = Vec::with_capacity(quarantined.len());
    for row in quarantined {
        rows.push((integer(row.place.offset)?, row));
    }
    INSERT
        .run(conn, &rows, |(offset, row), values| {
            values
                .push(&*log_id)
                .push(row.place.partition)
                .push(*offset)
                .push(row.code)
                .push(row.detail);
            match row.record {
                Record::Event(event) => {
                    values.push_shop(&event.shop).push_shared(&event.event_id);
                    values
                        .push(event_json(event, !unnamed.contains(&row.place)))
                        .push(None::<&[u8]>);
                }
                Record::Unreadable(bytes) => {
                    values
                        .push(None::<&str>)
                        .push(None::<&str>)
                        .push(None::<&str>)
                        .push(bytes);
                }
            }
            values.push_time(now);
        })
        .await?;
    Ok(())
}
