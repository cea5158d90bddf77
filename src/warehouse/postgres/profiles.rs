//! `profile_part` and `customer_profile`.

use bytes::Bytes;
use sqlx::PgConnection;

use super::error::{Failure, integer, natural};
use super::rows::{Instant, column};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::profile::{AsOf, ProfilePart, Version};
use crate::warehouse::batch::Written;
use crate::warehouse::fold::Map;
use crate::warehouse::fold::parts::Parts;
use crate::warehouse::fold::people::People;
use crate::warehouse::{Change, WarehouseError};

/// A row of `customer_profile`, as it is read by key.
pub(super) struct Stored {
    subject: String,
    epoch: i64,
    n: i64,
    document: Vec<u8>,
}

impl Stored {
    pub(super) fn document(self) -> Result<(SubjectId, Version, Bytes), Failure> {
        let version = Version {
            epoch: natural(self.epoch)?,
            n: natural(self.n)?,
        };
        Ok((
            SubjectId::from_stored(&self.subject),
            version,
            self.document.into(),
        ))
    }
}

/// Those of `subjects` that have one.
pub(super) async fn stored(
    conn: &mut PgConnection,
    subjects: &[SubjectId],
) -> Result<Vec<Stored>, sqlx::Error> {
    sqlx::query_as!(
        Stored,
        "select subject, epoch, n, document from customer_profile where subject = any($1)",
        column(subjects, SubjectId::as_str) as _
    )
    .fetch_all(conn)
    .await
}

/// The documents of `partition` numbered beyond `after`, by an index.
pub(super) async fn changes(
    conn: &mut PgConnection,
    partition: u16,
    after: u64,
    limit: u32,
) -> Result<Vec<Change>, Failure> {
    let rows = sqlx::query!(
        "select change_seq, subject, epoch, n, document from customer_profile
         where partition = $1 and change_seq > $2 order by change_seq limit $3",
        i32::from(partition),
        integer(after)?,
        i64::from(limit)
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Change {
                change_seq: natural(row.change_seq)?,
                subject: SubjectId::from_stored(&row.subject),
                version: Version {
                    epoch: natural(row.epoch)?,
                    n: natural(row.n)?,
                },
                bytes: row.document.into(),
            })
        })
        .collect()
}

/// Locks the parts of `subjects`, which are in order, and reads them. Absent rows are inserted empty, so that an
/// identity is locked before it did anything.
pub(super) async fn lock_parts(
    conn: &mut PgConnection,
    subjects: &[(&Shop, &SubjectId)],
) -> Result<Parts, Failure> {
    let mut parts = Parts::default();
    let mut found = lock_stored(conn, subjects, &mut parts).await?;
    found.sort_unstable();
    let absent: Vec<(&Shop, &SubjectId)> = subjects
        .iter()
        .filter(|(_, subject)| found.binary_search(subject).is_err())
        .copied()
        .collect();
    if absent.is_empty() {
        return Ok(parts);
    }
    let inserted = sqlx::query!(
        "insert into profile_part (shop, subject, part)
         select shop, subject, '' from unnest($1::text[], $2::text[]) as k(shop, subject)
         on conflict do nothing",
        column(&absent, |(shop, _)| shop.as_str()) as _,
        column(&absent, |(_, subject)| subject.as_str()) as _
    )
    .execute(&mut *conn)
    .await?;
    if usize::try_from(inserted.rows_affected()) != Ok(absent.len()) {
        // Another batch inserted some and has committed since.
        lock_stored(conn, &absent, &mut parts).await?;
    }
    Ok(parts)
}

/// Locks the rows that are there, in key order; adds those that say something. Returns all that were there.
async fn lock_stored(
    conn: &mut PgConnection,
    subjects: &[(&Shop, &SubjectId)],
    parts: &mut Parts,
) -> Result<Vec<SubjectId>, Failure> {
    let rows = sqlx::query!(
        "select p.subject, p.part from unnest($1::text[]) as k(subject)
         join profile_part as p on p.subject = k.subject
         order by p.subject
         for update of p",
        column(subjects, |(_, subject)| subject.as_str()) as _
    )
    .fetch_all(conn)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let subject = SubjectId::from_stored(&row.subject);
        if !row.part.is_empty() {
            let part = ProfilePart::decode(&row.part)
                .map_err(|error| WarehouseError::Inconsistent(format!("profile_part: {error}").into()))?;
            parts.add_stored(subject.clone(), part);
        }
        found.push(subject);
    }
    Ok(found)
}

/// Writes the parts that changed; all are locked, so all are there.
pub(super) async fn write_parts(conn: &mut PgConnection, parts: &Parts) -> Result<(), Failure> {
    let changed = parts.changed();
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update profile_part as p set part = k.part
         from unnest($1::text[], $2::bytea[]) as k(subject, part)
         where p.subject = k.subject",
        column(&changed, |(subject, _)| subject.as_str()) as _,
        column(&changed, |(_, part)| part.encode()) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The numbers of the stored documents of `subjects`, and how far they were folded.
pub(super) async fn read_progress(
    conn: &mut PgConnection,
    subjects: &[&SubjectId],
) -> Result<Map<SubjectId, (u64, AsOf)>, Failure> {
    let rows = sqlx::query!(
        r#"select p.subject, p.n, p.as_of::text as "as_of!" from unnest($1::text[]) as k(subject)
           join customer_profile as p on p.subject = k.subject"#,
        column(subjects, |subject| subject.as_str()) as _
    )
    .fetch_all(conn)
    .await?;
    let mut progress = Map::default();
    for row in rows {
        let as_of = serde_json::from_str(&row.as_of).map_err(|error| {
            WarehouseError::Inconsistent(format!("customer_profile.as_of: {error}").into())
        })?;
        progress.insert(SubjectId::from_stored(&row.subject), (natural(row.n)?, as_of));
    }
    Ok(progress)
}

/// Writes documents; the first one gets the change number after `change_seq`. Returns the last one given.
pub(super) async fn write_documents(
    conn: &mut PgConnection,
    documents: &[Written],
    people: &People,
    partition: u16,
    change_seq: i64,
) -> Result<i64, Failure> {
    if documents.is_empty() {
        return Ok(change_seq);
    }
    let mut rows = Vec::with_capacity(documents.len());
    for (written, change) in documents.iter().zip(change_seq.saturating_add(1)..) {
        let Version { epoch, n } = written.document.version;
        let shop = people
            .shop(&written.subject)
            .ok_or_else(|| WarehouseError::Inconsistent("a document of no shop".into()))?;
        let as_of = serde_json::to_string(&written.document.as_of)
            .map_err(|error| WarehouseError::Rejected(error.to_string().into()))?;
        rows.push((shop, written, integer(epoch)?, integer(n)?, as_of, change));
    }
    sqlx::query!(
        "insert into customer_profile (shop, subject, linked_user_id, epoch, n, partition, change_seq, as_of,
                                       first_seen, last_seen, last_order, orders, cancelled_orders, refunds, currency,
                                       revenue_minor, refunded_minor, document)
         select k.shop, k.subject, k.linked_user_id, k.epoch, k.n, $1::int, k.change_seq, k.as_of::json,
                k.first_seen, k.last_seen, k.last_order, k.orders, k.cancelled_orders, k.refunds, k.currency, k.revenue_minor, k.refunded_minor,
                k.document
         from unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::bigint[], $12::bigint[],
                     $13::bigint[], $14::text[], $15::bigint[], $16::bigint[], $17::bytea[], $18::text[])
              as k(shop, subject, linked_user_id, epoch, n, change_seq, first_seen, last_seen, last_order, orders,
                   cancelled_orders, refunds, currency, revenue_minor, refunded_minor, document, as_of)
         on conflict (subject, shop) do update set linked_user_id = excluded.linked_user_id,
             epoch = excluded.epoch, n = excluded.n, partition = excluded.partition,
             change_seq = excluded.change_seq, as_of = excluded.as_of, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
             last_order = excluded.last_order, orders = excluded.orders,
             cancelled_orders = excluded.cancelled_orders, refunds = excluded.refunds, currency = excluded.currency,
             revenue_minor = excluded.revenue_minor, refunded_minor = excluded.refunded_minor,
             document = excluded.document",
        i32::from(partition),
        column(&rows, |(shop, ..)| shop.as_str()) as _,
        column(&rows, |(_, written, ..)| written.subject.as_str()) as _,
        column(&rows, |(_, written, ..)| written.document.linked_user.as_ref().map(SubjectId::as_str)) as _,
        column(&rows, |(_, _, epoch, ..)| *epoch) as _,
        column(&rows, |(_, _, _, n, ..)| *n) as _,
        column(&rows, |(.., change)| *change) as _,
        column(&rows, |(_, written, ..)| written.document.part.first_seen().map(Instant)) as _,
        column(&rows, |(_, written, ..)| written.document.part.last_seen().map(Instant)) as _,
        column(&rows, |(_, written, ..)| written.document.part.last_order().map(Instant)) as _,
        column(&rows, |(_, written, ..)| written.document.part.orders()) as _,
        column(&rows, |(_, written, ..)| written.document.part.cancelled_orders()) as _,
        column(&rows, |(_, written, ..)| written.document.part.refunds()) as _,
        column(&rows, |(_, written, ..)| written.document.part.main_currency()) as _,
        column(&rows, |(_, written, ..)| in_main(&written.document.part, ProfilePart::revenue_minor)) as _,
        column(&rows, |(_, written, ..)| in_main(&written.document.part, ProfilePart::refunded_minor)) as _,
        column(&rows, |(_, written, ..)| written.bytes.as_slice()) as _,
        column(&rows, |(.., as_of, _)| as_of.as_str()) as _
    )
    .execute(conn)
    .await?;
    Ok(rows.last().map_or(change_seq, |(.., change)| *change))
}

/// An amount in the part's main currency.
fn in_main(part: &ProfilePart, amount: impl Fn(&ProfilePart, &str) -> i64) -> i64 {
    part.main_currency().map_or(0, |currency| amount(part, currency))
}
