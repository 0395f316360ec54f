//! Making frames: when a payload is compressed and how, and what goes around it.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::dictionary::{self, DictionaryId};
use super::{Codec, Frame, FrameError, TAG_CHAIN, TAG_CRC, TAIL, compress, link};
use crate::checksum::crc32c_of;
use crate::ids::{Chain, Epoch, Mark, Seq, StreamKey};
use crate::limits;
use crate::v1;

/// Frames of fewer records than this, and no more bytes, are compressed with a dictionary: it makes up for what they have
/// not said yet.
const DICTIONARY_BELOW_RECORDS: u32 = 64;
const DICTIONARY_MAX_BYTES: usize = 32 * 1024;
/// Without a dictionary, frames of fewer records and fewer bytes are not worth the attempt.
const COMPRESS_FROM_RECORDS: u32 = 8;
const COMPRESS_FROM_BYTES: usize = 1024;
/// What naming a dictionary takes in the header, bytes.
const DICTIONARY_FIELD: usize = 6;

/// Turns records of one stream into frames, each chained to the one before.
#[derive(Debug, Clone)]
pub struct FrameWriter {
    key: StreamKey,
    epoch: Epoch,
    next_seq: Seq,
    chain: Chain,
    dictionary: Option<DictionaryId>,
}

impl FrameWriter {
    /// A writer for a stream with nothing in it.
    pub fn new(key: StreamKey) -> Self {
        let chain = key.genesis_chain();
        FrameWriter {
            key,
            epoch: Epoch::FIRST,
            next_seq: Seq(1),
            chain,
            dictionary: Some(DictionaryId::V1),
        }
    }

    /// A writer that goes on after `mark`.
    pub fn resume(key: StreamKey, mark: Mark) -> Self {
        FrameWriter {
            key,
            epoch: mark.position.epoch,
            next_seq: mark.position.seq.next(),
            chain: mark.chain,
            dictionary: Some(DictionaryId::V1),
        }
    }

    /// Compresses small frames with another dictionary than [`DictionaryId::V1`], or with none. Everyone who will read
    /// the stream must have it: a frame that is written is never compressed again, since its chain covers what is stored.
    #[must_use]
    pub fn with_dictionary(mut self, dictionary: Option<DictionaryId>) -> Self {
        self.dictionary = dictionary;
        self
    }

    /// The stream it writes.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Sequence number the next record gets.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Chain of the last frame written.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// Makes a frame of `count` records, given as a payload built with [`super::push_record`].
    pub fn frame(&mut self, count: u32, payload: &[u8]) -> Result<Frame, FrameError> {
        if count == 0 || count > limits::FRAME_MAX_RECORDS {
            return Err(FrameError::Count(count as usize));
        }
        if payload.len() > limits::FRAME_MAX_RAW_BYTES {
            return Err(FrameError::TooLarge {
                len: payload.len(),
                limit: limits::FRAME_MAX_RAW_BYTES,
            });
        }
        let raw_len = u32::try_from(payload.len()).map_err(|_| FrameError::TooLarge {
            len: payload.len(),
            limit: limits::FRAME_MAX_RAW_BYTES,
        })?;
        let dictionary = self
            .dictionary
            .filter(|_| count < DICTIONARY_BELOW_RECORDS && payload.len() <= DICTIONARY_MAX_BYTES)
            .and_then(dictionary::find);
        let smaller = |codec, id: Option<DictionaryId>, packed: &[u8]| {
            let named = if id.is_some() { DICTIONARY_FIELD } else { 0 };
            (packed.len() + named < payload.len()).then(|| self.assemble(count, raw_len, codec, id, packed))
        };
        let packed = match dictionary {
            Some(dictionary) => compress::pack_with(dictionary, payload, |packed| {
                smaller(Codec::ZstdDictionary, Some(dictionary.id()), packed)
            }),
            None if count >= COMPRESS_FROM_RECORDS || payload.len() >= COMPRESS_FROM_BYTES => {
                compress::pack(payload, |packed| smaller(Codec::Zstd, None, packed))
            }
            None => Ok(None),
        };
        let frame = match packed.map_err(|err| FrameError::Payload(err.to_string()))? {
            Some(frame) => frame?,
            None => self.assemble(count, raw_len, Codec::Raw, None, payload)?,
        };
        self.next_seq = frame.last_seq().next();
        self.chain = frame.chain;
        Ok(frame)
    }

    /// The next frame, around a payload that is compressed already.
    pub(super) fn assemble(
        &self,
        count: u32,
        raw_len: u32,
        codec: Codec,
        dictionary: Option<DictionaryId>,
        stored: &[u8],
    ) -> Result<Frame, FrameError> {
        let header = v1::FrameHeader {
            scope: self.key.id.scope.as_wire().to_owned(),
            lane: self.key.id.lane.as_wire(),
            incarnation: Bytes::copy_from_slice(&self.key.incarnation.0),
            epoch: self.epoch.0,
            first_seq: self.next_seq.0,
            count,
            raw_len,
            codec: codec as u32,
            dict_id: dictionary.map_or(0, DictionaryId::as_wire),
            chain: Bytes::new(),
            crc32c: 0,
        };
        // Chain and CRC are empty here, so protobuf leaves them out; they are appended by hand, in tag order.
        let header_len = header.encoded_len() + TAIL;
        let mut out = Vec::with_capacity(encoded_len_varint(header_len as u64) + header_len + stored.len());
        encode_varint(header_len as u64, &mut out);
        header
            .encode(&mut out)
            .map_err(|err| FrameError::Header(err.to_string()))?;
        let chain = link(self.chain, &out, stored);
        out.extend_from_slice(&TAG_CHAIN);
        out.extend_from_slice(&chain.0);
        let crc = crc32c_of(&[&out, stored]);
        out.push(TAG_CRC);
        out.extend_from_slice(&crc.to_le_bytes());
        let payload_at = out.len();
        out.extend_from_slice(stored);
        if out.len() > limits::FRAME_MAX_BYTES {
            return Err(FrameError::TooLarge {
                len: out.len(),
                limit: limits::FRAME_MAX_BYTES,
            });
        }
        Ok(Frame {
            bytes: Bytes::from(out),
            payload_at,
            key: self.key.clone(),
            epoch: self.epoch,
            first_seq: self.next_seq,
            count,
            raw_len: raw_len as usize,
            codec,
            dictionary,
            chain,
        })
    }
}
