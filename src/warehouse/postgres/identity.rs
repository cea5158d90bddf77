//! `identity` and `identity_alias`.

use sqlx::PgConnection;

use super::error::Failure;
use super::rows::{Instant, column, event, shop, stamp, time};
use crate::domain::identity::{Alias, Link, LinkState};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::transform::Proof;
use crate::warehouse::WarehouseError;
use crate::warehouse::fold::people::{People, Wanted};

/// Reads every row that decides who the people of a batch are.
pub(super) async fn read(conn: &mut PgConnection, people: &mut People) -> Result<(), Failure> {
    loop {
        let wanted = people.wanted();
        if wanted.is_empty() {
            return Ok(());
        }
        let (links, aliases) = rows(conn, &wanted).await?;
        for (shop, link) in links {
            people.add_stored_link(shop, link);
        }
        for (shop, alias) in aliases {
            people.add_stored_alias(shop, alias);
        }
    }
}

type Rows = (Vec<(Shop, Link)>, Vec<(Shop, Alias)>);

/// The links of the anonymous ids and of the users, and the users' aliases. A row found from both ends comes twice; the second is
/// ignored.
async fn rows(conn: &mut PgConnection, wanted: &Wanted) -> Result<Rows, Failure> {
    let rows = sqlx::query!(
        r#"select false as "is_alias!", i.shop as "shop!", i.anonymous_id as "one!", i.user_id as "other!", i.proof,
                  i.first_time as "first_time: Instant", i.first_event, i.last_time as "last_time: Instant",
                  i.last_event, i.unlink_time as "unlink_time: Instant", i.unlink_event
           from (select unnest($1::text[]) as id) as k join identity as i on i.anonymous_id = k.id
           union all
           select false, i.shop, i.anonymous_id, i.user_id, i.proof, i.first_time, i.first_event, i.last_time,
                  i.last_event, i.unlink_time, i.unlink_event
           from (select unnest($2::text[]) as id) as k join identity as i on i.user_id = k.id
           union all
           select true, a.shop, a.user_id, a.previous_id, null, null, null, null, null, null, null
           from (select unnest($2::text[]) as id) as k join identity_alias as a on a.user_id = k.id
           union all
           select true, a.shop, a.user_id, a.previous_id, null, null, null, null, null, null, null
           from (select unnest($2::text[]) as id) as k join identity_alias as a on a.previous_id = k.id"#,
        column(&wanted.anonymous, SubjectId::as_str) as _,
        column(&wanted.users, SubjectId::as_str) as _
    )
    .fetch_all(conn)
    .await?;
    let (mut links, mut aliases) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let (one, other) = (
            SubjectId::from_stored(&row.one),
            SubjectId::from_stored(&row.other),
        );
        let shop = shop(row.shop)?;
        if row.is_alias {
            let alias = Alias {
                user: one,
                previous: other,
            };
            aliases.push((shop, alias));
            continue;
        }
        let state = LinkState {
            first_claim: stamp(row.first_time, row.first_event),
            last_claim: stamp(row.last_time, row.last_event),
            last_unlink: stamp(row.unlink_time, row.unlink_event),
        };
        let proof = match row.proof.as_deref() {
            Some("server_key") => Some(Proof::ServerKey),
            Some("user_token") => Some(Proof::UserToken),
            Some(proof) => {
                return Err(WarehouseError::Inconsistent(format!("identity.proof {proof:?}").into()).into());
            }
            None => None,
        };
        let link = Link {
            anonymous: one,
            user: other,
            state,
            proof,
        };
        links.push((shop, link));
    }
    Ok((links, aliases))
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
         select unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]),
                unnest($5::timestamptz[]), unnest($6::text[]), unnest($7::timestamptz[]), unnest($8::text[]),
                unnest($9::timestamptz[]), unnest($10::text[])
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
         select unnest($1::text[]), unnest($2::text[]), unnest($3::text[])
         on conflict do nothing",
        column(rows, |(shop, _)| shop.as_str()) as _,
        column(rows, |(_, alias)| alias.user.as_str()) as _,
        column(rows, |(_, alias)| alias.previous.as_str()) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}
