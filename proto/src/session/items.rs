//! What travels on a lane: a 4-byte big-endian length, then a frame; with the length's top bit set, a part of a
//! snapshot.

use bytes::{Buf, Bytes};
use prost::Message;

use crate::limits;
use crate::v1;

/// Set in a length that announces a part of a snapshot.
const SNAPSHOT: u32 = 1 << 31;

/// Why an item was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// Longer than allowed.
    #[error("an item of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its length.
        len: usize,
        /// Largest length allowed.
        limit: usize,
    },
    /// Announced as a part of a snapshot, and is none.
    #[error("not a part of a snapshot: {0}")]
    Part(String),
    /// The lane ended in the middle.
    #[error("it ended in the middle of an item")]
    CutOff,
}

/// One item of a lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A frame, not yet parsed.
    Frame(Bytes),
    /// A part of a snapshot, and its length on the wire.
    Snapshot(v1::Snapshot, usize),
}

/// What is written before a frame of `len` bytes.
///
/// # Errors
/// [`ItemError::TooLarge`].
pub fn frame_prefix(len: usize) -> Result<[u8; 4], ItemError> {
    Ok(prefix(len, limits::FRAME_MAX_BYTES)?.to_be_bytes())
}

/// What is written before a part of a snapshot of `len` bytes.
///
/// # Errors
/// [`ItemError::TooLarge`].
pub fn part_prefix(len: usize) -> Result<[u8; 4], ItemError> {
    Ok((prefix(len, limits::SNAPSHOT_PART_WIRE_MAX_BYTES)? | SNAPSHOT).to_be_bytes())
}

/// The length as written before an item, the top bit free.
fn prefix(len: usize, limit: usize) -> Result<u32, ItemError> {
    u32::try_from(len)
        .ok()
        .filter(|_| len <= limit)
        .ok_or(ItemError::TooLarge { len, limit })
}

/// Puts items together out of what arrives, in pieces of any size, with a single copy.
#[derive(Debug, Default)]
pub struct ItemReader {
    prefix: Vec<u8>,
    /// Length of the item that is being put together, and whether it is a part of a snapshot.
    announced: Option<(usize, bool)>,
    body: Vec<u8>,
}

impl ItemReader {
    /// Takes of `piece` what belongs to the next item; the item once it is whole. What is left of the piece belongs to
    /// later ones.
    ///
    /// # Errors
    /// See [`ItemError`]; a length is checked before anything is allocated for it.
    pub fn take(&mut self, piece: &mut Bytes) -> Result<Option<Item>, ItemError> {
        let (len, snapshot) = match self.announced {
            Some(announced) => announced,
            None => {
                move_to(&mut self.prefix, 4, piece);
                let Ok(prefix) = <[u8; 4]>::try_from(self.prefix.as_slice()) else {
                    return Ok(None);
                };
                let announced = announced(u32::from_be_bytes(prefix))?;
                self.body.reserve_exact(announced.0);
                self.announced = Some(announced);
                announced
            }
        };
        move_to(&mut self.body, len, piece);
        if self.body.len() < len {
            return Ok(None);
        }
        self.announced = None;
        self.prefix.clear();
        let body = Bytes::from(std::mem::take(&mut self.body));
        Ok(Some(if snapshot {
            let part = v1::Snapshot::decode(body).map_err(|err| ItemError::Part(err.to_string()))?;
            Item::Snapshot(part, 4 + len)
        } else {
            Item::Frame(body)
        }))
    }

    /// The lane has ended.
    ///
    /// # Errors
    /// [`ItemError::CutOff`] in the middle of an item.
    pub fn end(&self) -> Result<(), ItemError> {
        if self.prefix.is_empty() {
            Ok(())
        } else {
            Err(ItemError::CutOff)
        }
    }
}

fn announced(prefix: u32) -> Result<(usize, bool), ItemError> {
    let snapshot = prefix & SNAPSHOT != 0;
    let limit = if snapshot {
        limits::SNAPSHOT_PART_WIRE_MAX_BYTES
    } else {
        limits::FRAME_MAX_BYTES
    };
    let len = usize::try_from(prefix & !SNAPSHOT).unwrap_or(usize::MAX);
    if len > limit {
        return Err(ItemError::TooLarge { len, limit });
    }
    Ok((len, snapshot))
}

/// Moves from `piece` until `into` has `len` bytes.
fn move_to(into: &mut Vec<u8>, len: usize, piece: &mut Bytes) {
    let n = piece.len().min(len.saturating_sub(into.len()));
    into.extend_from_slice(&piece[..n]);
    piece.advance(n);
}
