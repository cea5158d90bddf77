//! Postcard into a buffer that is there already, whole slices at a time.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// What is appended to.
struct Appended(Vec<u8>);

impl Flavor for Appended {
    type Output = Vec<u8>;

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

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// `bytes` and then the encoding of `value`, one of our own types: it fails only where a length is unknown or a
/// `Serialize` says so, which none of ours does.
pub(super) fn append<T: Serialize + ?Sized>(value: &T, bytes: Vec<u8>) -> Vec<u8> {
    postcard::serialize_with_flavor(value, Appended(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::append;

    #[test]
    fn it_is_what_postcard_writes_behind_what_was_there() {
        let value = (1u64 << 40, "text", [Some(-1i64), None], vec![7u8; 300]);
        let mut expected = vec![9];
        expected.extend(postcard::to_stdvec(&value).unwrap());
        assert_eq!(append(&value, vec![9]), expected);
    }
}
