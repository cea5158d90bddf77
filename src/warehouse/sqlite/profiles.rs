//! `profile_part` and `customer_profile`.

use bytes::Bytes;
use sqlx::sqlite::SqliteConnection;

use super::error::{integer, natural};
use super::rows::{Insert, fetch_packed, json, unhex};
use crate::domain::ids::SubjectId;
use crate::domain::profile::{AsOf, Document, ProfilePart, Version};
use crate::warehouse::batch::Written;
use crate::warehouse::fold::Map;
use crate::warehouse::fold::parts::{Kept, Parts};
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

/// What is stored of profiles before a batch.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// By subject, the document's number and how far it was folded.
    pub(super) progress: Map<SubjectId, (u64, AsOf)>,
    pub(super) parts: Parts,
}

/// A subject, whether its part is in its document (`None`: it has none), the part apart and the document with the part, both in hex,
/// the document's number, and how far a document without the part was folded.
type Row = (
    SubjectId,
    Option<u8>,
    Option<String>,
    Option<String>,
    Option<u64>,
    Option<AsOf>,
);

/// Reads the parts of `subjects`, and how far their documents were folded.
pub(super) async fn read(
    conn: &mut SqliteConnection,
    subjects: &[SubjectId],
) -> Result<Former, WarehouseError> {
    let rows: Vec<Row> = fetch_packed(
        conn,
        "select json_group_array(json_array(k.value, p.in_document,
                                            case when not p.in_document then hex(p.part) end,
                                            case when p.in_document then hex(c.document) end, c.n,
                                            case when p.in_document is not 1 then json(c.as_of) end))
         from json_each(?1) as k
         left join profile_part as p on p.subject = k.value
         left join customer_profile as c on c.subject = k.value
         where p.subject is not null or c.subject is not null",
        subjects,
    )
    .await?;
    let inconsistent = |what: &str, error: &dyn std::fmt::Display| {
        WarehouseError::Inconsistent(format!("{what}: {error}").into())
    };
    let mut former = Former::default();
    for (subject, in_document, part, document, n, as_of) in rows {
        let mut as_of = as_of.unwrap_or_default();
        match (in_document, part, document) {
            (None, ..) => {}
            (_, Some(part), _) => {
                let part = ProfilePart::decode(&unhex(&part)?)
                    .map_err(|error| inconsistent("profile_part", &error))?;
                former.parts.add_stored(subject.clone(), part, Kept::Apart);
            }
            (_, None, Some(document)) => {
                let document = Document::decode(&unhex(&document)?)
                    .map_err(|error| inconsistent("customer_profile.document", &error))?;
                as_of = document.as_of;
                former
                    .parts
                    .add_stored(subject.clone(), document.part, Kept::InDocument);
            }
            (_, None, None) => {
                former
                    .parts
                    .add_stored(subject.clone(), ProfilePart::default(), Kept::InDocument);
            }
        }
        if let Some(n) = n {
            former.progress.insert(subject, (n, as_of));
        }
    }
    Ok(former)
}

const WRITE_PARTS: Insert = Insert {
    into: "insert into profile_part (shop, subject, part, in_document)",
    columns: 4,
    then: "on conflict (subject, shop) do update set part = excluded.part, in_document = excluded.in_document",
};

/// Writes where parts are kept now.
pub(super) async fn write_parts(
    conn: &mut SqliteConnection,
    parts: Vec<(SubjectId, Option<Vec<u8>>)>,
    people: &People,
) -> Result<(), WarehouseError> {
    let mut rows = Vec::with_capacity(parts.len());
    for (subject, part) in &parts {
        let shop = people
            .shop(subject)
            .ok_or_else(|| WarehouseError::Inconsistent("a part of no shop".into()))?;
        rows.push((shop, subject, part.as_deref()));
    }
    WRITE_PARTS
        .run(conn, &rows, |(shop, subject, part), values| {
            values.push_shop(shop).push_subject(Some(subject));
            values.push(part.unwrap_or_default()).push(part.is_none());
        })
        .await?;
    Ok(())
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

pub(super) async fn write_documents(
    conn: &mut SqliteConnection,
    documents: &[Written],
    people: &People,
) -> Result<(), WarehouseError> {
    let mut rows = Vec::with_capacity(documents.len());
    for written in documents {
        let Version { epoch, n } = written.profile.version();
        let shop = people
            .shop(&written.subject)
            .ok_or_else(|| WarehouseError::Inconsistent("a document of no shop".into()))?;
        let as_of = json(written.profile.as_of())?;
        let change_seq = integer(written.change_seq)?;
        rows.push((shop, written, integer(epoch)?, integer(n)?, as_of, change_seq));
    }
    WRITE_DOCUMENTS
        .run(
            conn,
            &rows,
            |(shop, written, epoch, n, as_of, change_seq), values| {
                let profile = &written.profile;
                let currency = profile.main_currency();
                let purchases = profile.purchases(currency.unwrap_or_default());
                values.push_shop(shop).push_subject(Some(&written.subject));
                values.push_subject(profile.linked_user());
                values
                    .push(*epoch)
                    .push(*n)
                    .push(written.partition)
                    .push(*change_seq)
                    .push(as_of.as_str());
                values
                    .push(profile.first_seen().map(|time| time.0))
                    .push(profile.last_seen().map(|time| time.0));
                values.push(profile.last_order().map(|time| time.0));
                values
                    .push(purchases.orders)
                    .push(purchases.cancelled_orders)
                    .push(purchases.refunds);
                values
                    .push(currency)
                    .push(purchases.revenue_minor)
                    .push(purchases.refunded_minor);
                values.push(&**profile.bytes());
            },
        )
        .await?;
    Ok(())
}
