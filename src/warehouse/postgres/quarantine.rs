//! `quarantine`: records that are not counted, with the reason.

use std::borrow::Cow;

use sqlx::PgConnection;

use super::error::{Failure, integer};
use super::rows::{Instant, column};
use crate::domain::event::Event;
use crate::domain::ids::Timestamp;
use crate::warehouse::batch::{Quarantined, Record, event_json};
use crate::warehouse::fold::{Place, Set};

pub(super) async fn insert(
    conn: &mut PgConnection,
    log_id: uuid::Uuid,
    quarantined: &[Quarantined<'_>],
    unnamed: &Set<Place>,
    now: Timestamp,
) -> Result<(), Failure> {
    if quarantined.is_empty() {
        return Ok(());
    }
    let mut offsets = Vec::with_capacity(quarantined.len());
    for row in quarantined {
        offsets.push(integer(row.place.offset)?);
    }
    sqlx::query!(
        "insert into quarantine (log_id, partition, log_offset, code, detail, shop, event_id, event, record,
                                 quarantined_at)
         select $1::text::uuid, k.partition, k.log_offset, k.code, k.detail, k.shop, k.event_id, k.event::json, k.record,
                $2
         from (select unnest($3::int[]) as partition, unnest($4::bigint[]) as log_offset, unnest($5::text[]) as code, unnest($6::text[]) as detail,
                      unnest($7::text[]) as shop, unnest($8::text[]) as event_id, unnest($9::text[]) as event,
                      unnest($10::bytea[]) as record) as k
         on conflict do nothing",
        log_id.to_string(),
        Instant(now) as _,
        column(quarantined, |row| i32::from(row.place.partition)) as _,
        &offsets,
        column(quarantined, |row| without_nul(row.code)) as _,
        column(quarantined, |row| without_nul(row.detail)) as _,
        column(quarantined, |row| event(row).map(|event| event.shop.as_str())) as _,
        column(quarantined, |row| event(row).map(|event| without_nul(&event.event_id))) as _,
        column(quarantined, |row| {
            event(row).map(|event| event_json(event, !unnamed.contains(&row.place)))
        }) as _,
        column(quarantined, |row| match row.record {
            Record::Event(_) => None,
            Record::Unreadable(bytes) => Some(bytes),
        }) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn event<'q>(row: &Quarantined<'q>) -> Option<&'q Event> {
    match row.record {
        Record::Event(event) => Some(event),
        Record::Unreadable(_) => None,
    }
}

/// PostgreSQL's text cannot hold NUL, and what is set aside must not fail in turn.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}
