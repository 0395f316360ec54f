//! zstd with contexts that are kept: making one takes longer than compressing a small frame. A context holds memory
//! between uses, never content.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

const LEVEL: i32 = 1;

thread_local! {
    static PACK: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACK: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `payload`.
pub(super) fn pack(payload: &[u8]) -> io::Result<Vec<u8>> {
    PACK.with_borrow_mut(|context| match context {
        Some(context) => context.compress(payload),
        None => context.insert(Compressor::new(LEVEL)?).compress(payload),
    })
}

/// Decompresses what [`pack`] made, to at most `limit` bytes.
pub(super) fn unpack(packed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    UNPACK.with_borrow_mut(|context| match context {
        Some(context) => context.decompress(packed, limit),
        None => context.insert(Decompressor::new()?).decompress(packed, limit),
    })
}
