//! `profile_part` and `customer_profile`.

use bytes::Bytes;
use sqlx::PgConnection;

use super::error::{Failure, integer, natural};
use super::rows::{Instant, column};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::profile::{AsOf, Document, ProfilePart, Version};
use crate::warehouse::batch::Written;
use crate::warehouse::fold::parts::{Kept, Parts};
use crate::warehouse::fold::people::People;
use crate::warehouse::fold::{Map, Set};
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

/// The locked rows: where each part is kept, and the bytes of those kept apart.
#[derive(Debug, Default)]
pub(super) struct Locked {
    rows: Map<SubjectId, Option<Vec<u8>>>,
}

/// Locks the parts of `subjects`, which are in order. Absent rows are inserted, so that an identity is locked before it
/// did anything.
pub(super) async fn lock_parts(
    conn: &mut PgConnection,
    subjects: &[(&Shop, &SubjectId)],
) -> Result<Locked, Failure> {
    let mut locked = Locked::default();
    lock_stored(conn, subjects, &mut locked).await?;
    if locked.rows.len() == subjects.len() {
        return Ok(locked);
    }
    let absent: Vec<(&Shop, &SubjectId)> = subjects
        .iter()
        .filter(|(_, subject)| !locked.rows.contains_key(*subject))
        .copied()
        .collect();
    let inserted = sqlx::query!(
        "insert into profile_part (shop, subject, part, in_document)
         select shop, subject, '', true from (select unnest($1::text[]) as shop, unnest($2::text[]) as subject) as k
         on conflict do nothing",
        column(&absent, |(shop, _)| shop.as_str()) as _,
        column(&absent, |(_, subject)| subject.as_str()) as _
    )
    .execute(&mut *conn)
    .await?;
    if usize::try_from(inserted.rows_affected()) != Ok(absent.len()) {
        // Another batch inserted some and has committed since.
        lock_stored(conn, &absent, &mut locked).await?;
    }
    for (_, subject) in absent {
        locked.rows.entry(subject.clone()).or_insert(None);
    }
    Ok(locked)
}

/// Locks the rows that are there, in key order.
async fn lock_stored(
    conn: &mut PgConnection,
    subjects: &[(&Shop, &SubjectId)],
    locked: &mut Locked,
) -> Result<(), Failure> {
    let rows = sqlx::query!(
        r#"select p.subject, case when not p.in_document then p.part end as part from (select unnest($1::text[]) as subject) as k
           join profile_part as p on p.subject = k.subject
           order by p.subject
           for update of p"#,
        column(subjects, |(_, subject)| subject.as_str()) as _
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        locked.rows.insert(SubjectId::from_stored(&row.subject), row.part);
    }
    Ok(())
}

/// What is stored of one subject's document before a batch.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// By subject, the document's number and how far it was folded.
    pub(super) progress: Map<SubjectId, (u64, AsOf)>,
    pub(super) parts: Parts,
}

/// Reads the parts of `subjects`, all of which are `locked`, and how far their documents were folded. A statement of its own:
/// the one that waits for the locks sees documents as they were before it waited.
pub(super) async fn read(
    conn: &mut PgConnection,
    subjects: &[(&Shop, &SubjectId)],
    mut locked: Locked,
) -> Result<Former, Failure> {
    let inconsistent = |what: &str, error: &dyn std::fmt::Display| {
        WarehouseError::Inconsistent(format!("{what}: {error}").into())
    };
    let rows = sqlx::query!(
        r#"select p.subject, p.n, case when not k.in_document then p.as_of::text end as as_of,
                  case when k.in_document then p.document end as document
           from (select unnest($1::text[]) as subject, unnest($2::boolean[]) as in_document) as k
           join customer_profile as p on p.subject = k.subject"#,
        column(subjects, |(_, subject)| subject.as_str()) as _,
        column(subjects, |(_, subject)| matches!(
            locked.rows.get(*subject),
            Some(None)
        )) as _
    )
    .fetch_all(conn)
    .await?;
    let mut former = Former::default();
    for row in rows {
        let subject = SubjectId::from_stored(&row.subject);
        let as_of = match (row.document, row.as_of) {
            (Some(document), _) => {
                let document = Document::decode(&document)
                    .map_err(|error| inconsistent("customer_profile.document", &error))?;
                locked.rows.remove(&subject);
                former
                    .parts
                    .add_stored(subject.clone(), document.part, Kept::InDocument);
                document.as_of
            }
            (None, Some(as_of)) => serde_json::from_str(&as_of)
                .map_err(|error| inconsistent("customer_profile.as_of", &error))?,
            (None, None) => AsOf::default(),
        };
        former.progress.insert(subject, (natural(row.n)?, as_of));
    }
    for (subject, part) in locked.rows {
        let (part, kept) = match part.as_deref() {
            // There is no document yet.
            None => (ProfilePart::default(), Kept::InDocument),
            // Locked by a former version, and did nothing.
            Some([]) => (ProfilePart::default(), Kept::Apart),
            Some(part) => {
                let part = ProfilePart::decode(part).map_err(|error| inconsistent("profile_part", &error))?;
                (part, Kept::Apart)
            }
        };
        former.parts.add_stored(subject, part, kept);
    }
    Ok(former)
}

/// Writes where parts are kept now; all are locked, so all are there.
pub(super) async fn write_parts(
    conn: &mut PgConnection,
    parts: &[(SubjectId, Option<Vec<u8>>)],
) -> Result<(), Failure> {
    if parts.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update profile_part as p set part = coalesce(k.part, ''), in_document = k.part is null
         from (select unnest($1::text[]) as subject, unnest($2::bytea[]) as part) as k
         where p.subject = k.subject",
        column(parts, |(subject, _)| subject.as_str()) as _,
        column(parts, |(_, part)| part.as_deref()) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A document as one row.
struct Row<'d> {
    shop: &'d Shop,
    written: &'d Written,
    epoch: i64,
    n: i64,
    as_of: String,
    change_seq: i64,
}

/// Writes documents.
///
/// All parts are locked, so whether a document is `stored` is known, and an update alone is much cheaper than an insert that meets
/// a row.
pub(super) async fn write_documents(
    conn: &mut PgConnection,
    documents: &[Written],
    stored: &Set<SubjectId>,
    people: &People,
) -> Result<(), Failure> {
    let (mut former, mut new) = (Vec::with_capacity(documents.len()), Vec::new());
    for written in documents {
        let Version { epoch, n } = written.document.version;
        let row = Row {
            shop: people
                .shop(&written.subject)
                .ok_or_else(|| WarehouseError::Inconsistent("a document of no shop".into()))?,
            written,
            epoch: integer(epoch)?,
            n: integer(n)?,
            as_of: serde_json::to_string(&written.document.as_of)
                .map_err(|error| WarehouseError::Rejected(error.to_string().into()))?,
            change_seq: integer(written.change_seq)?,
        };
        match stored.contains(&written.subject) {
            true => former.push(row),
            false => new.push(row),
        }
    }
    if !former.is_empty() {
        update(conn, &former).await?;
    }
    if !new.is_empty() {
        insert(conn, &new).await?;
    }
    Ok(())
}

/// Runs a statement whose parameters are the columns of the rows.
macro_rules! run {
    ($conn:expr, $rows:expr, $sql:literal) => {
        sqlx::query!(
            $sql,
            column($rows, |row| i32::from(row.written.partition)) as _,
            column($rows, |row| row.shop.as_str()) as _,
            column($rows, |row| row.written.subject.as_str()) as _,
            column($rows, |row| row
                .written
                .document
                .linked_user
                .as_ref()
                .map(SubjectId::as_str)) as _,
            column($rows, |row| row.epoch) as _,
            column($rows, |row| row.n) as _,
            column($rows, |row| row.change_seq) as _,
            column($rows, |row| row.written.document.part.first_seen().map(Instant)) as _,
            column($rows, |row| row.written.document.part.last_seen().map(Instant)) as _,
            column($rows, |row| row.written.document.part.last_order().map(Instant)) as _,
            column($rows, |row| row.written.document.part.orders()) as _,
            column($rows, |row| row.written.document.part.cancelled_orders()) as _,
            column($rows, |row| row.written.document.part.refunds()) as _,
            column($rows, |row| row.written.document.part.main_currency()) as _,
            column($rows, |row| in_main(
                &row.written.document.part,
                ProfilePart::revenue_minor
            )) as _,
            column($rows, |row| in_main(
                &row.written.document.part,
                ProfilePart::refunded_minor
            )) as _,
            column($rows, |row| &*row.written.bytes) as _,
            column($rows, |row| row.as_of.as_str()) as _
        )
        .execute($conn)
        .await
    };
}

async fn update(conn: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), Failure> {
    let updated = run!(
        conn,
        rows,
        "update customer_profile as p
         set linked_user_id = k.linked_user_id, epoch = k.epoch, n = k.n, partition = k.partition,
             change_seq = k.change_seq, as_of = k.as_of::json, first_seen = k.first_seen, last_seen = k.last_seen,
             last_order = k.last_order, orders = k.orders, cancelled_orders = k.cancelled_orders, refunds = k.refunds,
             currency = k.currency, revenue_minor = k.revenue_minor, refunded_minor = k.refunded_minor,
             document = k.document
         from (select unnest($1::int[]) as partition, unnest($2::text[]) as shop, unnest($3::text[]) as subject, unnest($4::text[]) as linked_user_id,
                      unnest($5::bigint[]) as epoch, unnest($6::bigint[]) as n, unnest($7::bigint[]) as change_seq,
                      unnest($8::timestamptz[]) as first_seen, unnest($9::timestamptz[]) as last_seen,
                      unnest($10::timestamptz[]) as last_order, unnest($11::bigint[]) as orders,
                      unnest($12::bigint[]) as cancelled_orders, unnest($13::bigint[]) as refunds,
                      unnest($14::text[]) as currency, unnest($15::bigint[]) as revenue_minor,
                      unnest($16::bigint[]) as refunded_minor, unnest($17::bytea[]) as document,
                      unnest($18::text[]) as as_of) as k
         where p.subject = k.subject"
    )?;
    match usize::try_from(updated.rows_affected()) == Ok(rows.len()) {
        true => Ok(()),
        false => Err(Failure::Again("a document is gone".into())),
    }
}

async fn insert(conn: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), Failure> {
    run!(
        conn,
        rows,
        "insert into customer_profile (shop, subject, linked_user_id, epoch, n, partition, change_seq, as_of,
                                       first_seen, last_seen, last_order, orders, cancelled_orders, refunds, currency,
                                       revenue_minor, refunded_minor, document)
         select k.shop, k.subject, k.linked_user_id, k.epoch, k.n, k.partition, k.change_seq, k.as_of::json,
                k.first_seen, k.last_seen, k.last_order, k.orders, k.cancelled_orders, k.refunds, k.currency,
                k.revenue_minor, k.refunded_minor, k.document
         from (select unnest($1::int[]) as partition, unnest($2::text[]) as shop, unnest($3::text[]) as subject, unnest($4::text[]) as linked_user_id,
                      unnest($5::bigint[]) as epoch, unnest($6::bigint[]) as n, unnest($7::bigint[]) as change_seq,
                      unnest($8::timestamptz[]) as first_seen, unnest($9::timestamptz[]) as last_seen,
                      unnest($10::timestamptz[]) as last_order, unnest($11::bigint[]) as orders,
                      unnest($12::bigint[]) as cancelled_orders, unnest($13::bigint[]) as refunds,
                      unnest($14::text[]) as currency, unnest($15::bigint[]) as revenue_minor,
                      unnest($16::bigint[]) as refunded_minor, unnest($17::bytea[]) as document,
                      unnest($18::text[]) as as_of) as k"
    )?;
    Ok(())
}

/// An amount in the part's main currency.
fn in_main(part: &ProfilePart, amount: impl Fn(&ProfilePart, &str) -> i64) -> i64 {
    part.main_currency().map_or(0, |currency| amount(part, currency))
}
