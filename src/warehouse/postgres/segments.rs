//! `customer_segment`: the segments of each subject, as of its document's last write.

use sqlx::PgConnection;

use super::error::Failure;
use super::rows::{Instant, column};
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::ruleset::Ruleset;
use crate::warehouse::batch::{Membership, Moves, Written, moves};
use crate::warehouse::fold::people::People;

/// Writes who left and who entered a segment. Whoever writes a document holds its part, so no two writers meet here.
pub(super) async fn update(
    conn: &mut PgConnection,
    ruleset: &Ruleset,
    documents: &[Written],
    people: &People,
    now: Timestamp,
) -> Result<(), Failure> {
    let stored = read(conn, documents).await?;
    let Moves { left, entered } = moves(ruleset, documents, people, stored, now);
    if !left.is_empty() {
        delete(conn, &left).await?;
    }
    if !entered.is_empty() {
        insert(conn, &entered, now).await?;
    }
    Ok(())
}

async fn read(conn: &mut PgConnection, documents: &[Written]) -> Result<Vec<Membership>, Failure> {
    let rows = sqlx::query!(
        "select s.subject, s.segment from (select unnest($1::text[]) as subject) as k
         join customer_segment as s on s.subject = k.subject",
        column(documents, |written| written.subject.as_str()) as _
    )
    .fetch_all(conn)
    .await?;
    let memberships = rows.into_iter();
    Ok(memberships
        .map(|row| (SubjectId::from_stored(&row.subject), row.segment.into()))
        .collect())
}

async fn delete(conn: &mut PgConnection, memberships: &[Membership]) -> Result<(), Failure> {
    sqlx::query!(
        "delete from customer_segment as s using (select unnest($1::text[]) as subject, unnest($2::text[]) as segment) as k
         where s.subject = k.subject and s.segment = k.segment",
        column(memberships, |(subject, _)| subject.as_str()) as _,
        column(memberships, |(_, segment)| &**segment) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert(
    conn: &mut PgConnection,
    memberships: &[(&Shop, Membership)],
    now: Timestamp,
) -> Result<(), Failure> {
    sqlx::query!(
        "insert into customer_segment (shop, subject, segment, since)
         select k.shop, k.subject, k.segment, $1
         from (select unnest($2::text[]) as shop, unnest($3::text[]) as subject, unnest($4::text[]) as segment) as k",
        Instant(now) as _,
        column(memberships, |(shop, _)| shop.as_str()) as _,
        column(memberships, |(_, (subject, _))| subject.as_str()) as _,
        column(memberships, |(_, (_, segment))| &**segment) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}
