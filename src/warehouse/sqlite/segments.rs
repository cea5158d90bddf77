//! `customer_segment`: the segments of each subject, as of its document's last write.

use sqlx::sqlite::SqliteConnection;

use super::rows::{Insert, fetch_packed, json};
use crate::domain::ids::{Shop, SubjectId, Timestamp};
use crate::domain::ruleset::Ruleset;
use crate::warehouse::WarehouseError;
use crate::warehouse::batch::{Membership, Moves, Written, moves};
use crate::warehouse::fold::people::People;

/// Writes who left and who entered a segment.
pub(super) async fn update(
    conn: &mut SqliteConnection,
    ruleset: &Ruleset,
    documents: &[Written],
    people: &People,
    now: Timestamp,
) -> Result<(), WarehouseError> {
    let subjects: Vec<&SubjectId> = documents.iter().map(|written| &written.subject).collect();
    let stored = read(conn, &subjects).await?;
    let Moves { left, entered } = moves(ruleset, documents, people, stored, now);
    if !left.is_empty() {
        delete(conn, &left).await?;
    }
    insert(conn, &entered, now).await
}

async fn read(
    conn: &mut SqliteConnection,
    subjects: &[&SubjectId],
) -> Result<Vec<Membership>, WarehouseError> {
    fetch_packed(
        conn,
        "select json_group_array(json_array(s.subject, s.segment)) from json_each(?1) as k
         cross join customer_segment as s on s.subject = k.value",
        subjects,
    )
    .await
}

async fn delete(conn: &mut SqliteConnection, memberships: &[Membership]) -> Result<(), WarehouseError> {
    sqlx::query(
        "delete from customer_segment where (subject, segment) in
         (select value ->> 0, value ->> 1 from json_each(?1))",
    )
    .bind(json(memberships)?)
    .execute(conn)
    .await?;
    Ok(())
}

const INSERT: Insert = Insert {
    into: "insert into customer_segment (shop, subject, segment, since)",
    columns: 4,
    then: "",
};

async fn insert(
    conn: &mut SqliteConnection,
    memberships: &[(&Shop, Membership)],
    now: Timestamp,
) -> Result<(), WarehouseError> {
    INSERT
        .run(conn, memberships, |(shop, (subject, segment)), values| {
            values
                .push_shop(shop)
                .push_subject(Some(subject))
                .push_shared(segment)
                .push_time(now);
        })
        .await?;
    Ok(())
}
