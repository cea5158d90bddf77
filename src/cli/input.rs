//! Files that commands read, plain or gzipped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;

/// Opens a file; a gzipped one is known by its first bytes, whatever its name.
pub(super) fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| format!("{} could not be opened", path.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let is_gzipped = reader
        .fill_buf()
        .with_context(|| format!("{} could not be read", path.display()))?
        .starts_with(&[0x1f, 0x8b]);
    Ok(if is_gzipped {
        Box::new(MultiGzDecoder::new(reader))
    } else {
        Box::new(reader)
    })
}
