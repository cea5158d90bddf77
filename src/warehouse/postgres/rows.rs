//! Statements over many rows at once: each column of the rows is one array, and `unnest` makes rows of them again.
//!
//! `select unnest($1), unnest($2)` steps through all arrays at once. `from unnest($1, $2)` is the same to read, but the server writes each
//! column to a table of its own first, which takes eight times as long.

use std::sync::Arc;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Type};

use crate::domain::ids::{Shop, Stamp, Timestamp};
use crate::domain::transform::Rank;
use crate::warehouse::WarehouseError;

/// One column of `rows`.
pub(super) fn column<'r, R, T>(rows: &'r [R], of: impl FnMut(&'r R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// From the Unix epoch to 2000-01-01, where PostgreSQL's calendar begins.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MILLIS: i64 = EPOCH_DAYS * 86_400_000;

const TIMESTAMPTZ: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));
const TIMESTAMPTZ_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1185));
const DATE: PgTypeInfo = PgTypeInfo::with_oid(Oid(1082));
const DATE_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1182));
const UUID: PgTypeInfo = PgTypeInfo::with_oid(Oid(2950));
const UUID_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(2951));

/// A `timestamptz`: microseconds since 2000-01-01.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instant(pub(super) Timestamp);

/// A `date`, as days since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Day(pub(super) i64);

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.oid() == TIMESTAMPTZ.oid()
    }
}

impl PgHasArrayType for Instant {
    fn array_type_info() -> PgTypeInfo {
        TIMESTAMPTZ_ARRAY
    }
}

impl Encode<'_, Postgres> for Instant {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode(self.micros()?, buffer)
    }
}

impl Instant {
    /// As PostgreSQL counts.
    pub(super) fn micros(self) -> Result<i64, String> {
        let Instant(Timestamp(millis)) = self;
        let micros = millis
            .checked_sub(EPOCH_MILLIS)
            .and_then(|millis| millis.checked_mul(1_000));
        micros.ok_or_else(|| format!("the instant {millis} is out of range"))
    }
}

impl Decode<'_, Postgres> for Instant {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Instant(Timestamp(
            micros.div_euclid(1_000).saturating_add(EPOCH_MILLIS),
        )))
    }
}

impl Type<Postgres> for Day {
    fn type_info() -> PgTypeInfo {
        DATE
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.oid() == DATE.oid()
    }
}

impl PgHasArrayType for Day {
    fn array_type_info() -> PgTypeInfo {
        DATE_ARRAY
    }
}

impl Encode<'_, Postgres> for Day {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i32 as Encode<Postgres>>::encode(self.since_epoch()?, buffer)
    }
}

impl Day {
    /// As PostgreSQL counts.
    pub(super) fn since_epoch(self) -> Result<i32, String> {
        let Day(days) = self;
        let since = days
            .checked_sub(EPOCH_DAYS)
            .and_then(|days| i32::try_from(days).ok());
        since.ok_or_else(|| format!("the day {days} is out of range"))
    }
}

/// A `uuid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Digest(pub(super) [u8; 16]);

impl Type<Postgres> for Digest {
    fn type_info() -> PgTypeInfo {
        UUID
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.oid() == UUID.oid()
    }
}

impl PgHasArrayType for Digest {
    fn array_type_info() -> PgTypeInfo {
        UUID_ARRAY
    }
}

impl Encode<'_, Postgres> for Digest {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
}

/// The time column of a stamp.
pub(super) fn time(stamp: Option<&Stamp>) -> Option<Instant> {
    stamp.map(|stamp| Instant(stamp.time))
}

/// The event column of a stamp.
pub(super) fn event(stamp: Option<&Stamp>) -> Option<&str> {
    stamp.map(|stamp| &*stamp.event_id)
}

/// The stamp in two columns that are null together.
pub(super) fn stamp(time: Option<Instant>, event: Option<String>) -> Option<Stamp> {
    time.zip(event).map(|(Instant(time), event)| Stamp {
        time,
        event_id: event.into(),
    })
}

pub(super) fn rank(verified: bool, Instant(time): Instant, event_id: String) -> Rank {
    let stamp = Stamp {
        time,
        event_id: event_id.into(),
    };
    Rank { verified, stamp }
}

/// A stored shop.
pub(super) fn shop(text: String) -> Result<Shop, WarehouseError> {
    Shop::try_from(text).map_err(|error| WarehouseError::Inconsistent(error.to_string().into()))
}

pub(super) fn shared(text: Option<String>) -> Option<Arc<str>> {
    text.map(Into::into)
}
