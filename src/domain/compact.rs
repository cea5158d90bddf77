//! Postcard into a buffer that is there already, whole slices at a time.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// What is appended to.
struct Appended<'a>(&'a mut Vec<u8>);

impl Flavor for Appended<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the encoding of `value`, one of our own types: it fails only where a length is unknown or a `Serialize` says so, which
/// none of ours does. Nothing is appended then.
pub(super) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let before = out.len();
    if postcard::serialize_with_flavor(value, Appended(out)).is_err() {
        out.truncate(before);
    }
}

#[cfg(test)]
mod tests {
    use super::append;

    #[test]
    fn it_is_what_postcard_writes_behind_what_was_there() {
        let value = (1u64 << 40, "text", [Some(-1i64), None], vec![7u8; 300]);
        let mut expected = vec![9];
        expected.extend(postcard::to_stdvec(&value).unwrap());
        let mut out = vec![9];
        append(&value, &mut out);
        assert_eq!(out, expected);
    }
}
