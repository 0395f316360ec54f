//! Items of a lane ([`ledge_proto::session::items`]) on a QUIC stream.

use bytes::Bytes;
use ledge_proto::frame::FrameError;
use ledge_proto::session::items::{Item, ItemError, ItemReader, frame_prefix, part_prefix};
use ledge_proto::v1;
use prost::Message;
use quinn::{RecvStream, SendStream};

use super::LinkError;
use super::drain::Drain;

/// Chunks taken from quinn at once. A chunk is what one packet carried, so a frame is many of them, and taking them
/// one by one would lock the connection for each.
const CHUNKS: usize = 64;

/// Writes a frame, as fast as `drain` lets it where there is one; returns its bytes on the wire.
pub(super) async fn write_frame(
    stream: &mut SendStream,
    frame: Bytes,
    drain: Option<&Drain>,
) -> Result<u64, LinkError> {
    let len = frame_prefix(frame.len())?;
    let Some(drain) = drain else {
        return write(stream, len, frame).await;
    };
    let bytes = 4 + frame.len() as u64;
    let mut first = [Bytes::copy_from_slice(&len), frame];
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
    let len = part_prefix(part.encoded_len())?;
    write(stream, len, part.encode_to_vec().into()).await
}

async fn write(stream: &mut SendStream, prefix: [u8; 4], body: Bytes) -> Result<u64, LinkError> {
    let bytes = 4 + body.len() as u64;
    stream
        .write_all_chunks(&mut [Bytes::copy_from_slice(&prefix), body])
        .await
        .map_err(|err| LinkError::Stream(err.to_string()))?;
    Ok(bytes)
}

impl From<ItemError> for LinkError {
    fn from(err: ItemError) -> Self {
        match err {
            ItemError::TooLarge { len, limit } => FrameError::TooLarge { len, limit }.into(),
            ItemError::Part(_) | ItemError::CutOff => LinkError::Stream(err.to_string()),
        }
    }
}

/// A stream of items. Each is gathered into one piece with a single copy.
pub(super) struct ItemStream {
    stream: RecvStream,
    reader: ItemReader,
    chunks: Vec<Bytes>,
    /// Chunks before this one are used up.
    at: usize,
}

impl ItemStream {
    pub(super) fn new(stream: RecvStream) -> Self {
        ItemStream {
            stream,
            reader: ItemReader::default(),
            chunks: Vec::new(),
            at: 0,
        }
    }

    /// The next item, or `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, LinkError> {
        loop {
            while let Some(chunk) = self.chunks.get_mut(self.at) {
                let item = self.reader.take(chunk)?;
                if chunk.is_empty() {
                    self.at += 1;
                }
                if item.is_some() {
                    return Ok(item);
                }
            }
            self.chunks.resize(CHUNKS, Bytes::new());
            self.at = 0;
            let read = self.stream.read_chunks(&mut self.chunks).await;
            let read = read.map_err(|err| LinkError::Stream(err.to_string()))?;
            self.chunks.truncate(read.unwrap_or(0));
            if self.chunks.is_empty() {
                self.reader.end()?;
                return Ok(None);
            }
        }
    }
}
