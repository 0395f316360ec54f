//! Snapshots: appending them, finding and reading what is held.

use std::sync::Arc;

use ledge_proto::ids::StreamKey;
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;
use tokio::sync::oneshot;

use super::Log;
use super::wait::block_on;
use crate::catalog::Catalog;
use crate::error::{AppendError, ReadError};
use crate::ids::BlockNo;
use crate::read::BlockReader;
use crate::snapshot::{NewSnapshot, SnapshotHead, SnapshotRef};
use crate::writer::queue::{Request, Work};
use crate::writer::snapshot::check_rebase;

type Answer = oneshot::Receiver<Result<(), AppendError>>;

impl Log {
    /// Writes a whole snapshot, and waits until it is durable. It takes effect with its last part, in one order with
    /// everything else that is appended; one that was cut off by a crash counts for nothing.
    ///
    /// - [`Purpose::Base`]: what the records up to its mark fold to. The mark is that of a frame that is held, or of
    ///   an earlier snapshot; recycling what lies before needs one (see [`Log::recycle_before`]).
    /// - [`Purpose::Rebase`]: the stream goes on from its mark, which must not be before the end in the order
    ///   (epoch, seq). Records of a stream of this log appended later follow the mark. Frames after
    ///   `superseded_after`, and frames whose sequence numbers the new epoch uses again, leave the stream; they are
    ///   still read with their blocks.
    /// - [`Purpose::Hint`] is refused: it is never stored.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append_snapshot(&self, parts: Vec<v1::Snapshot>) -> Result<(), AppendError> {
        let snapshot = self.check_snapshot(&parts)?;
        drop(parts);
        self.wait_for_room(snapshot.bytes()).await?;
        let answer = self.push_snapshot(snapshot, true)?;
        if self.shared().commits_inline() {
            self.shared().commit_all();
        }
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// As [`Log::append_snapshot`], for threads that may block.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_snapshot_blocking(&self, parts: Vec<v1::Snapshot>) -> Result<(), AppendError> {
        let snapshot = self.check_snapshot(&parts)?;
        drop(parts);
        block_on(self.wait_for_room(snapshot.bytes()))?;
        let answer = self.push_snapshot(snapshot, false)?;
        self.help_until(answer).unwrap_or(Err(AppendError::Closed))
    }

    fn check_snapshot(&self, parts: &[v1::Snapshot]) -> Result<NewSnapshot, AppendError> {
        NewSnapshot::check(parts, self.shared().snapshot_limit())
    }

    fn push_snapshot(&self, snapshot: NewSnapshot, wake: bool) -> Result<Answer, AppendError> {
        let bytes = self.shared().permits(snapshot.bytes()) as usize;
        self.check_and_push_snapshot(snapshot, bytes, wake)
            .inspect_err(|_| self.shared().room.add_permits(bytes))
    }

    fn check_and_push_snapshot(
        &self,
        snapshot: NewSnapshot,
        bytes: usize,
        wake: bool,
    ) -> Result<Answer, AppendError> {
        let SnapshotHead {
            key, mark, purpose, ..
        } = &snapshot.head;
        let (mark, rebase) = (*mark, *purpose == Purpose::Rebase);
        let known = self.catalog().stream(key);
        let stream = match known {
            Some(stream) => stream,
            None if rebase => self.catalog().streams_mut().get_or_create(key),
            None => {
                return Err(AppendError::Snapshot {
                    stream: key.clone(),
                    reason: "a base for a stream of which nothing is held".to_owned(),
                });
            }
        };
        // Under the stream's lock, so that frames offered from now on have to follow the mark.
        let mut state = stream.state();
        let own = key.incarnation == self.identity().incarnation;
        if rebase && !own {
            check_rebase(&stream, state.accepted, mark)?;
            state.accepted = mark;
        }
        let (done, answer) = oneshot::channel();
        let work = Work::Snapshot { snapshot, done };
        let request = Request {
            stream: stream.clone(),
            work,
            bytes,
        };
        self.shared().push([request], wake);
        Ok(answer)
    }

    /// The whole snapshot of a stream that reaches furthest.
    pub fn snapshot_of(&self, key: &StreamKey) -> Option<SnapshotRef> {
        snapshot_of(self.catalog(), key)
    }

    /// The base of every stream that has one, ordered by key.
    pub fn bases(&self) -> Vec<SnapshotRef> {
        bases(self.catalog())
    }

    /// Reads the parts of a snapshot.
    ///
    /// # Errors
    /// [`ReadError::Recycled`] when it is no longer held, [`ReadError::Damaged`] when it is not what was written.
    pub fn read_snapshot(&self, at: &SnapshotRef) -> Result<Vec<v1::Snapshot>, ReadError> {
        read_snapshot(self.catalog(), at)
    }
}

pub(crate) fn snapshot_of(catalog: &Catalog, key: &StreamKey) -> Option<SnapshotRef> {
    catalog.stream(key)?.state().newest_snapshot().cloned()
}

pub(crate) fn bases(catalog: &Catalog) -> Vec<SnapshotRef> {
    let streams = catalog.streams();
    let mut bases: Vec<SnapshotRef> = streams
        .iter()
        .filter_map(|stream| stream.state().base.clone())
        .collect();
    bases.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    bases
}

pub(crate) fn read_snapshot(
    catalog: &Arc<Catalog>,
    at: &SnapshotRef,
) -> Result<Vec<v1::Snapshot>, ReadError> {
    let mut reader = BlockReader::new(catalog.clone(), at.block.previous());
    let mut parts = Vec::new();
    while parts.len() < at.parts as usize {
        let block = reader.next_block()?;
        let no = block.as_ref().map_or(reader.position(), |block| block.no);
        let part = match block.map(|block| block.snapshot()) {
            Some(Ok(Some(part))) => part,
            // The ends of a segment lie between.
            Some(Ok(None)) if !parts.is_empty() => continue,
            _ => return Err(not_there(catalog, at, no)),
        };
        let fits = SnapshotHead::of(&part)
            .is_ok_and(|(head, number)| number as usize == parts.len() && head.at(at.block) == *at);
        if !fits {
            return Err(not_there(catalog, at, no));
        }
        parts.push(part);
    }
    Ok(parts)
}

fn not_there(catalog: &Catalog, at: &SnapshotRef, block: BlockNo) -> ReadError {
    let reason = format!("block {block} is not a part of the snapshot of {}", at.key);
    match catalog.segment_of_block(block) {
        Some(segment) => {
            let off = segment.offset_of(block).unwrap_or(0);
            crate::read::damaged(&segment, off, reason)
        }
        None => ReadError::Recycled {
            what: format!("the snapshot of {} in block {}", at.key, at.block),
            first_held: catalog.first_block().0,
        },
    }
}
