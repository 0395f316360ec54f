//! Frames: encoded, compressed and chained once by the writer, then stored, sent and stored again as the same
//! bytes. The layout is described in `docs/format/frame.md`.
//!
//! Reading order: [`Frame`] (this file), `writer`, `dictionary`, `compress`.

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::decode_varint;

use crate::checksum::crc32c_of;
use crate::ids::{
    Chain, Epoch, Incarnation, Mark, NameError, Position, Scope, Seq, StreamId, StreamKey, truncate16,
};
use crate::limits;
use crate::v1;

mod compress;
mod dictionary;
mod writer;

pub use dictionary::{DICTIONARY_V1, DictionaryId, known_dictionaries};
pub use writer::FrameWriter;

/// Length of the two closing fields of a header: chain (tag, length, 16 bytes) and CRC (tag, 4 bytes).
const TAIL: usize = 2 + 16 + 1 + 4;
const TAG_CHAIN: [u8; 2] = [(14 << 3) | 2, 16];
const TAG_CRC: u8 = (15 << 3) | 5;

/// How a frame's payload is compressed. Persisted: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    Raw = 0,
    /// zstd (RFC 8878), no dictionary.
    Zstd = 1,
    /// zstd with the dictionary the header names, without zstd's four magic bytes.
    ZstdDictionary = 2,
}

/// Why bytes are not a frame, or not the next frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than the format allows.
    #[error("frame of {len} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Ends too early, or a field is missing or out of place.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// The header is not the expected protobuf message.
    #[error("malformed frame header: {0}")]
    Header(String),
    /// A stream or id in the header is not valid.
    #[error("frame header: {0}")]
    Name(#[from] NameError),
    /// Its checksum does not match: damaged on disk or on the way.
    #[error("checksum of frame {stream} seq {first_seq} does not match: the bytes are damaged")]
    Checksum {
        /// The stream it says it belongs to.
        stream: StreamId,
        /// The first sequence number it says it has.
        first_seq: Seq,
    },
    /// It does not follow the frame before it.
    #[error("frame {stream} seq {first_seq} does not continue the chain: history differs from here on")]
    ChainBroken {
        /// The stream.
        stream: StreamId,
        /// Its first sequence number.
        first_seq: Seq,
    },
    /// A codec this version does not know.
    #[error("frame codec {0} is unknown to this version: upgrade to read it")]
    Codec(u32),
    /// It was compressed with a dictionary this version does not have. The frame is whole: its chain can be followed and
    /// it can be kept, but not read, so a receiver takes no such frame.
    #[error(
        "frame was compressed with dictionary {id}, which this version does not have: upgrade to read it"
    )]
    UnknownDictionary {
        /// The dictionary.
        id: DictionaryId,
    },
    /// The payload cannot be decompressed to what the header says.
    #[error("frame payload: {0}")]
    Payload(String),
    /// A record in it cannot be read.
    #[error("record {seq} of {stream}: {reason}")]
    Record {
        /// The stream.
        stream: StreamId,
        /// Its sequence number.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// No records, or more than the format allows.
    #[error("frame with {0} records: between 1 and {max} are allowed", max = limits::FRAME_MAX_RECORDS)]
    Count(usize),
}

/// One frame: its bytes and what its header says. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    bytes: Bytes,
    payload_at: usize,
    key: StreamKey,
    epoch: Epoch,
    first_seq: Seq,
    count: u32,
    raw_len: usize,
    codec: Codec,
    dictionary: Option<DictionaryId>,
    chain: Chain,
}

impl Frame {
    /// Reads a frame that fills `bytes` and checks its limits and checksum, but not its chain
    /// (see [`Frame::follows`]). The bytes are shared, not copied.
    pub fn parse(bytes: Bytes) -> Result<Frame, FrameError> {
        let frame = Frame::parse_trusted(bytes)?;
        let (head, rest) = frame.bytes.split_at(frame.payload_at - 5);
        let (crc, payload) = rest.split_at(5);
        let Ok(stored) = <[u8; 4]>::try_from(&crc[1..]) else {
            return Err(FrameError::Malformed("the checksum is cut off"));
        };
        // The length prefix is covered too: it is the first thing a reader acts on.
        if crc32c_of(&[head, payload]) != u32::from_le_bytes(stored) {
            return Err(FrameError::Checksum {
                stream: frame.key.id,
                first_seq: frame.first_seq,
            });
        }
        Ok(frame)
    }

    /// As [`Frame::parse`], without computing the checksum: for bytes whose block was just checked.
    pub fn parse_trusted(bytes: Bytes) -> Result<Frame, FrameError> {
        if bytes.len() > limits::FRAME_MAX_BYTES {
            return Err(FrameError::TooLarge {
                len: bytes.len(),
                limit: limits::FRAME_MAX_BYTES,
            });
        }
        let mut cursor = &bytes[..];
        let header_len = decode_varint(&mut cursor)
            .map_err(|_| FrameError::Malformed("the header's length is cut off"))?;
        let header_len = usize::try_from(header_len).unwrap_or(usize::MAX);
        if header_len > limits::FRAME_HEADER_MAX_BYTES {
            return Err(FrameError::Malformed(
                "the header is longer than the format allows",
            ));
        }
        if cursor.len() < header_len {
            return Err(FrameError::Malformed("the header is cut off"));
        }
        if header_len < TAIL {
            return Err(FrameError::Malformed("the header is too short"));
        }
        let payload_at = bytes.len() - cursor.len() + header_len;
        let tail = &bytes[payload_at - TAIL..payload_at];
        if tail[..2] != TAG_CHAIN || tail[18] != TAG_CRC {
            return Err(FrameError::Malformed(
                "the header does not end with chain and checksum",
            ));
        }
        let header = v1::FrameHeader::decode(&cursor[..header_len])
            .map_err(|err| FrameError::Header(err.to_string()))?;
        let codec = match header.codec {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            2 => Codec::ZstdDictionary,
            other => return Err(FrameError::Codec(other)),
        };
        let dictionary = DictionaryId::from_wire(header.dict_id);
        if dictionary.is_some() != (codec == Codec::ZstdDictionary) {
            return Err(FrameError::Malformed("the dictionary does not go with the codec"));
        }
        if header.count == 0 || header.count > limits::FRAME_MAX_RECORDS {
            return Err(FrameError::Count(header.count as usize));
        }
        if header.first_seq == 0 || header.first_seq.checked_add(u64::from(header.count)).is_none() {
            return Err(FrameError::Malformed("a sequence number is out of range"));
        }
        if header.epoch == 0 {
            return Err(FrameError::Malformed("epoch 0"));
        }
        let raw_len = header.raw_len as usize;
        if raw_len > limits::FRAME_MAX_RAW_BYTES {
            return Err(FrameError::TooLarge {
                len: raw_len,
                limit: limits::FRAME_MAX_RAW_BYTES,
            });
        }
        if codec == Codec::Raw && raw_len != bytes.len() - payload_at {
            return Err(FrameError::Malformed(
                "the payload's length differs from the header's",
            ));
        }
        let key = StreamKey {
            id: StreamId::new(
                Scope::from_wire(&header.scope)?,
                crate::ids::Lane::from_wire(header.lane)?,
            ),
            incarnation: Incarnation::from_slice(&header.incarnation)?,
        };
        Ok(Frame {
            payload_at,
            key,
            epoch: Epoch(header.epoch),
            first_seq: Seq(header.first_seq),
            count: header.count,
            raw_len,
            codec,
            dictionary,
            chain: Chain::from_slice(&header.chain)?,
            bytes,
        })
    }

    /// Checks that this frame continues the one whose chain is `previous`.
    pub fn follows(&self, previous: Chain) -> Result<(), FrameError> {
        let prefix = &self.bytes[..self.payload_at - TAIL];
        if link(previous, prefix, &self.bytes[self.payload_at..]) == self.chain {
            Ok(())
        } else {
            Err(FrameError::ChainBroken {
                stream: self.key.id.clone(),
                first_seq: self.first_seq,
            })
        }
    }

    /// The frame as it is stored and sent.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The stream and incarnation it belongs to.
    pub fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Epoch of all its records.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Sequence number of its first record.
    pub fn first_seq(&self) -> Seq {
        self.first_seq
    }

    /// Sequence number of its last record.
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }

    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Length of the payload before compression, bytes.
    pub fn raw_len(&self) -> usize {
        self.raw_len
    }

    /// How the payload is compressed.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The dictionary its payload was compressed with, if any.
    pub fn dictionary(&self) -> Option<DictionaryId> {
        self.dictionary
    }

    /// Checks that its payload can be decompressed here. A receiver asks before it takes a frame.
    ///
    /// # Errors
    /// [`FrameError::UnknownDictionary`].
    pub fn check_dictionary(&self) -> Result<(), FrameError> {
        match self.dictionary {
            Some(id) if !id.is_known() => Err(FrameError::UnknownDictionary { id }),
            _ => Ok(()),
        }
    }

    /// The chain up to and including this frame.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// Its end.
    pub fn mark(&self) -> Mark {
        Mark {
            position: Position {
                epoch: self.epoch,
                seq: self.last_seq(),
            },
            chain: self.chain,
        }
    }

    /// The payload, decompressed: length-delimited records.
    pub fn payload(&self) -> Result<Bytes, FrameError> {
        let stored = self.bytes.slice(self.payload_at..);
        let raw = match (self.codec, self.dictionary) {
            (Codec::Raw, _) => return Ok(stored),
            (Codec::ZstdDictionary, Some(id)) => {
                let dictionary = dictionary::find(id).ok_or(FrameError::UnknownDictionary { id })?;
                compress::unpack_with(dictionary, &stored, self.raw_len)
            }
            (Codec::Zstd | Codec::ZstdDictionary, _) => compress::unpack(&stored, self.raw_len),
        };
        let raw = raw.map_err(|err| FrameError::Payload(err.to_string()))?;
        if raw.len() != self.raw_len {
            return Err(FrameError::Payload(format!(
                "{} bytes after decompression, the header says {}",
                raw.len(),
                self.raw_len
            )));
        }
        Ok(Bytes::from(raw))
    }

    /// Its records with their positions, in order.
    pub fn records(&self) -> Result<Records, FrameError> {
        Ok(Records {
            stream: self.key.id.clone(),
            epoch: self.epoch,
            next: self.first_seq,
            left: self.count,
            payload: self.payload()?,
        })
    }
}

/// The records of a frame. Ends after the first error.
#[derive(Debug)]
pub struct Records {
    stream: StreamId,
    epoch: Epoch,
    next: Seq,
    left: u32,
    payload: Bytes,
}

impl Records {
    fn read(&mut self) -> Result<v1::Record, String> {
        let len = decode_varint(&mut self.payload).map_err(|err| err.to_string())?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > limits::RECORD_MAX_BYTES {
            return Err(format!(
                "{len} bytes is over the limit of {} bytes",
                limits::RECORD_MAX_BYTES
            ));
        }
        if len > self.payload.remaining() {
            return Err("it is cut off".to_owned());
        }
        v1::Record::decode(self.payload.split_to(len)).map_err(|err| err.to_string())
    }
}

impl Iterator for Records {
    type Item = Result<(Position, v1::Record), FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let seq = self.next;
        match self.read() {
            Ok(record) => {
                self.left -= 1;
                self.next = seq.next();
                if self.left == 0 && self.payload.has_remaining() {
                    return Some(Err(FrameError::Record {
                        stream: self.stream.clone(),
                        seq,
                        reason: format!("{} bytes follow the last record", self.payload.remaining()),
                    }));
                }
                Some(Ok((
                    Position {
                        epoch: self.epoch,
                        seq,
                    },
                    record,
                )))
            }
            Err(reason) => {
                self.left = 0;
                Some(Err(FrameError::Record {
                    stream: self.stream.clone(),
                    seq,
                    reason,
                }))
            }
        }
    }
}

/// BLAKE3(previous chain | header up to the chain | BLAKE3(payload)), first 16 bytes. The payload is hashed by itself
/// so that it begins at the root of BLAKE3's tree, where many of its chunks are hashed at once.
fn link(previous: Chain, prefix: &[u8], payload: &[u8]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.0);
    hasher.update(prefix);
    hasher.update(blake3::hash(payload).as_bytes());
    Chain(truncate16(&hasher))
}

/// Appends one record to a payload under construction. The payload of a frame is nothing else.
pub fn push_record(payload: &mut Vec<u8>, record: &v1::Record) {
    record.encode_length_delimited(payload).ok(); // A Vec has room for any length.
}

#[cfg(test)]
mod tests;
