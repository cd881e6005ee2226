//! A global allocator that wipes memory before it gives it back.
//!
//! HTTP, TLS and JSON buffers hold secret values for a moment and are freed by code that doesn't know
//! it. With this allocator a freed buffer can't be found in the heap afterwards.
//!
//! Invariant: `alloc_zeroed` stays lazy. fuser allocates 16 MiB a session by it; touching those pages
//! would cost 6.8 MB of resident memory for each mount.
#![expect(unsafe_code, reason = "a GlobalAlloc can't be written without it")]

use std::alloc::{GlobalAlloc, Layout, System};

/// Above this size glibc maps an allocation by itself (see [`crate::hardening::tune_allocator`]) and
/// unmaps it on free, so nothing remains to be read in this process; wiping it would only make
/// pages resident that were never touched.
const LARGEST_WIPED_BYTES: usize = 8 << 20;

/// Wipes on `dealloc`; everything else is the system's allocator.
pub struct WipingAllocator;

// SAFETY: every method hands the caller's layout unchanged to `System`, which upholds GlobalAlloc's
// contract; `dealloc` only writes inside the block that it is about to free. `realloc` is the trait's
// default: allocate, copy, wiping dealloc, so that a grown buffer leaves no copy behind.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is System's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() <= LARGEST_WIPED_BYTES {
            // SAFETY: `block` is valid for `layout.size()` bytes until it is freed below.
            unsafe { wipe(block, layout.size()) };
        }
        // SAFETY: the caller's contract is System's.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Zeroes a block in a way that the optimizer must keep although the block is freed next.
///
/// # Safety
/// `block` must be valid for writes of `len` bytes.
unsafe fn wipe(block: *mut u8, len: usize) {
    // SAFETY: the caller guarantees `len` writable bytes.
    unsafe { std::ptr::write_bytes(block, 0, len) };
    std::hint::black_box(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wiped_block_holds_only_zeroes() {
        let mut block = *b"canary-canary-canary";
        // SAFETY: `block` is a live local of that length.
        unsafe { wipe(block.as_mut_ptr(), block.len()) };
        assert_eq!(block, [0; 20]);
    }

    #[test]
    fn a_grown_block_keeps_its_content() {
        let old = Layout::array::<u8>(4).unwrap();
        // SAFETY: layouts are non-zero and each pointer is used with the layout it was made by.
        unsafe {
            let block = WipingAllocator.alloc(old);
            block.copy_from(b"abcd".as_ptr(), 4);
            let grown = WipingAllocator.realloc(block, old, 64);
            assert_eq!(std::slice::from_raw_parts(grown, 4), b"abcd");
            WipingAllocator.dealloc(grown, Layout::array::<u8>(64).unwrap());
        }
    }
}
