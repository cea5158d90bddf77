//! `position`: how far each partition of the log is applied.

use sqlx::sqlite::SqliteConnection;

use super::error::{integer, natural};
use crate::domain::ids::Timestamp;
use crate::warehouse::{Progress, StoredPosition, WarehouseError};

type Row = (u16, String, i64, i64);

pub(super) async fn all(conn: &mut SqliteConnection) -> Result<Vec<Progress>, WarehouseError> {
    let rows: Vec<Row> = sqlx::query_as("select partition, log_id, next_offset, change_seq from position")
        .fetch_all(conn)
        .await?;
    rows.into_iter().map(progress).collect()
}

pub(super) async fn read(
    conn: &mut SqliteConnection,
    partition: u16,
) -> Result<Option<Progress>, WarehouseError> {
    let row: Option<Row> = sqlx::query_as(
        "select partition, log_id, next_offset, change_seq from position where partition = ?1",
    )
    .bind(partition)
    .fetch_optional(conn)
    .await?;
    row.map(progress).transpose()
}

fn progress((partition, log_id, offset, change_seq): Row) -> Result<Progress, WarehouseError> {
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

pub(super) async fn store(
    conn: &mut SqliteConnection,
    position: StoredPosition,
    change_seq: u64,
    now: Timestamp,
) -> Result<(), WarehouseError> {
    sqlx::query(
        "insert into position (partition, log_id, next_offset, change_seq, updated_at) values (?1, ?2, ?3, ?4, ?5)
         on conflict (partition) do update set log_id = excluded.log_id, next_offset = excluded.next_offset,
         change_seq = excluded.change_seq, updated_at = excluded.updated_at",
    )
    .bind(position.partition)
    .bind(position.log_id.to_string())
    .bind(integer(position.offset)?)
    .bind(integer(change_seq)?)
    .bind(now.0)
    .execute(conn)
    .await?;
    Ok(())
}
