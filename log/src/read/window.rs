//! A stretch of a segment in memory, shared by everything cut out of it.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::catalog::Segment;
use crate::storage::pread_exact;

/// Bytes read at once.
pub(crate) const WINDOW_BYTES: u32 = 1024 * 1024;

#[derive(Default)]
pub(crate) struct Window {
    segment: Option<Arc<Segment>>,
    at: u32,
    bytes: Bytes,
}

impl Window {
    /// `len` bytes from `off` on, without a copy when they are here; otherwise reads from `off` on, up to
    /// `ahead` bytes but not beyond what readers may see.
    pub(crate) fn get(
        &mut self,
        segment: &Arc<Segment>,
        off: u32,
        len: u32,
        ahead: u32,
    ) -> io::Result<Bytes> {
        if let Some(found) = self.find(segment, off, len) {
            return Ok(found);
        }
        let room = segment.end().saturating_sub(off);
        let want = ahead.max(len).min(room.max(len)) as usize;
        // The old buffer is used again when nobody holds a piece of it: no page faults, no zeroing.
        let mut buf = match std::mem::take(&mut self.bytes).try_into_mut() {
            Ok(mine) => mine,
            Err(_) => BytesMut::new(),
        };
        self.segment = None;
        if buf.capacity() < want {
            // No more than is needed, but for growth: what is cut out of it may be held long, and each piece holds all.
            buf = BytesMut::zeroed(want.next_power_of_two());
        }
        buf.resize(want, 0);
        pread_exact(&*segment.file, &mut buf, off.into())?;
        self.bytes = buf.freeze();
        self.segment = Some(segment.clone());
        self.at = off;
        Ok(self.bytes.slice(..len as usize))
    }

    /// `len` bytes from `off` on, if they are here.
    fn find(&self, segment: &Arc<Segment>, off: u32, len: u32) -> Option<Bytes> {
        let held = self.segment.as_ref()?;
        if !Arc::ptr_eq(held, segment) {
            return None;
        }
        let from = off.checked_sub(self.at)? as usize;
        let to = from + len as usize;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ledge_proto::ids::ClusterId;

    use super::*;
    use crate::storage::SimDisk;
    use crate::{Log, Options};

    /// A sender holds frames until they are acknowledged: each holds the window it was cut out of.
    #[test]
    fn a_piece_that_is_held_holds_little_more_than_itself() {
        // The locks of the unit tests are only there under their scheduler.
        shuttle::check_random(check_held, 1);
    }

    fn check_held() {
        let options = Options::deterministic(ClusterId([1; 16]), "n", 1);
        let (log, _) = Log::open(Arc::new(SimDisk::new()), Path::new("log"), options).unwrap();
        let segment = log.catalog().segments().back().cloned().unwrap();
        segment.end.store(8192, std::sync::atomic::Ordering::Release);
        let mut window = Window::default();
        let held = window.get(&segment, 0, 100, 300).unwrap();
        assert_eq!(held.len(), 100);
        window.get(&segment, 4096, 100, 300).unwrap();
        let all = std::mem::take(&mut window.bytes).try_into_mut().unwrap();
        assert!(all.capacity() <= 512, "{}", all.capacity());
    }
}
