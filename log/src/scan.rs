//! Finding out what a directory holds, without changing it. Headers and directories only: bodies are read for
//! the blocks that no later block vouches for, which is the last one.

mod hole;
mod segment;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use bytes::Bytes;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Chain, Mark};

use self::segment::SegmentScan;
pub(crate) use self::segment::peek;
use crate::catalog::{Catalog, Damages, Head, Segment, Stream, Streams, start_of};
use crate::error::{OpenError, ReadError};
use crate::format::FormatError;
use crate::format::block::{BLOCK_HEADER_BYTES, BLOCK_HEADER_LEN, BlockHeader, DirEntry, block_chain};
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::format::superblock::{SUPERBLOCK_BYTES, SUPERBLOCK_FILES, Superblock};
use crate::ids::{BlockChain, BlockNo, SegmentNo};
use crate::read::read_frame;
use crate::snapshot::Assembly;
use crate::storage::{Access, Storage, pread_exact};

/// What a directory holds.
pub(crate) struct Scan {
    pub(crate) catalog: Catalog,
    /// The newest superblock, and which of the two files it is in.
    pub(crate) superblock: Option<(usize, Superblock)>,
    pub(crate) tail: Tail,
    /// Names in the directory.
    pub(crate) names: Vec<String>,
}

/// The end of the last segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    /// Where the next block goes, bytes from the start of the segment.
    pub(crate) off: u32,
    /// The segment ends with a SEAL.
    pub(crate) sealed: bool,
    /// The frames of the last segment, offsets from its start.
    pub(crate) frames: Vec<DirEntry>,
    /// Where the SNAPSHOT blocks of the last segment start.
    pub(crate) snapshots: Vec<u32>,
    /// The last block is damaged, and only known by the superblock.
    pub(crate) lost_end: bool,
    /// Start and length of the last block, when the last segment has one.
    pub(crate) last_block: Option<(u32, usize)>,
    /// Blocks that were being written when the log stopped: from here on nothing was acknowledged.
    pub(crate) torn: Option<Torn>,
    /// Blocks read in the last segment and, where there is no SEAL, before.
    pub(crate) scanned: u64,
}

/// A torn end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) block: BlockNo,
    /// End of what may have been written, bytes from the start of the segment.
    pub(crate) end: u32,
}

/// How much a scan may take for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nobody writes: an invalid block must be told apart as torn or damaged.
    Stopped,
    /// Somebody may be writing right now: an invalid block is the end so far.
    Live,
}

/// What a scan does about durable blocks that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnHole {
    /// Fails.
    Refuse,
    /// Lists them and goes on behind.
    Skip,
}

/// Reads both superblocks; the newer valid one wins.
pub(crate) fn read_superblock(
    storage: &dyn Storage,
    dir: &Path,
    names: &[String],
) -> Result<Option<(usize, Superblock)>, OpenError> {
    let mut newest: Option<(usize, Superblock)> = None;
    for (n, name) in SUPERBLOCK_FILES.iter().enumerate() {
        if !names.iter().any(|found| found == name) {
            continue;
        }
        let path = dir.join(name);
        let file = storage
            .open(&path, Access::Read)
            .map_err(OpenError::io("open", &path))?;
        let mut buf = [0; SUPERBLOCK_BYTES];
        let read = file.pread(&mut buf, 0).map_err(OpenError::io("read", &path))?;
        match Superblock::decode(&buf[..read]) {
            Ok(found)
                if newest
                    .as_ref()
                    .is_none_or(|(_, best)| best.generation < found.generation) =>
            {
                newest = Some((n, found));
            }
            Ok(_) => {}
            // A later version's file must not be mistaken for a damaged one and overwritten.
            Err(err @ FormatError::Version(_)) => return Err(OpenError::format(path, 0, err)),
            Err(err) => tracing::warn!(file = %path.display(), error = %err, "superblock ignored"),
        }
    }
    Ok(newest)
}

/// Opens the segments in `names`, oldest first, and checks that none between is missing.
fn open_segments(
    storage: &dyn Storage,
    dir: &Path,
    names: &[String],
    access: Access,
) -> Result<VecDeque<Segment>, OpenError> {
    let mut segments: VecDeque<Segment> = VecDeque::new();
    for no in names.iter().filter_map(|name| SegmentNo::from_file_name(name)) {
        let path = dir.join(no.file_name());
        let file = storage
            .open(&path, access)
            .map_err(OpenError::io("open", &path))?;
        let mut buf = vec![0; SEGMENT_HEADER_BYTES];
        let read = file.pread(&mut buf, 0).map_err(OpenError::io("read", &path))?;
        let header = SegmentHeader::decode(&buf[..read]).map_err(|err| OpenError::format(&path, 0, err))?;
        let damaged = |reason: &str| OpenError::Damaged {
            path: path.clone(),
            offset: 0,
            reason: reason.to_owned(),
        };
        if header.segment_no != no {
            return Err(damaged(
                "the segment number in the file is not the one in its name",
            ));
        }
        let len = file.len().map_err(OpenError::io("read", &path))?;
        if len < header.segment_bytes {
            return Err(OpenError::Damaged {
                offset: len,
                reason: format!(
                    "the file has {len} bytes where {} were written: it was cut off",
                    header.segment_bytes
                ),
                path,
            });
        }
        if let Some(last) = segments.back() {
            let missing = SegmentNo(last.no().0 + 1);
            if no != missing {
                return Err(OpenError::MissingSegment {
                    dir: dir.to_owned(),
                    missing,
                });
            }
            if last.header.incarnation != header.incarnation || last.header.cluster != header.cluster {
                return Err(damaged("the segment belongs to another log than the one before"));
            }
            if header.first_block <= last.header.first_block {
                return Err(damaged(
                    "the first block's number is not above that of the segment before",
                ));
            }
        }
        segments.push_back(Segment::new(header, path, file));
    }
    Ok(segments)
}

/// Reads a directory. `Ok(None)`: there is no log in it.
pub(crate) fn scan(
    storage: Arc<dyn Storage>,
    dir: &Path,
    access: Access,
    mode: Mode,
    on_hole: OnHole,
) -> Result<Option<Scan>, OpenError> {
    let names = storage.list(dir).map_err(OpenError::io("list", dir))?;
    let superblock = read_superblock(storage.as_ref(), dir, &names)?;
    let segments = open_segments(storage.as_ref(), dir, &names, access)?;
    let witness = superblock
        .as_ref()
        .map_or(BlockNo::ZERO, |(_, superblock)| superblock.durable_block);
    let Some(last) = segments.back().map(|segment| segment.header.clone()) else {
        return match superblock {
            None => Ok(None),
            Some(_) => Err(OpenError::LostDurable {
                dir: dir.to_owned(),
                found: BlockNo::ZERO,
                witness,
            }),
        };
    };
    let clean = superblock
        .as_ref()
        .is_some_and(|(_, superblock)| superblock.clean);
    let mut streams = Streams::default();
    let mut tail = Tail::default();
    let mut assembly = Assembly::default();
    let mut damages = Damages::default();
    let nexts: Vec<Option<(BlockNo, u32)>> = segments
        .iter()
        .skip(1)
        .map(|next| Some((next.header.first_block, next.header.prev_seal_at)))
        .chain([None])
        .collect();
    for (n, (segment, next)) in segments.iter().zip(nexts).enumerate() {
        let mut reader = SegmentScan {
            segment,
            segments: &segments,
            streams: &mut streams,
            tail: &mut tail,
            assembly: &mut assembly,
            damages: &mut damages,
            until: next.map(|(end, _)| end),
            on_hole,
            witness,
            mode,
            clean,
        };
        match next {
            Some((end, seal_at)) => reader.finished(end, seal_at, n == 0)?,
            None => reader.last()?,
        }
        let end = if next.is_some() { u32::MAX } else { tail.off };
        segment.end.store(
            end.min(u32::try_from(segment.header.segment_bytes).unwrap_or(u32::MAX)),
            Release,
        );
    }
    let head = match (&superblock, tail.lost_end) {
        // The last block is known by its witness alone.
        (Some((_, superblock)), true) => Head {
            block: superblock.durable_block,
            chain: superblock.durable_chain,
        },
        _ => head_of(&segments, &tail, &last)?,
    };
    for stream in streams.iter() {
        if on_hole == OnHole::Skip {
            // A chain that was read wrong would be built upon.
            lose_end(&segments, stream, &mut damages)?;
        }
        finish_chain(&segments, stream)?;
    }
    let segments = segments.into_iter().map(Arc::new).collect();
    let catalog = Catalog::new(storage, dir, segments, streams, head, damages);
    Ok(Some(Scan {
        catalog,
        superblock,
        tail,
        names,
    }))
}

/// Reads a stream's last frame in full. Where it is damaged, the stream ends with the last frame, or snapshot, that
/// can be read; what comes after is listed.
fn lose_end(
    segments: &VecDeque<Segment>,
    stream: &Arc<Stream>,
    damages: &mut Damages,
) -> Result<(), OpenError> {
    let first = segments.front().map_or(0, |segment| segment.no().0);
    let mut state = stream.state();
    while let Some(frame) = state.frames.last().copied() {
        let segment = segments.get((frame.segment.0 - first) as usize);
        let Some(segment) = segment.filter(|_| frame.last() == state.durable.position) else {
            break;
        };
        if state
            .at(frame.last())
            .is_some_and(|at| at.is_ok_and(|mark| mark.chain != Chain::default()))
        {
            break; // A snapshot stands there.
        }
        match read_frame(segment, &stream.key, frame) {
            Ok(frame) => {
                state.durable = frame.mark();
                break;
            }
            Err(ReadError::Io { path, source }) => {
                let op = "read";
                return Err(OpenError::Io { op, path, source });
            }
            Err(_) => {}
        }
        state.frames.pop();
        state.bytes -= u64::from(frame.len);
        damages.suspects.insert(stream.slot);
        damages.add_frame(segment, &stream.key, frame);
        let before = state.frames.last().map(|frame| Mark {
            position: frame.last(),
            chain: Chain::default(),
        });
        let snapshot = state.newest_snapshot().map(|at| at.mark);
        let ends = before
            .into_iter()
            .chain(snapshot)
            .max_by_key(|mark| mark.position);
        state.durable = ends.unwrap_or_else(|| start_of(&stream.key));
    }
    Ok(())
}

/// Learns the chain of a stream's last frame.
fn finish_chain(segments: &VecDeque<Segment>, stream: &Arc<Stream>) -> Result<(), OpenError> {
    let mut state = stream.state();
    let last = state.frames.last().copied();
    let durable = state.durable.position;
    let known = state.durable.chain != Chain::default();
    let rebased = known
        || state
            .rebases
            .last()
            .is_some_and(|rebase| rebase.at.mark.position == durable);
    if let Some(last) = last.filter(|last| !rebased && last.last() == durable) {
        let first = segments.front().map_or(0, |segment| segment.no().0);
        if let Some(segment) = segments.get((last.segment.0 - first) as usize) {
            let (key, chain) = peek(segment, last.off, last.len)?;
            if key != stream.key {
                return Err(OpenError::Damaged {
                    path: segment.path.clone(),
                    offset: last.off.into(),
                    reason: format!("a frame of {key} where one of {} belongs", stream.key),
                });
            }
            state.durable.chain = chain;
        }
    }
    let durable: Mark = state.durable;
    state.accepted = durable;
    state.staged = durable.position;
    Ok(())
}

fn head_of(segments: &VecDeque<Segment>, tail: &Tail, last: &SegmentHeader) -> Result<Head, OpenError> {
    let block = BlockNo(last.first_block.0 - 1);
    let Some(segment) = segments.back() else {
        return Ok(Head {
            block,
            chain: last.prev_seg_chain,
        });
    };
    match tail.last_block {
        None if segment.block_count() > 0 => Err(OpenError::Damaged {
            path: segment.path.clone(),
            offset: 0,
            reason: "its last block cannot be read".to_owned(),
        }),
        None => Ok(Head {
            block,
            chain: last.prev_seg_chain,
        }),
        Some((off, len)) => Ok(Head {
            block: segment.last_block(),
            chain: chain_at(segment, off, len)?,
        }),
    }
}

/// The chain up to and including the block of `len` bytes at `off`.
pub(crate) fn chain_at(segment: &Segment, off: u32, len: usize) -> Result<BlockChain, OpenError> {
    let mut block = vec![0; len];
    pread_exact(&*segment.file, &mut block, off.into()).map_err(OpenError::io("read", &segment.path))?;
    let block = Bytes::from(block);
    let format = |err| OpenError::format(&segment.path, off.into(), err);
    let header = BlockHeader::decode(&block, segment.header.seed()).map_err(format)?;
    let (head, body) = block.split_at(BLOCK_HEADER_BYTES);
    let entries = header.directory(body, segment.header.seed()).map_err(format)?;
    let mut chains = Vec::with_capacity(entries.len());
    for entry in &entries {
        let at = BLOCK_HEADER_BYTES + entry.off as usize;
        // A wrong chain does not lead to the next block, nor to what the superblock saw.
        let frame = Frame::parse_trusted(block.slice(at..at + entry.len as usize)).map_err(|err| {
            OpenError::Damaged {
                path: segment.path.clone(),
                offset: (off + BLOCK_HEADER_LEN + entry.off).into(),
                reason: err.to_string(),
            }
        })?;
        chains.push(frame.chain().0);
    }
    let own = if entries.is_empty() {
        body
    } else {
        &body[..header.dir_len()]
    };
    Ok(block_chain(head, own, chains.into_iter()))
}

/// Where leftovers of an interrupted run are: files to remove, and used segments to write over.
pub(crate) fn leftovers(dir: &Path, names: &[String]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let with = |suffix: &str, prefix: &str| {
        let fits = |name: &&String| name.ends_with(suffix) && name.starts_with(prefix);
        names.iter().filter(fits).map(|name| dir.join(name)).collect()
    };
    (with(".tmp", ""), with(".ldg", "spare-"))
}
