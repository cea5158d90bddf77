//! Reads what postcard wrote, value by value, out of borrowed bytes.
//!
//! Why not by postcard as well: it takes a number byte by byte, and cannot step over a value without decoding it, and this is done for
//! each entry that a request looks at. What is decoded whole goes through postcard, and tests compare the two.
//!
//! ```text
//! unsigned  seven bits a byte, the least first, the eighth bit where more follow
//! signed    zigzag, as unsigned
//! option    0, or 1 and the value
//! text      length in bytes, UTF-8
//! float     eight bytes, little-endian
//! ```

/// The bytes not read yet. After a `None` it is of no use any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(&'a [u8]);

/// A value that is read in place. `None` where the bytes are none.
pub(super) trait InPlace<'a>: Sized {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self>;
}

/// A number of 64 bits takes no more bytes.
const LONGEST: usize = 10;

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor(bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    #[inline]
    pub(super) fn bytes(&mut self, count: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    #[inline]
    pub(super) fn unsigned(&mut self) -> Option<u64> {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.longer(),
        }
    }

    /// A number of several bytes, eight bytes at once: times and amounts are most of what is read.
    #[inline]
    fn longer(&mut self) -> Option<u64> {
        let Some(word) = self.0.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return self.byte_by_byte();
        };
        let ends = !word & 0x8080_8080_8080_8080;
        if ends == 0 {
            return self.byte_by_byte();
        }
        let bits = ends.trailing_zeros() + 1;
        self.0 = self.0.get(bits as usize / 8..)?;
        // Groups of 7 bits are moved together to 14, 28 and 56.
        let word = word & (u64::MAX >> (64 - bits)) & 0x7f7f_7f7f_7f7f_7f7f;
        let word = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
        let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x3fff_0000_3fff_0000) >> 2);
        Some((word & 0x0000_0000_0fff_ffff) | ((word & 0x0fff_ffff_0000_0000) >> 4))
    }

    /// Steps over a number.
    #[inline]
    pub(super) fn skip(&mut self) -> Option<()> {
        let word = self.0.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        match word.map_or(0, |word| !word & 0x8080_8080_8080_8080) {
            0 => self.byte_by_byte().map(drop),
            ends => {
                self.0 = self.0.get(ends.trailing_zeros() as usize / 8 + 1..)?;
                Some(())
            }
        }
    }

    #[cold]
    fn byte_by_byte(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, byte) in self.0.iter().take(LONGEST).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(at + 1..)?;
                return Some(value);
            }
        }
        None
    }

    /// An unsigned number of a narrower type.
    #[inline]
    pub(super) fn narrow<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.unsigned()?).ok()
    }

    #[inline]
    pub(super) fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    #[inline]
    pub(super) fn float(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }

    #[inline]
    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.flag()? {
            true => read(self).map(Some),
            false => Some(None),
        }
    }
}

impl<'a> InPlace<'a> for &'a str {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let length = cursor.unsigned()?;
        std::str::from_utf8(cursor.bytes(length)?).ok()
    }
}

impl<'a, K: InPlace<'a>, V: InPlace<'a>> InPlace<'a> for (K, V) {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some((K::read(cursor)?, V::read(cursor)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_read_as_postcard_wrote_them(
            numbers in prop::collection::vec((any::<u64>(), 0u32..64, any::<i64>()), 0..20)
        ) {
            let numbers: Vec<_> = numbers.into_iter().map(|(n, shift, m)| (n >> shift, m >> shift)).collect();
            let bytes = postcard::to_extend(&numbers, Vec::new()).unwrap();
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.unsigned(), Some(numbers.len() as u64));
            for (unsigned, signed) in numbers {
                prop_assert_eq!(cursor.unsigned(), Some(unsigned));
                prop_assert_eq!(cursor.signed(), Some(signed));
            }
            prop_assert_eq!(cursor.rest(), &[0u8; 0]);
        }

        #[test]
        fn eight_bytes_at_once_say_the_same_as_one_by_one(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let (mut at_once, mut one_by_one) = (Cursor::new(&bytes), Cursor::new(&bytes));
            prop_assert_eq!(at_once.unsigned(), one_by_one.byte_by_byte());
            prop_assert_eq!(at_once.rest(), one_by_one.rest());
            let mut skipped = Cursor::new(&bytes);
            prop_assert_eq!(skipped.skip().is_some(), one_by_one.rest().len() < bytes.len());
            prop_assert_eq!(skipped.rest(), one_by_one.rest());
        }
    }
}
