//! zstd with contexts that are kept: making one takes longer than compressing a small frame. A context holds memory
//! between uses, never content that matters. Each thread has at most one of each kind and one buffer, which is given
//! back when it has become large.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::dictionary::{Dictionary, DictionaryId};

/// Level without a dictionary.
const LEVEL: i32 = 1;
/// Level with a dictionary: 5 % smaller than level 1, for a fifth more time on frames that are small anyway.
pub(super) const LEVEL_DICTIONARY: i32 = 3;

/// What every zstd frame begins with. Frames with a dictionary are small, and are stored without it.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A buffer larger than this is not kept.
const KEEP_BYTES: usize = 512 * 1024;

/// A context, and the dictionary it was last set up for.
struct Kept<C> {
    context: C,
    dictionary: DictionaryId,
}

thread_local! {
    static PLAIN: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static WITH: RefCell<Option<Kept<Compressor<'static>>>> = const { RefCell::new(None) };
    static UNPACK: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static UNPACK_WITH: RefCell<Option<Kept<Decompressor<'static>>>> = const { RefCell::new(None) };
    /// Where frames are compressed to, and put together again before they are decompressed.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `with` a buffer in which `payload` is compressed by `compress`.
fn in_buffer<T>(
    payload: &[u8],
    compress: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    with: impl FnOnce(&[u8]) -> T,
) -> io::Result<T> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        buffer.reserve(zstd::zstd_safe::compress_bound(payload.len()));
        let result = compress(buffer).map(|_| with(buffer));
        if buffer.capacity() > KEEP_BYTES {
            *buffer = Vec::new();
        }
        result
    })
}

/// Compresses `payload` without a dictionary, and hands the result to `with`.
pub(super) fn pack<T>(payload: &[u8], with: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    PLAIN.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(Compressor::new(LEVEL)?),
        };
        in_buffer(payload, |out| context.compress_to_buffer(payload, out), with)
    })
}

/// Compresses `payload` with a dictionary, and hands the result to `with`.
pub(super) fn pack_with<T>(
    dictionary: &'static Dictionary,
    payload: &[u8],
    with: impl FnOnce(&[u8]) -> T,
) -> io::Result<T> {
    WITH.with_borrow_mut(|kept| {
        let kept = match kept {
            Some(kept) => kept,
            None => {
                let mut context = Compressor::with_prepared_dictionary(dictionary.encoder())?;
                // The frame's header names it: four bytes less.
                context.include_dictid(false)?;
                kept.insert(Kept {
                    context,
                    dictionary: dictionary.id(),
                })
            }
        };
        if kept.dictionary != dictionary.id() {
            kept.context.set_prepared_dictionary(dictionary.encoder())?;
            kept.dictionary = dictionary.id();
        }
        in_buffer(
            payload,
            |out| kept.context.compress_to_buffer(payload, out),
            |packed| with(packed.strip_prefix(&MAGIC).unwrap_or(packed)),
        )
    })
}

/// Decompresses what [`pack`] made, to at most `limit` bytes.
pub(super) fn unpack(packed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    UNPACK.with_borrow_mut(|context| match context {
        Some(context) => context.decompress(packed, limit),
        None => context.insert(Decompressor::new()?).decompress(packed, limit),
    })
}

/// Decompresses what [`pack_with`] made with the same dictionary, to at most `limit` bytes.
pub(super) fn unpack_with(
    dictionary: &'static Dictionary,
    packed: &[u8],
    limit: usize,
) -> io::Result<Vec<u8>> {
    UNPACK_WITH.with_borrow_mut(|kept| {
        let kept = match kept {
            Some(kept) => kept,
            None => kept.insert(Kept {
                context: Decompressor::with_prepared_dictionary(dictionary.decoder())?,
                dictionary: dictionary.id(),
            }),
        };
        if kept.dictionary != dictionary.id() {
            kept.context.set_prepared_dictionary(dictionary.decoder())?;
            kept.dictionary = dictionary.id();
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.extend_from_slice(&MAGIC);
            buffer.extend_from_slice(packed);
            let raw = kept.context.decompress(buffer, limit);
            if buffer.capacity() > KEEP_BYTES {
                *buffer = Vec::new();
            }
            raw
        })
    })
}
