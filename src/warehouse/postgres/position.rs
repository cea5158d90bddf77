//! `position`: how far each partition of the log is applied.

use sqlx::PgConnection;

use super::error::{Failure, integer, natural};
use super::rows::{Instant, column};
use crate::warehouse::{Batch, Progress, StoredPosition, WarehouseError};

pub(super) async fn all(conn: &mut PgConnection) -> Result<Vec<Progress>, Failure> {
    let rows =
        sqlx::query!(r#"select partition, log_id::text as "log_id!", next_offset, change_seq from position"#)
            .fetch_all(conn)
            .await?;
    rows.into_iter()
        .map(|row| {
            progress(
                natural(row.partition.into())?,
                &row.log_id,
                row.next_offset,
                row.change_seq,
            )
        })
        .collect()
}

/// The greatest change number that the partition has given; 0 before the first.
pub(super) async fn change_seq(conn: &mut PgConnection, partition: u16) -> Result<u64, Failure> {
    let row = sqlx::query!(
        "select change_seq from position where partition = $1",
        i32::from(partition)
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map_or(Ok(0), |row| natural(row.change_seq))?)
}

fn progress(partition: u16, log_id: &str, offset: i64, change_seq: i64) -> Result<Progress, Failure> {
    let log_id = log_id.parse().map_err(|error| {
        WarehouseError::Inconsistent(format!("log id of partition {partition}: {error}").into())
    })?;
    Ok(Progress {
        position: StoredPosition {
            log_id,
            partition,
            offset: natural(offset)?,
        },
        change_seq: natural(change_seq)?,
    })
}

/// Locks the rows of the partitions of `batches`, inserting those that are absent: from here on nobody else moves them. In the order of the
/// batches; `None` before a partition's first one.
pub(super) async fn lock(
    conn: &mut PgConnection,
    batches: &[Batch<'_>],
) -> Result<Vec<Option<Progress>>, Failure> {
    let partitions = column(batches, |batch| i32::from(batch.next.partition));
    let rows = sqlx::query!(
        r#"select partition, log_id::text as "log_id!", next_offset, change_seq from position
           where partition = any($1) order by partition for update"#,
        &partitions
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut found = Vec::with_capacity(batches.len());
    let mut absent = Vec::new();
    for batch in batches {
        let partition = batch.next.partition;
        match rows.iter().find(|row| row.partition == i32::from(partition)) {
            Some(row) => found.push(Some(progress(
                partition,
                &row.log_id,
                row.next_offset,
                row.change_seq,
            )?)),
            None => {
                absent.push(batch);
                found.push(None);
            }
        }
    }
    if !absent.is_empty() {
        insert(conn, &absent).await?;
    }
    Ok(found)
}

async fn insert(conn: &mut PgConnection, batches: &[&Batch<'_>]) -> Result<(), Failure> {
    let inserted = sqlx::query!(
        "insert into position (partition, log_id, next_offset, change_seq, updated_at)
         select unnest($1::int[]), unnest($2::text[])::uuid, 0, 0, unnest($3::timestamptz[]) on conflict do nothing",
        column(batches, |batch| i32::from(batch.next.partition)) as _,
        column(batches, |batch| batch.next.log_id.to_string()) as _,
        column(batches, |batch| Instant(batch.now)) as _
    )
    .execute(conn)
    .await?;
    match usize::try_from(inserted.rows_affected()) == Ok(batches.len()) {
        true => Ok(()),
        false => Err(Failure::Again("another worker began with a partition".into())),
    }
}

/// Moves the locked rows.
pub(super) async fn store(
    conn: &mut PgConnection,
    batches: &[Batch<'_>],
    change_seqs: &[u64],
) -> Result<(), Failure> {
    let mut numbers = Vec::with_capacity(batches.len());
    for (batch, change_seq) in batches.iter().zip(change_seqs) {
        numbers.push((integer(batch.next.offset)?, integer(*change_seq)?));
    }
    sqlx::query!(
        "update position as p set log_id = k.log_id, next_offset = k.next_offset, change_seq = k.change_seq,
                                  updated_at = k.updated_at
         from (select unnest($1::int[]) as partition, unnest($2::text[])::uuid as log_id, unnest($3::bigint[]) as next_offset,
                      unnest($4::bigint[]) as change_seq, unnest($5::timestamptz[]) as updated_at) as k
         where p.partition = k.partition",
        column(batches, |batch| i32::from(batch.next.partition)) as _,
        column(batches, |batch| batch.next.log_id.to_string()) as _,
        column(&numbers, |(offset, _)| *offset) as _,
        column(&numbers, |(_, change_seq)| *change_seq) as _,
        column(batches, |batch| Instant(batch.now)) as _
    )
    .execute(conn)
    .await?;
    Ok(())
}
