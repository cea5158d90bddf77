//! The allocator: mimalloc, asked the short way.
//!
//! The crate `mimalloc` asks for each allocation with its alignment. mimalloc 3 takes that for an order to align where the size is not a
//! power of two: it looks for a longer block, and frees what came of such pages the long way. Every block of it is aligned to a word, so
//! whatever needs no more, which is nearly everything, is asked for as C's `malloc` would.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

pub(crate) struct Allocator;

const fn fits_a_word(layout: Layout) -> bool {
    layout.align() <= align_of::<usize>()
}

// SAFETY: mimalloc gives blocks that overlap with none and are aligned to a word, or as asked for; it takes back what came from
// either way, and is as safe with threads as `malloc`. None of its functions unwinds.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and any power of two will do.
        unsafe {
            match fits_a_word(layout) {
                true => mi_malloc(layout.size()).cast(),
                false => mi_malloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            match fits_a_word(layout) {
                true => mi_zalloc(layout.size()).cast(),
                false => mi_zalloc_aligned(layout.size(), layout.align()).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller got it from here.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller got it from here, with this layout.
        unsafe {
            match fits_a_word(layout) {
                true => mi_realloc(block.cast(), size).cast(),
                false => mi_realloc_aligned(block.cast(), size, layout.align()).cast(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of many sizes are aligned, apart from each other, and keep what is in them when they move.
    #[test]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        for align in [1, 2, 8, 16, 64, 4_096] {
            let mut blocks = Vec::new();
            for size in (1..300).chain([1_000, 1_025, 4_097, 70_000, 3_000_000]) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let larger = Layout::from_size_align(size * 3, align).unwrap();
                // SAFETY: the layouts are not empty; each block is used with the one that it has.
                unsafe {
                    let zeros = Allocator.alloc_zeroed(layout);
                    assert!(!zeros.is_null() && zeros.addr().is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(zeros, size).iter().all(|b| *b == 0));
                    zeros.write_bytes(size as u8, size);
                    let moved = Allocator.realloc(zeros, layout, larger.size());
                    assert!(!moved.is_null() && moved.addr().is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(moved, size).iter().all(|b| *b == size as u8));
                    let other = Allocator.alloc(layout);
                    assert!(!other.is_null() && other.addr().is_multiple_of(align));
                    other.write_bytes(!(size as u8), size);
                    blocks.push((moved, larger, size));
                    Allocator.dealloc(other, layout);
                }
            }
            for (block, layout, size) in blocks {
                // SAFETY: as above.
                unsafe {
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|b| *b == size as u8));
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }
}
