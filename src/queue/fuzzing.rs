//! The record encoding, for the fuzz targets; no other build has this module.

use bytes::Bytes;

use super::record::{Decoder, RecordError, encode};
use crate::domain::event::Event;

/// The event as a reader of the log would see it.
///
/// # Errors
/// [`RecordError`] where what was written cannot be read.
pub fn through_the_log(event: &Event) -> Result<Event, RecordError> {
    let mut record = Vec::new();
    encode(event, &mut record);
    Decoder::default().decode(&record.into())
}

/// Any bytes, read as a record.
///
/// # Errors
/// [`RecordError`] where they are none.
pub fn decode(record: Bytes) -> Result<Event, RecordError> {
    Decoder::default().decode(&record)
}
