//! `customer_profile`: each subject's document, and its own part where that is not what the document says.
//!
//! The row is the lock of its identity. Who has none cannot be locked: two batches that are the first to say something of a subject both
//! insert its row, and one of them begins again.

use bytes::Bytes;
use sqlx::PgConnection;

use super::error::{Failure, integer, is_locked, natural};
use super::rows::{Instant, column};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::profile::{AsOf, Document, ProfilePart, Purchases, Version};
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

/// What is stored of some subjects before a batch, locked.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// By subject, the document's number and how far it was folded.
    pub(super) progress: Map<SubjectId, (u64, AsOf)>,
    pub(super) parts: Parts,
}

/// A row as it is locked: of the document, or of the subject's own part with how far the document is folded.
struct Locked {
    subject: String,
    n: i64,
    own_part: Option<Vec<u8>>,
    as_of: Option<String>,
    document: Option<Vec<u8>>,
}

/// Locks rows in a way that is given.
macro_rules! locked {
    ($conn:expr, $subjects:expr, $how:literal) => {
        // `lateral` goes through the subjects in their order.
        sqlx::query_as!(
            Locked,
            r#"select p.subject as "subject!", p.n as "n!", p.own_part, p.as_of, p.document
               from (select unnest($1::text[]) as subject) as k
               cross join lateral (
                   select subject, n, own_part, case when own_part is not null then as_of::text end as as_of,
                          case when own_part is null then document end as document
                   from customer_profile where subject = k.subject "#
                + $how
                + ") as p",
            column($subjects, |subject| subject.as_str()) as _
        )
        .fetch_all($conn)
        .await
    };
}

impl Former {
    /// Locks the documents of `subjects`, which are in order, and reads them: one that had to be waited for is read as it is then.
    /// Of those that have none nothing is locked; see [`insert`].
    pub(super) async fn lock(
        &mut self,
        conn: &mut PgConnection,
        subjects: &[&SubjectId],
    ) -> Result<(), Failure> {
        let rows = locked!(conn, subjects, "for update")?;
        self.add(rows)
    }

    /// The same beside what is locked already, of which others may be waiting for the end: so where one of these is locked by
    /// somebody else, the transaction has to begin again.
    pub(super) async fn lock_more(
        &mut self,
        conn: &mut PgConnection,
        subjects: &[&SubjectId],
    ) -> Result<(), Failure> {
        let rows = locked!(conn, subjects, "for update nowait");
        self.add(rows.map_err(|error| match is_locked(&error) {
            true => Failure::Again("somebody who belongs to others is being written".into()),
            false => error.into(),
        })?)
    }

    fn add(&mut self, rows: Vec<Locked>) -> Result<(), Failure> {
        let inconsistent = |what: &str, error: &dyn std::fmt::Display| {
            WarehouseError::Inconsistent(format!("customer_profile.{what}: {error}").into())
        };
        for row in rows {
            let subject = SubjectId::from_stored(&row.subject);
            let (part, kept, as_of) = match (row.document, row.own_part.as_deref()) {
                (Some(document), _) => {
                    let Document { part, as_of, .. } =
                        Document::decode(&document).map_err(|error| inconsistent("document", &error))?;
                    (part, Kept::InDocument, as_of)
                }
                (None, own_part) => {
                    let part = match own_part {
                        // A former version wrote it for an identity that had done nothing.
                        None | Some([]) => ProfilePart::default(),
                        Some(part) => {
                            ProfilePart::decode(part).map_err(|error| inconsistent("own_part", &error))?
                        }
                    };
                    let as_of = serde_json::from_str(row.as_of.as_deref().unwrap_or_default());
                    let as_of = as_of.map_err(|error| inconsistent("as_of", &error))?;
                    (part, Kept::Apart, as_of)
                }
            };
            self.parts.add_stored(subject.clone(), part, kept);
            self.progress.insert(subject, (natural(row.n)?, as_of));
        }
        Ok(())
    }
}

/// Whether any of `subjects` has a document by now.
pub(super) async fn exist(conn: &mut PgConnection, subjects: &[&SubjectId]) -> Result<bool, Failure> {
    let any = sqlx::query_scalar!(
        r#"select exists (select from customer_profile where subject = any($1)) as "any!""#,
        column(subjects, |subject| subject.as_str()) as _
    )
    .fetch_one(conn)
    .await?;
    Ok(any)
}

/// A document as one row.
struct Row<'d> {
    shop: &'d Shop,
    written: &'d Written,
    epoch: i64,
    n: i64,
    as_of: String,
    change_seq: i64,
    /// Where something was bought, the currency of most of it.
    currency: Option<&'d str>,
    /// The amounts are in that currency.
    purchases: Purchases,
    /// Whether the subject's own part is kept elsewhere from now on, and itself, where it is not the document's.
    own: Option<Option<Vec<u8>>>,
}

/// Writes documents, and with them the parts that are stored elsewhere than before: whoever's part changes, so does the document.
///
/// All that were `stored` are locked, and an update alone is much cheaper than an insert that meets a row.
pub(super) async fn write(
    conn: &mut PgConnection,
    documents: &[Written],
    parts: Vec<(SubjectId, Option<Vec<u8>>)>,
    stored: &Set<SubjectId>,
    people: &People,
) -> Result<(), Failure> {
    let mut parts: Map<SubjectId, Option<Vec<u8>>> = parts.into_iter().collect();
    let (mut former, mut new) = (Vec::with_capacity(documents.len()), Vec::new());
    for written in documents {
        let profile = &written.profile;
        let Version { epoch, n } = profile.version();
        let currency = profile.main_currency();
        let row = Row {
            shop: people
                .shop(&written.subject)
                .ok_or_else(|| WarehouseError::Inconsistent("a document of no shop".into()))?,
            written,
            epoch: integer(epoch)?,
            n: integer(n)?,
            as_of: serde_json::to_string(profile.as_of())
                .map_err(|error| WarehouseError::Rejected(error.to_string().into()))?,
            change_seq: integer(written.change_seq)?,
            currency,
            purchases: profile.purchases(currency.unwrap_or_default()),
            own: parts.remove(&written.subject),
        };
        match stored.contains(&written.subject) {
            true => former.push(row),
            false => new.push(row),
        }
    }
    if !parts.is_empty() {
        return Err(WarehouseError::Inconsistent("a part without its document".into()).into());
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
                .profile
                .linked_user()
                .map(SubjectId::as_str)) as _,
            column($rows, |row| row.epoch) as _,
            column($rows, |row| row.n) as _,
            column($rows, |row| row.change_seq) as _,
            column($rows, |row| row.written.profile.first_seen().map(Instant)) as _,
            column($rows, |row| row.written.profile.last_seen().map(Instant)) as _,
            column($rows, |row| row.written.profile.last_order().map(Instant)) as _,
            column($rows, |row| row.purchases.orders) as _,
            column($rows, |row| row.purchases.cancelled_orders) as _,
            column($rows, |row| row.purchases.refunds) as _,
            column($rows, |row| row.currency) as _,
            column($rows, |row| row.purchases.revenue_minor) as _,
            column($rows, |row| row.purchases.refunded_minor) as _,
            column($rows, |row| &**row.written.profile.bytes()) as _,
            column($rows, |row| row.as_of.as_str()) as _,
            column($rows, |row| row.own.as_ref().and_then(Option::as_deref)) as _,
            column($rows, |row| row.own.is_some()) as _
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
             document = k.document, own_part = case when k.own_moves then k.own_part else p.own_part end
         from (select unnest($1::int[]) as partition, unnest($2::text[]) as shop, unnest($3::text[]) as subject, unnest($4::text[]) as linked_user_id,
                      unnest($5::bigint[]) as epoch, unnest($6::bigint[]) as n, unnest($7::bigint[]) as change_seq,
                      unnest($8::timestamptz[]) as first_seen, unnest($9::timestamptz[]) as last_seen,
                      unnest($10::timestamptz[]) as last_order, unnest($11::bigint[]) as orders,
                      unnest($12::bigint[]) as cancelled_orders, unnest($13::bigint[]) as refunds,
                      unnest($14::text[]) as currency, unnest($15::bigint[]) as revenue_minor,
                      unnest($16::bigint[]) as refunded_minor, unnest($17::bytea[]) as document,
                      unnest($18::text[]) as as_of, unnest($19::bytea[]) as own_part, unnest($20::boolean[]) as own_moves) as k
         where p.subject = k.subject"
    )?;
    match usize::try_from(updated.rows_affected()) == Ok(rows.len()) {
        true => Ok(()),
        false => Err(Failure::Again("a document is gone".into())),
    }
}

/// Nothing locks who has no document. So where another batch inserted one since, this one does nothing, and begins again.
async fn insert(conn: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), Failure> {
    let inserted = run!(
        conn,
        rows,
        "insert into customer_profile (shop, subject, linked_user_id, epoch, n, partition, change_seq, as_of,
                                       first_seen, last_seen, last_order, orders, cancelled_orders, refunds, currency,
                                       revenue_minor, refunded_minor, document, own_part)
         select k.shop, k.subject, k.linked_user_id, k.epoch, k.n, k.partition, k.change_seq, k.as_of::json,
                k.first_seen, k.last_seen, k.last_order, k.orders, k.cancelled_orders, k.refunds, k.currency,
                k.revenue_minor, k.refunded_minor, k.document, case when k.own_moves then k.own_part end
         from (select unnest($1::int[]) as partition, unnest($2::text[]) as shop, unnest($3::text[]) as subject, unnest($4::text[]) as linked_user_id,
                      unnest($5::bigint[]) as epoch, unnest($6::bigint[]) as n, unnest($7::bigint[]) as change_seq,
                      unnest($8::timestamptz[]) as first_seen, unnest($9::timestamptz[]) as last_seen,
                      unnest($10::timestamptz[]) as last_order, unnest($11::bigint[]) as orders,
                      unnest($12::bigint[]) as cancelled_orders, unnest($13::bigint[]) as refunds,
                      unnest($14::text[]) as currency, unnest($15::bigint[]) as revenue_minor,
                      unnest($16::bigint[]) as refunded_minor, unnest($17::bytea[]) as document,
                      unnest($18::text[]) as as_of, unnest($19::bytea[]) as own_part, unnest($20::boolean[]) as own_moves) as k
         on conflict do nothing"
    )?;
    match usize::try_from(inserted.rows_affected()) == Ok(rows.len()) {
        true => Ok(()),
        false => Err(Failure::Again(
            "somebody was first seen by another batch as well".into(),
        )),
    }
}
