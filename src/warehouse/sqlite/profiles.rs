//! `profile_part` and `customer_profile`.

use bytes::Bytes;
use sqlx::sqlite::SqliteConnection;

use super::error::{integer, natural};
use super::rows::{Insert, fetch_packed, json, unhex};
use crate::domain::ids::SubjectId;
use crate::domain::profile::{AsOf, ProfilePart, Version};
use crate::warehouse::batch::Written;
use crate::warehouse::fold::Map;
use crate::warehouse::fold::parts::Parts;
use crate::warehouse::fold::people::People;
use crate::warehouse::{Change, WarehouseError};

pub(super) async fn document(
    conn: &mut SqliteConnection,
    subject: &SubjectId,
) -> Result<Option<(Version, Bytes)>, WarehouseError> {
    let row: Option<(i64, i64, Vec<u8>)> =
        sqlx::query_as("select epoch, n, document from customer_profile where subject = ?1")
            .bind(subject.as_str())
            .fetch_optional(conn)
            .await?;
    let Some((epoch, n, document)) = row else {
        return Ok(None);
    };
    Ok(Some((
        Version {
            epoch: natural(epoch)?,
            n: natural(n)?,
        },
        document.into(),
    )))
}

/// The documents of `partition` numbered beyond `after`, by an index.
pub(super) async fn changes(
    conn: &mut SqliteConnection,
    partition: u16,
    after: u64,
    limit: u32,
) -> Result<Vec<Change>, WarehouseError> {
    let rows: Vec<(i64, String, i64, i64, Vec<u8>)> = sqlx::query_as(
        "select change_seq, subject, epoch, n, document from customer_profile
         where partition = ?1 and change_seq > ?2 order by change_seq limit ?3",
    )
    .bind(partition)
    .bind(integer(after)?)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|(change_seq, subject, epoch, n, document)| {
            Ok(Change {
                change_seq: natural(change_seq)?,
                subject: SubjectId::from_stored(&subject),
                version: Version {
                    epoch: natural(epoch)?,
                    n: natural(n)?,
                },
                bytes: document.into(),
            })
        })
        .collect()
}

/// Reads the parts of `subjects` that are stored.
pub(super) async fn read_parts(
    conn: &mut SqliteConnection,
    subjects: &[SubjectId],
) -> Result<Parts, WarehouseError> {
    let rows: Vec<(SubjectId, String)> = fetch_packed(
        conn,
        "select json_group_array(json_array(p.subject, hex(p.part))) from json_each(?1) as k
         cross join profile_part as p on p.subject = k.value",
        subjects,
    )
    .await?;
    let mut parts = Parts::default();
    for (subject, hex) in rows {
        let part = ProfilePart::decode(&unhex(&hex)?)
            .map_err(|error| WarehouseError::Inconsistent(format!("profile_part: {error}").into()))?;
        parts.add_stored(subject, part);
    }
    Ok(parts)
}

const WRITE_PARTS: Insert = Insert {
    into: "insert into profile_part (shop, subject, part)",
    columns: 3,
    then: "on conflict (subject, shop) do update set part = excluded.part",
};

/// Writes the parts that changed.
pub(super) async fn write_parts(
    conn: &mut SqliteConnection,
    parts: &Parts,
    people: &People,
) -> Result<(), WarehouseError> {
    let changed = parts.changed().into_iter();
    let rows: Vec<_> = changed
        .filter_map(|(subject, part)| Some((people.shop(subject)?, subject, part)))
        .collect();
    WRITE_PARTS
        .run(conn, &rows, |(shop, subject, part), values| {
            values
                .push_shop(shop)
                .push_subject(Some(subject))
                .push(part.encode());
        })
        .await?;
    Ok(())
}

/// The numbers of the stored documents of `subjects`, and how far they were folded.
pub(super) async fn read_progress(
    conn: &mut SqliteConnection,
    subjects: &[&SubjectId],
) -> Result<Map<SubjectId, (u64, AsOf)>, WarehouseError> {
    let rows: Vec<(SubjectId, u64, AsOf)> = fetch_packed(
        conn,
        "select json_group_array(json_array(p.subject, p.n, json(p.as_of))) from json_each(?1) as k
         cross join customer_profile as p on p.subject = k.value",
        subjects,
    )
    .await?;
    Ok(rows
        .into_iter()
        .map(|(subject, n, as_of)| (subject, (n, as_of)))
        .collect())
}

const WRITE_DOCUMENTS: Insert = Insert {
    into: "insert into customer_profile (shop, subject, linked_user_id, epoch, n, partition, change_seq, as_of, first_seen, \
           last_seen, last_order, orders, cancelled_orders, refunds, currency, revenue_minor, refunded_minor, \
           document)",
    columns: 18,
    then: "on conflict (subject, shop) do update set linked_user_id = excluded.linked_user_id, \
           epoch = excluded.epoch, n = excluded.n, partition = excluded.partition, \
           change_seq = excluded.change_seq, as_of = excluded.as_of, first_seen = excluded.first_seen, last_seen = excluded.last_seen, \
           last_order = excluded.last_order, orders = excluded.orders, \
           cancelled_orders = excluded.cancelled_orders, refunds = excluded.refunds, \
           currency = excluded.currency, revenue_minor = excluded.revenue_minor, \
           refunded_minor = excluded.refunded_minor, document = excluded.document",
};

/// Writes documents; the first one gets the change number after `change_seq`. Returns the last one given.
pub(super) async fn write_documents(
    conn: &mut SqliteConnection,
    documents: &[Written],
    people: &People,
    partition: u16,
    change_seq: i64,
) -> Result<i64, WarehouseError> {
    let mut rows = Vec::with_capacity(documents.len());
    for (written, change) in documents.iter().zip(change_seq.saturating_add(1)..) {
        let Version { epoch, n } = written.document.version;
        let shop = people
            .shop(&written.subject)
            .ok_or_else(|| WarehouseError::Inconsistent("a document of no shop".into()))?;
        let as_of = json(&written.document.as_of)?;
        rows.push((shop, written, integer(epoch)?, integer(n)?, as_of, change));
    }
    WRITE_DOCUMENTS
        .run(conn, &rows, |(shop, written, epoch, n, as_of, change), values| {
            let part = &written.document.part;
            let currency = part.main_currency();
            values.push_shop(shop).push_subject(Some(&written.subject));
            values.push_subject(written.document.linked_user.as_ref());
            values
                .push(*epoch)
                .push(*n)
                .push(partition)
                .push(*change)
                .push(as_of.as_str());
            values
                .push(part.first_seen().map(|time| time.0))
                .push(part.last_seen().map(|time| time.0));
            values.push(part.last_order().map(|time| time.0));
            values
                .push(part.orders())
                .push(part.cancelled_orders())
                .push(part.refunds());
            values
                .push(currency)
                .push(currency.map_or(0, |currency| part.revenue_minor(currency)));
            values.push(currency.map_or(0, |currency| part.refunded_minor(currency)));
            values.push(&*written.bytes);
        })
        .await?;
    Ok(rows.last().map_or(change_seq, |(.., change)| *change))
}
