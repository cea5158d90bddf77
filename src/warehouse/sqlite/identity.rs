//! `identity` and `identity_alias`.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::rows::{Insert, json, shop, stamp, subject};
use crate::domain::identity::{Alias, Link, LinkState};
use crate::domain::ids::{Shop, SubjectId};
use crate::domain::transform::Proof;
use crate::warehouse::WarehouseError;
use crate::warehouse::fold::people::People;

/// Reads every row that decides who the people of a batch are.
pub(super) async fn read(conn: &mut SqliteConnection, people: &mut People) -> Result<(), WarehouseError> {
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
    conn: &mut SqliteConnection,
    anonymous: &[SubjectId],
    users: &[SubjectId],
) -> Result<Vec<(Shop, Link)>, WarehouseError> {
    let rows = sqlx::query(
        "select i.* from json_each(?1) as k cross join identity as i on i.anonymous_id = k.value
         union
         select i.* from json_each(?2) as k cross join identity as i on i.user_id = k.value",
    )
    .bind(json(&anonymous)?)
    .bind(json(&users)?)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let state = LinkState {
                first_claim: stamp(row, "first_time", "first_event")?,
                last_claim: stamp(row, "last_time", "last_event")?,
                last_unlink: stamp(row, "unlink_time", "unlink_event")?,
            };
            let proof = match row.try_get::<Option<&str>, _>("proof")? {
                Some("server_key") => Some(Proof::ServerKey),
                Some("user_token") => Some(Proof::UserToken),
                Some(other) => {
                    return Err(WarehouseError::Inconsistent(
                        format!("identity.proof {other:?}").into(),
                    ));
                }
                None => None,
            };
            let (anonymous, user) = (subject(row, "anonymous_id")?, subject(row, "user_id")?);
            Ok((
                shop(row, "shop")?,
                Link {
                    anonymous,
                    user,
                    state,
                    proof,
                },
            ))
        })
        .collect()
}

async fn aliases(
    conn: &mut SqliteConnection,
    users: &[SubjectId],
) -> Result<Vec<(Shop, Alias)>, WarehouseError> {
    let rows = sqlx::query(
        "select a.* from json_each(?1) as k cross join identity_alias as a on a.user_id = k.value
         union
         select a.* from json_each(?1) as k cross join identity_alias as a on a.previous_id = k.value",
    )
    .bind(json(&users)?)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let alias = Alias {
                user: subject(row, "user_id")?,
                previous: subject(row, "previous_id")?,
            };
            Ok((shop(row, "shop")?, alias))
        })
        .collect()
}

const WRITE_LINKS: Insert = Insert {
    into: "insert into identity (shop, anonymous_id, user_id, proof, first_time, first_event, last_time, last_event, \
           unlink_time, unlink_event)",
    columns: 10,
    then: "on conflict (anonymous_id, user_id, shop) do update set proof = excluded.proof, \
           first_time = excluded.first_time, first_event = excluded.first_event, \
           last_time = excluded.last_time, last_event = excluded.last_event, \
           unlink_time = excluded.unlink_time, unlink_event = excluded.unlink_event",
};

const INSERT_ALIASES: Insert = Insert {
    into: "insert into identity_alias (shop, user_id, previous_id)",
    columns: 3,
    then: "on conflict do nothing",
};

/// Writes what changed.
pub(super) async fn write(conn: &mut SqliteConnection, people: &People) -> Result<(), WarehouseError> {
    WRITE_LINKS
        .run(conn, &people.changed_links(), |(shop, link), values| {
            values
                .push_shop(shop)
                .push_subject(Some(&link.anonymous))
                .push_subject(Some(&link.user));
            values.push(link.proof.map(|proof| match proof {
                Proof::ServerKey => "server_key",
                Proof::UserToken => "user_token",
            }));
            values.push_stamp(link.state.first_claim.as_ref());
            values.push_stamp(link.state.last_claim.as_ref());
            values.push_stamp(link.state.last_unlink.as_ref());
        })
        .await?;
    INSERT_ALIASES
        .run(conn, &people.new_aliases(), |(shop, alias), values| {
            values
                .push_shop(shop)
                .push_subject(Some(&alias.user))
                .push_subject(Some(&alias.previous));
        })
        .await?;
    Ok(())
}
