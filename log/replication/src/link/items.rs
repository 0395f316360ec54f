//! What travels on a lane: a 4-byte big-endian length, then a frame; with the length's top bit set, a part of a
//! snapshot.

use bytes::{Buf, Bytes};
use ledge_proto::frame::FrameError;
use ledge_proto::{limits, v1};
use prost::Message;
use quinn::{RecvStream, SendStream};

use super::LinkError;
use super::drain::Drain;

/// Set in a length that announces a part of a snapshot.
const SNAPSHOT: u32 = 1 << 31;
/// Chunks taken from quinn at once. A chunk is what one packet carried, so a frame is many of them, and taking them
/// one by one would lock the connection for each.
const CHUNKS: usize = 64;

/// One item of a lane.
pub(super) enum Item {
    /// A frame, not yet parsed.
    Frame(Bytes),
    /// A part of a snapshot, and its length on the wire.
    Snapshot(v1::Snapshot, usize),
}

/// Writes a frame, as fast as `drain` lets it where there is one; returns its bytes on the wire.
pub(super) async fn write_frame(
    stream: &mut SendStream,
    frame: Bytes,
    drain: Option<&Drain>,
) -> Result<u64, LinkError> {
    let len = prefix(frame.len(), limits::FRAME_MAX_BYTES)?;
    let Some(drain) = drain else {
        return write(stream, len, frame).await;
    };
    let bytes = 4 + frame.len() as u64;
    let mut first = [Bytes::copy_from_slice(&len.to_be_bytes()), frame];
    let piece = drain.piece().unwrap_or(usize::MAX);
    let mut prefix = 4;
    while !first[1].is_empty() {
        let n = piece.saturating_sub(prefix).clamp(1, first[1].len());
        drain.allow(prefix + n).await;
        let rest = first[1].split_off(n);
        stream
            .write_all_chunks(&mut first)
            .await
            .map_err(|err| LinkError::Stream(err.to_string()))?;
        first = [Bytes::new(), rest];
        prefix = 0;
    }
    Ok(bytes)
}

/// Writes a part of a snapshot; returns its bytes on the wire.
pub(super) async fn write_part(stream: &mut SendStream, part: &v1::Snapshot) -> Result<u64, LinkError> {
    let len = prefix(part.encoded_len(), limits::SNAPSHOT_PART_WIRE_MAX_BYTES)? | SNAPSHOT;
    write(stream, len, part.encode_to_vec().into()).await
}

async fn write(stream: &mut SendStream, prefix: u32, body: Bytes) -> Result<u64, LinkError> {
    let bytes = 4 + body.len() as u64;
    stream
        .write_all_chunks(&mut [Bytes::copy_from_slice(&prefix.to_be_bytes()), body])
        .await
        .map_err(|err| LinkError::Stream(err.to_string()))?;
    Ok(bytes)
}

/// The length as written before an item, the top bit free.
fn prefix(len: usize, limit: usize) -> Result<u32, LinkError> {
    u32::try_from(len)
        .ok()
        .filter(|_| len <= limit)
        .ok_or_else(|| too_large(len, limit))
}

fn too_large(len: usize, limit: usize) -> LinkError {
    FrameError::TooLarge { len, limit }.into()
}

/// A stream of items. Each is gathered into one piece with a single copy.
pub(super) struct ItemStream {
    stream: RecvStream,
    chunks: Vec<Bytes>,
    /// Chunks before this one are used up.
    at: usize,
}

impl ItemStream {
    pub(super) fn new(stream: RecvStream) -> Self {
        ItemStream {
            stream,
            chunks: Vec::new(),
            at: 0,
        }
    }

    /// The next item, or `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, LinkError> {
        let mut prefix = Vec::with_capacity(4);
        self.take(4, &mut prefix).await?;
        if prefix.is_empty() {
            return Ok(None);
        }
        let prefix = u32::from_be_bytes(prefix.try_into().map_err(|_| cut_off())?);
        let snapshot = prefix & SNAPSHOT != 0;
        let limit = if snapshot {
            limits::SNAPSHOT_PART_WIRE_MAX_BYTES
        } else {
            limits::FRAME_MAX_BYTES
        };
        let len = usize::try_from(prefix & !SNAPSHOT).unwrap_or(usize::MAX);
        if len > limit {
            return Err(too_large(len, limit));
        }
        let mut body = Vec::with_capacity(len);
        self.take(len, &mut body).await?;
        if body.len() < len {
            return Err(cut_off());
        }
        Ok(Some(if snapshot {
            let part = v1::Snapshot::decode(Bytes::from(body))
                .map_err(|err| LinkError::Stream(format!("not a part of a snapshot: {err}")))?;
            Item::Snapshot(part, 4 + len)
        } else {
            Item::Frame(body.into())
        }))
    }

    /// Moves `len` bytes to `into`; fewer at the end of the stream.
    async fn take(&mut self, len: usize, into: &mut Vec<u8>) -> Result<(), LinkError> {
        while into.len() < len {
            let Some(chunk) = self.chunks.get_mut(self.at) else {
                self.chunks.resize(CHUNKS, Bytes::new());
                self.at = 0;
                let read = self.stream.read_chunks(&mut self.chunks).await;
                let read = read.map_err(|err| LinkError::Stream(err.to_string()))?;
                self.chunks.truncate(read.unwrap_or(0));
                if self.chunks.is_empty() {
                    return Ok(());
                }
                continue;
            };
            let part = chunk.len().min(len - into.len());
            into.extend_from_slice(&chunk[..part]);
            chunk.advance(part);
            if chunk.is_empty() {
                self.at += 1;
            }
        }
        Ok(())
    }
}

fn cut_off() -> LinkError {
    LinkError::Stream("it ended in the middle of an item".to_owned())
}
