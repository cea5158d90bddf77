//! The file that names the log: `log.meta`, written once, after the first segment exists.
//!
//! ```text
//! 0  8  magic "CWLOGMET"   8  4  format version   12  4  checksum of the log id   16  16  log id
//! ```

use std::io;

use super::io::Folder;
use super::segment::{FORMAT_VERSION, Fields};
use crate::queue::LogId;

const NAME: &str = "log.meta";
const TEMPORARY_NAME: &str = "log.meta.new";
const MAGIC: &[u8; 8] = b"CWLOGMET";

pub(super) enum Meta {
    Absent,
    Damaged(&'static str),
    Log(LogId),
}

pub(super) fn read(folder: &dyn Folder) -> io::Result<Meta> {
    let file = match folder.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Meta::Absent),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; 32];
    let count = file.read_at(&mut bytes, 0)?;
    Ok(decode(bytes.get(..count).unwrap_or_default()))
}

fn decode(bytes: &[u8]) -> Meta {
    let mut fields = Fields(bytes);
    let (Some(magic), Some(version), Some(crc), Some(id)) = (
        fields.take::<8>(),
        fields.u32(),
        fields.u32(),
        fields.take::<16>(),
    ) else {
        return Meta::Damaged("it ends early");
    };
    if &magic != MAGIC {
        return Meta::Damaged("it does not start as one");
    }
    if version != FORMAT_VERSION {
        return Meta::Damaged("its format version is not known to this build");
    }
    if crc32c::crc32c(&id) != crc {
        return Meta::Damaged("its checksum does not match");
    }
    Meta::Log(LogId(uuid::Uuid::from_bytes(id)))
}

/// Writes the file whole or not at all.
pub(super) fn write(folder: &dyn Folder, log_id: LogId) -> io::Result<()> {
    let id = log_id.0.as_bytes();
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(id).to_le_bytes());
    bytes.extend_from_slice(id);
    let file = folder.create(TEMPORARY_NAME)?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    folder.rename(TEMPORARY_NAME, NAME)?;
    folder.sync()
}

pub(super) fn remove_leftover(folder: &dyn Folder, names: &[String]) -> io::Result<()> {
    if names.iter().any(|name| name == TEMPORARY_NAME) {
        folder.remove(TEMPORARY_NAME)?;
    }
    Ok(())
}
