//! The record encoding, for the fuzz targets; no other build has this module.

use bytes::Bytes;

use super::record::{Decoder, RecordError};
use super::records::Records;
use crate::domain::event::Event;

/// The event as a reader of the log would see it.
///
/// # Errors
/// [`RecordError`] where what was written cannot be read.
pub fn through_the_log(event: &Event) -> Result<Event, RecordError> {
    Records::from_iter([event]).event(0)
}

/// Any bytes, read as a record.
///
/// # Errors
/// [`RecordError`] where they are none.
pub fn decode(record: Bytes) -> Result<Event, RecordError> {
    Decoder::default().decode(&record)
}
