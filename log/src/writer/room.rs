//! How much room there is: the limit of the log, the disk, and what is kept back for the lanes that must go on.

use std::io;
use std::path::PathBuf;

use ledge_proto::ids::Lane;

use super::Writer;
use super::queue::{Request, Work};
use super::segments::{BLOCKS_SIZED_FOR, NEW_SEGMENT, make_file};
use crate::error::{AppendError, OpenError};
use crate::format::block::BLOCK_HEADER_BYTES;
use crate::format::superblock::SUPERBLOCK_BYTES;
use crate::options::{Committer, Options};

/// Superblock files, and the one on its way.
const SUPERBLOCKS: u64 = 3 * SUPERBLOCK_BYTES as u64;

/// Room for what comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes left in the segment being written, the reserve included.
    pub active_left: u64,
    /// A file that becomes the next segment is there.
    pub next_ready: bool,
    /// The log's limit, bytes.
    pub limit: Option<u64>,
    /// Bytes of its segments, its spare files and its superblocks.
    pub used: u64,
    /// Bytes of spare files among them.
    pub spare: u64,
    /// Bytes free on its disk.
    pub free_on_disk: u64,
    /// Why there will be no next segment unless the oldest goes, or the limit is kept only if it does. From the middle
    /// of the segment being written on.
    pub blocked: Option<String>,
}

impl Writer {
    /// Bytes of everything that counts against the limit.
    pub(crate) fn used_bytes(&self) -> u64 {
        let segments = self.catalog.segments();
        let held: u64 = segments.iter().map(|segment| segment.header.segment_bytes).sum();
        held + self.spares.bytes(self.options.segment_bytes) + SUPERBLOCKS
    }

    /// Whether one more file may be made.
    fn may_make(&self) -> Result<(), String> {
        let len = self.options.segment_bytes;
        let used = self.used_bytes();
        if let Some(limit) = self.options.max_bytes
            && used + len > limit
            && !(self.retaining && used > limit)
        {
            return Err(format!(
                "the log has {used} bytes and a segment takes {len}, its limit is {limit}"
            ));
        }
        match self.catalog.storage.free_bytes(&self.catalog.dir) {
            Ok(free) if free < len => Err(format!("{free} bytes are free, a segment takes {len}")),
            Ok(_) => Ok(()),
            Err(err) => Err(err.to_string()),
        }
    }

    /// Makes sure that there is a file for the next segment. `false`, and why in `blocked`, when none can be had.
    fn next_available(&mut self) -> bool {
        if self.spares.collect() || !self.spares.used.is_empty() {
            self.blocked = None;
            return true;
        }
        if let Err(reason) = self.may_make() {
            self.blocked = Some(reason);
            return false;
        }
        let path = self.new_segment();
        match make_file(&*self.catalog.storage, &path, self.options.segment_bytes) {
            Ok(file) => {
                self.spares.ready = Some(file);
                self.blocked = None;
                true
            }
            Err(err) => {
                self.blocked = Some(err.to_string());
                false
            }
        }
    }

    /// As [`Writer::next_available`], as an error.
    pub(super) fn require_next(&mut self) -> io::Result<()> {
        if self.next_available() {
            return Ok(());
        }
        let reason = self.blocked.clone().unwrap_or_default();
        Err(io::Error::new(io::ErrorKind::StorageFull, reason))
    }

    pub(super) fn new_segment(&self) -> PathBuf {
        self.catalog.dir.join(NEW_SEGMENT)
    }

    /// Keeps the last of the room for who must go on: refuses telemetry where the reserve begins, and everything but
    /// what retention writes in its last half: without a record of what goes, and a base, no segment could ever go.
    /// Returns the requests that go on.
    pub(super) fn admit(&mut self, requests: Vec<Request>) -> Vec<Request> {
        let is_frame = |request: &Request| match request.work {
            Work::Records { reserved, .. } => !reserved,
            Work::Frame { .. } => true,
            Work::Held { .. } | Work::Snapshot { .. } => false,
        };
        let is_data = |request: &Request| request.stream.key.id.lane == Lane::UpData && is_frame(request);
        let requests = self.keep_back(requests, 1, is_data);
        self.keep_back(requests, 2, is_frame)
    }

    /// Refuses what `is_refused` where it would use the last `reserve / part` bytes and there is no next segment.
    fn keep_back(
        &mut self,
        requests: Vec<Request>,
        part: u64,
        is_refused: impl Fn(&Request) -> bool,
    ) -> Vec<Request> {
        if !requests.iter().any(&is_refused) {
            return requests;
        }
        let bytes: usize = requests.iter().map(Request::block_bytes).sum();
        let reserve = self.options.reserve_bytes / part;
        if !self.would_leave_less(reserve, BLOCK_HEADER_BYTES + bytes, requests.len())
            || self.next_available()
        {
            return requests;
        }
        let reason = self.blocked.clone().unwrap_or_default();
        let err = self.disk_full(&io::Error::new(io::ErrorKind::StorageFull, reason));
        let (refused, others) = requests.into_iter().partition(is_refused);
        super::group::refuse(refused, &err);
        others
    }

    /// Whether a block of at most `len` bytes would leave less than `reserve`.
    fn would_leave_less(&self, reserve: u64, len: usize, frames: usize) -> bool {
        let Some(active) = &self.active else { return false };
        let bytes = active.segment.header.segment_bytes;
        let span = len.next_multiple_of(usize::from(active.segment.header.align));
        let seal = active.seal_span(frames).unwrap_or(0);
        u64::from(active.off) + (span + seal) as u64 + reserve.min(bytes / 4) > bytes
    }

    fn past_half(&self) -> bool {
        let half = |active: &super::segments::Active| {
            u64::from(active.off) * 2 > active.segment.header.segment_bytes
        };
        self.active.as_ref().is_none_or(half)
    }

    /// Has the next file made when the active segment is half full, and says so when that cannot be.
    pub(super) fn prepare_ahead(&mut self) {
        if !self.past_half() || self.spares.any() {
            return;
        }
        if let Err(reason) = self.may_make() {
            self.blocked = Some(reason);
            return;
        }
        self.blocked = None;
        if self.options.prepare_ahead && self.options.committer == Committer::Thread {
            let (storage, path) = (self.catalog.storage.clone(), self.new_segment());
            let len = self.options.segment_bytes;
            self.spares.making = std::thread::Builder::new()
                .name("ledge-log-prepare".to_owned())
                .spawn(move || make_file(&*storage, &path, len))
                .ok(); // Without a thread it is made when it is needed.
        }
    }

    /// See [`crate::Log::set_limit`].
    pub(crate) fn set_limit(
        &mut self,
        max_bytes: Option<u64>,
        segment_bytes: u64,
    ) -> Result<Room, OpenError> {
        let wanted = Options {
            max_bytes,
            segment_bytes,
            ..self.options.clone()
        };
        wanted.check()?;
        if super::segments::block_limit(segment_bytes) < self.block_limit() {
            return Err(OpenError::Options(format!(
                "segment_bytes must stay at {} or more until the log is opened again",
                self.options.segment_bytes.min(BLOCKS_SIZED_FOR)
            )));
        }
        // One made or being made has the old length.
        if segment_bytes != self.options.segment_bytes {
            self.abandon_spare();
        }
        self.options = wanted;
        if max_bytes.is_some_and(|limit| self.used_bytes() > limit) {
            self.abandon_spare();
            while let Some((path, len)) = self.spares.used.pop() {
                if let Err(err) = self.catalog.storage.remove(&path) {
                    tracing::warn!(file = %path.display(), %err, "a spare segment cannot be removed");
                    self.spares.used.push((path, len));
                    break;
                }
            }
        }
        let over = max_bytes.is_some_and(|limit| self.used_bytes() > limit);
        let longer = self
            .active
            .as_ref()
            .is_some_and(|active| active.segment.header.segment_bytes > segment_bytes);
        if over && longer {
            // The segment being written may be too long for the limit by itself: the next one is begun, so that it can go.
            self.retaining = true;
            let begun = self.switch();
            self.retaining = false;
            if let Err(err) = begun {
                tracing::warn!(%err, "no shorter segment can be begun yet");
            }
        }
        Ok(self.survey())
    }

    /// Looks again, and tells those who wait.
    pub(crate) fn survey(&mut self) -> Room {
        if self.spares.any() {
            self.blocked = None;
        } else if self.blocked.is_some() || self.past_half() {
            self.blocked = self.may_make().err();
        }
        self.tell_room()
    }

    /// Tells of room as it was last seen.
    pub(crate) fn tell_room(&mut self) -> Room {
        let used = self.used_bytes();
        let limit = self.options.max_bytes;
        let over = limit.filter(|limit| used > *limit);
        let over = over.map(|limit| format!("the log has {used} bytes, its limit is {limit}"));
        let left =
            |active: &super::segments::Active| active.segment.header.segment_bytes - u64::from(active.off);
        let now = Room {
            active_left: self.active.as_ref().map_or(0, left),
            next_ready: self.spares.any(),
            limit,
            used,
            spare: self.spares.bytes(self.options.segment_bytes),
            free_on_disk: self.catalog.storage.free_bytes(&self.catalog.dir).unwrap_or(0),
            blocked: self.blocked.clone().or(over),
        };
        self.room.send_if_modified(|room| {
            let news = room.blocked != now.blocked || room.next_ready != now.next_ready;
            room.clone_from(&now);
            news
        });
        now
    }

    /// Errors that are about room, not about the state of what was written.
    pub(crate) fn disk_full(&self, reason: &io::Error) -> AppendError {
        AppendError::DiskFull {
            dir: self.catalog.dir.clone(),
            reason: reason.to_string().into(),
        }
    }
}
