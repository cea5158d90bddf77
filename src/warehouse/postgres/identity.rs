//! `identity` and `identity_alias`.

use sqlx::PgConnection;

use super::error::Failure;
use super::rows::{Instant, column, event, shop, stamp, time};
use crate::domain::identity::{Alias, Link, LinkState};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::transform::Proof;
use crate::warehouse::WarehouseError;
use crate::warehouse::fold::people::People;

/// Reads every row that decides who the people of a batch are.
pub(super) async fn read(conn: &mut PgConnection, people: &mut People) -> Result<(), Failure> {
    loop {
        let wanted = people.wanted();
        if wanted.is_empty() {
            return Ok(());
        }
        for (shop, link) in links(conn, &wanted.anonymous, &wanted.users).await? {
            people.add_stored_link(shop, link);
        }
        if !wanted.users.is_empty() {
            for (shop, alias) in aliases(conn, &wanted.users).await? {
                people.add_stored_alias(shop, alias);
            }
        }
    }
}

async fn links(
    conn: &mut PgConnection,
    anonymous: &[SubjectId],
    users: &[SubjectId],
) -> Result<Vec<(Shop, Link)>, Failure> {
    let rows = sqlx::query!(
        r#"select i.shop as "shop!", i.anonymous_id as "anonymous_id!", i.user_id as "user_id!", i.proof,
                  i.first_time as "first_time: Instant", i.first_event, i.last_time as "last_time: Instant",
                  i.last_event, i.unlink_time as "unlink_time: Instant", i.unlink_event
           from unnest($1::text[]) as k(id) join identity as i on i.anonymous_id = k.id
           union all
           select i.shop, i.anonymous_id, i.user_id, i.proof, i.first_time, i.first_event, i.last_time, i.last_event,
                  i.unlink_time, i.unlink_event
           from unnest($2::text[]) as k(id) join identity as i on i.user_id = k.id"#,
        column(anonymous, SubjectId::as_str) as _,
        column(users, SubjectId::as_str) as _
    )
    .fetch_all(conn)
    .await?;
    // A link found from both ends comes twice; the second is ignored.
    rows.into_iter()
        .map(|row| {
            let state = LinkState {
                first_claim: stamp(row.first_time, row.first_event),
                last_claim: stamp(row.last_time, row.last_event),
                last_unlink: stamp(row.unlink_time, row.unlink_event),
            };
            let proof = match row.proof.as_deref() {
                Some("server_key") => Some(Proof::ServerKey),
                Some("user_token") => Some(Proof::UserToken),
                Some(other) => {
                    return Err(
                        WarehouseError::Inconsistent(format!("identity.proof {other:?}").into()).into(),
                    );
                }
                None => None,
            };
            let link = Link {
                anonymous: SubjectId::from_stored(&row.anonymous_id),
                user: SubjectId::from_stored(&row.user_id),
                state,
                proof,
            };
            Ok((shop(row.shop)?, link))
        })
        .collect()
}

async fn aliases(conn: &mut PgConnection, users: &[SubjectId]) -> Result<Vec<(Shop, Alias)>, Failure> {
    let rows = sqlx::query!(
        r#"select a.shop as "shop!", a.user_id as "user_id!", a.previous_id as "previous_id!"
           from unnest($1::text[]) as k(id) join identity_alias as a on a.user_id = k.id
           union all
           select a.shop, a.user_id, a.previous_id
           from unnest($1::text[]) as k(id) join identity_alias as a on a.previous_id = k.id"#,
        column(users, SubjectId::as_str) as _
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let alias = Alias {
                user: SubjectId::from_stored(&row.user_id),
                previous: SubjectId::from_stored(&row.previous_id),
            };
            Ok((shop(row.shop)?, alias))
        })
        .collect()
}

/// Writes what changed. Whoever changes a link holds the parts of both its ends, so no two writers meet here.
pub(super) async fn write(conn: &mut PgConnection, people: &People) -> Result<(), Failure> {
    write_links(conn, &people.changed_links()).await?;
    insert_aliases(conn, &people.new_aliases()).await
}

async fn write_links(conn: &mut PgConnection, rows: &[(&Shop, &Link)]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into identity (shop, anonymous_id, user_id, proof, first_time, first_event, last_time, last_event,
                               unlink_time, unlink_event)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[],
                              $7::timestamptz[], $8::text[], $9::timestamptz[], $10::text[])
         on conflict (anonymous_id, user_id, shop) do update set proof = excluded.proof,
             first_time = excluded.first_time, first_event = excluded.first_event,
             last_time = excluded.last_time, last_event = excluded.last_event,
             unlink_time = excluded.unlink_time, unlink_event = excluded.unlink_event",
        column(rows, |(shop, _)| shop.as_str()) as _,
        column(rows, |(_, link)| link.anonymous.as_str()) as _,
        column(rows, |(_, link)| link.user.as_str()) as _,
        column(rows, |(_, link)| link.proof.map(|proof| match proof {
            Proof::ServerKey => "server_key",
            Proof::UserToken => "user_token",
        })) as _,
        column(rows, |(_, link)| time(link.state.first_claim.as_ref())) as _,
        column(rows, |(_, link)| event(link.state.first_claim.as_ref())) as _,
        column(rows, |(_, link)| time(link.state.last_claim.as_ref())) as _,
        column(rows, |(_, link)| event(link.state.last_claim.as_ref())) as _,
        column(rows, |(_, link)| time(link.state.last_unlink.as_ref())) as _,
        column(rows, |(_, link)| event(link.state.last_unlink.as_ref())) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_aliases(conn: &mut PgConnection, rows: &[(&Shop, &Alias)]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into identity_alias (shop, user_id, previous_id)
         select * from unnest($1::text[], $2::text[], $3::text[])
         on conflict do nothing",
        column(rows, |(shop, _)| shop.as_str()) as _,
        column(rows, |(_, alias)| alias.user.as_str()) as _,
        column(rows, |(_, alias)| alias.previous.as_str()) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}
