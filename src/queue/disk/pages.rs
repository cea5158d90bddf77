//! Memory that begins at a page, from which a disk takes whole pages past the file system's cache.

use super::io::PAGE_BYTES;

/// Memory for less is made at once; beyond, it grows to what is asked for and is given back after that.
const LEAST_BYTES: usize = 256 * 1024;
const MOST_KEPT_BYTES: usize = 1024 * 1024;

/// Bytes, the first of which lies at a page in memory.
#[derive(Debug, Default)]
pub(super) struct Pages {
    memory: Vec<u8>,
    /// The first page's.
    start: usize,
    filled: usize,
}

impl Pages {
    fn with_capacity(bytes: usize) -> Self {
        let memory = vec![0; bytes + PAGE_BYTES];
        let start = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        Pages {
            memory,
            start,
            filled: 0,
        }
    }

    /// `bytes` zeros.
    pub(super) fn zeros(bytes: usize) -> Self {
        Pages {
            filled: bytes,
            ..Pages::with_capacity(bytes)
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let end = self.start + self.filled;
        self.memory.get(self.start..end).unwrap_or_default()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.start + self.filled;
        self.memory.get_mut(self.start..end).unwrap_or_default()
    }

    /// Makes room for `more` bytes beyond those that are there.
    pub(super) fn reserve(&mut self, more: usize) {
        let needed = self.filled + more;
        if self.memory.len().saturating_sub(self.start) < needed {
            let mut grown = Pages::with_capacity(needed.next_multiple_of(PAGE_BYTES).max(LEAST_BYTES));
            grown.put(self.bytes());
            *self = grown;
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let at = self.start + self.filled;
        if let Some(room) = self.memory.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
            self.filled += bytes.len();
        }
    }

    /// Zeros up to a length.
    pub(super) fn pad_to(&mut self, bytes: usize) {
        let at = self.start + self.filled;
        self.reserve(bytes.saturating_sub(self.filled));
        if let Some(room) = self.memory.get_mut(at..self.start + bytes) {
            room.fill(0);
            self.filled = bytes;
        }
    }

    /// Forgets all but what the page of `end` has before it, so that what follows `end` is put there.
    pub(super) fn keep_before(&mut self, end: usize) {
        let first = end - end % PAGE_BYTES;
        let kept = self.start + first..self.start + end.min(self.filled);
        if kept.start > kept.end {
            self.filled = 0;
            return;
        }
        self.filled = kept.len();
        self.memory.copy_within(kept, self.start);
        if self.memory.len() > MOST_KEPT_BYTES {
            let mut smaller = Pages::with_capacity(LEAST_BYTES);
            smaller.put(self.bytes());
            *self = smaller;
        }
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_last_page_has_goes_before_what_follows() {
        let mut pages = Pages::default();
        assert_eq!(pages.bytes(), b"");
        pages.put(&[1; 100]);
        pages.put(&vec![2; 5_000]);
        pages.pad_to(2 * PAGE_BYTES);
        assert_eq!(pages.bytes().len(), 2 * PAGE_BYTES);
        assert!(pages.bytes().as_ptr().addr().is_multiple_of(PAGE_BYTES));
        assert_eq!(pages.bytes()[5_099..5_101], [2, 0]);

        pages.keep_before(5_100);
        assert_eq!(pages.bytes(), [2; 5_100 - PAGE_BYTES]);
        pages.put(b"next");
        pages.pad_to(PAGE_BYTES);
        assert_eq!(pages.bytes()[1_003..1_010], *b"\x02next\0\0");

        // One that ends with its page leaves nothing.
        pages.keep_before(PAGE_BYTES);
        assert_eq!(pages.bytes(), b"");
        // What was large is given back, and what is kept of it is the same.
        pages.put(&vec![3; 3 * MOST_KEPT_BYTES + 7]);
        pages.keep_before(3 * MOST_KEPT_BYTES + 7);
        assert_eq!(pages.bytes(), [3; 7]);
        assert!(pages.memory.len() <= MOST_KEPT_BYTES);
        assert!(pages.bytes().as_ptr().addr().is_multiple_of(PAGE_BYTES));
        pages.clear();
        assert_eq!(pages.bytes(), b"");
        assert_eq!(Pages::zeros(PAGE_BYTES).bytes(), [0; PAGE_BYTES]);
    }
}
