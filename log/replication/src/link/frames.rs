//! Frames off a QUIC stream: a 4-byte big-endian length, then the frame.

use bytes::{Buf, Bytes};
use ledge_proto::frame::FrameError;
use ledge_proto::limits;
use quinn::RecvStream;

use super::LinkError;

/// Chunks taken from quinn at once. A chunk is what one packet carried, so a frame is many of them, and taking them
/// one by one would lock the connection for each.
const CHUNKS: usize = 64;

/// A stream of frames. Each is gathered into one piece with a single copy.
pub(super) struct FrameStream {
    stream: RecvStream,
    chunks: Vec<Bytes>,
    /// Chunks before this one are used up.
    at: usize,
}

impl FrameStream {
    pub(super) fn new(stream: RecvStream) -> Self {
        FrameStream {
            stream,
            chunks: Vec::new(),
            at: 0,
        }
    }

    /// The next frame's bytes, or `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        let mut prefix = Vec::with_capacity(4);
        self.take(4, &mut prefix).await?;
        if prefix.is_empty() {
            return Ok(None);
        }
        let prefix: [u8; 4] = prefix.try_into().map_err(|_| cut_off())?;
        let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if len > limits::FRAME_MAX_BYTES {
            return Err(FrameError::TooLarge {
                len,
                limit: limits::FRAME_MAX_BYTES,
            }
            .into());
        }
        let mut body = Vec::with_capacity(len);
        self.take(len, &mut body).await?;
        if body.len() < len {
            return Err(cut_off());
        }
        Ok(Some(body.into()))
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
    LinkError::Stream("it ended in the middle of a frame".to_owned())
}
