//! Snapshots in the log: what a set of SNAPSHOT blocks says, and when it is whole.

use ledge_proto::fold::snapshot::{SnapshotError, key_of, mark_of};
use ledge_proto::ids::{Mark, Seq, StreamKey};
use ledge_proto::v1::snapshot::Purpose;
use ledge_proto::{limits, v1};
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::error::AppendError;
use crate::ids::BlockNo;

/// Most parts of one snapshot: at [`limits::SNAPSHOT_PART_BYTES`] each, more than any node's state.
pub(crate) const SNAPSHOT_MAX_PARTS: u32 = 4096;
/// The number of the field that holds the entries: everything before it is small.
const ENTRIES_TAG: u32 = 12;

/// A whole snapshot in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRef {
    /// The stream.
    pub key: StreamKey,
    /// Up to where its records are folded in.
    pub mark: Mark,
    /// [`Purpose::Base`] or [`Purpose::Rebase`].
    pub purpose: Purpose,
    /// The block of its first part.
    pub block: BlockNo,
    /// How many parts it has.
    pub parts: u32,
}

/// What all parts of one snapshot have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotHead {
    pub(crate) key: StreamKey,
    pub(crate) mark: Mark,
    pub(crate) purpose: Purpose,
    pub(crate) parts: u32,
    /// Records after this one, of lower epochs, no longer stand; `None`: all of them do.
    pub(crate) superseded_after: Option<Seq>,
}

impl SnapshotHead {
    /// Head and number of one part.
    pub(crate) fn of(part: &v1::Snapshot) -> Result<(SnapshotHead, u32), SnapshotError> {
        let key = key_of(part)?;
        let malformed = |reason: &str| SnapshotError::Malformed {
            stream: key.to_string(),
            reason: reason.to_owned(),
        };
        if part.parts == 0 || part.parts > SNAPSHOT_MAX_PARTS || part.part >= part.parts {
            return Err(malformed("the number of a part is out of range"));
        }
        if part.seq >= u64::MAX / 2 || part.superseded_after.unwrap_or_default() >= u64::MAX / 2 {
            return Err(malformed("its sequence number is out of range"));
        }
        if part.raw_len as usize > limits::SNAPSHOT_PART_MAX_BYTES {
            return Err(malformed("a part is larger than allowed"));
        }
        let head = SnapshotHead {
            mark: mark_of(part)?,
            purpose: part.purpose(),
            parts: part.parts,
            superseded_after: part.superseded_after.map(Seq),
            key,
        };
        Ok((head, part.part))
    }

    pub(crate) fn at(&self, block: BlockNo) -> SnapshotRef {
        SnapshotRef {
            key: self.key.clone(),
            mark: self.mark,
            purpose: self.purpose,
            block,
            parts: self.parts,
        }
    }
}

/// A snapshot on its way into the log: checked and encoded.
pub(crate) struct NewSnapshot {
    pub(crate) head: SnapshotHead,
    /// The body of each block.
    pub(crate) bodies: Vec<Vec<u8>>,
}

impl NewSnapshot {
    /// Checks that `parts` are one whole snapshot that a log may hold, each at most `limit` bytes when encoded.
    pub(crate) fn check(parts: &[v1::Snapshot], limit: usize) -> Result<NewSnapshot, AppendError> {
        let Some(first) = parts.first() else {
            return Err(AppendError::Empty);
        };
        let (head, _) = SnapshotHead::of(first)?;
        let refuse = |reason: &str| AppendError::Snapshot {
            stream: head.key.clone(),
            reason: reason.to_owned(),
        };
        match head.purpose {
            Purpose::Base if head.superseded_after.is_some() => {
                return Err(refuse("a base supersedes nothing"));
            }
            Purpose::Base | Purpose::Rebase => {}
            Purpose::Hint => return Err(refuse("a hint is never stored")),
            Purpose::Unspecified => return Err(refuse("it does not say what it is for")),
        }
        if head.mark.position.epoch.0 == 0 {
            return Err(refuse("its mark is before the first epoch"));
        }
        let mut bodies = Vec::with_capacity(parts.len());
        for (part, n) in parts.iter().zip(0u32..) {
            let (own, number) = SnapshotHead::of(part)?;
            if own != head || number != n || head.parts as usize != parts.len() {
                return Err(refuse("its parts do not belong together"));
            }
            let body = part.encode_to_vec();
            if body.len() > limit {
                return Err(AppendError::FrameTooLarge {
                    len: body.len(),
                    need: 2 * body.len() as u64 + 16 * 1024,
                });
            }
            bodies.push(body);
        }
        Ok(NewSnapshot { head, bodies })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bodies.iter().map(Vec::len).sum()
    }
}

/// Follows SNAPSHOT blocks as they come. A set counts once its last part is there; nothing but the ends of
/// segments lies between the parts of a whole one, so one that was cut off by a crash cannot be taken up later.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    open: Option<(SnapshotHead, Option<BlockNo>, u32)>,
    /// Something came before: a set that has no beginning is no set.
    begun: bool,
}

/// A set whose last part was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) head: SnapshotHead,
    /// Where it begins; `None` when that was recycled. It counted then, and what it stood for is in a later base, but
    /// where it moved its stream to is not said anywhere else.
    pub(crate) block: Option<BlockNo>,
}

impl Assembly {
    /// Takes in a part found in `block`. Returns the snapshot that ends with it.
    pub(crate) fn part(&mut self, block: BlockNo, head: SnapshotHead, number: u32) -> Option<Whole> {
        let at_start = !std::mem::replace(&mut self.begun, true);
        let begun = match self.open.take() {
            Some((open, first, next)) if number == next && open == head => first,
            _ if number == 0 => Some(block),
            None if at_start => None,
            _ => return None,
        };
        if number + 1 == head.parts {
            return Some(Whole { head, block: begun });
        }
        self.open = Some((head, begun, number + 1));
        None
    }

    /// Something else lies between.
    pub(crate) fn interrupt(&mut self) {
        self.open = None;
        self.begun = true;
    }
}

/// Whether `prefix`, the first bytes of an encoded part, reaches to its entries.
pub(crate) fn decode_head(prefix: &[u8]) -> Option<v1::Snapshot> {
    let mut rest = prefix;
    loop {
        let known = prefix.len() - rest.len();
        let (tag, wire) = decode_key(&mut rest).ok()?;
        if tag == ENTRIES_TAG {
            return v1::Snapshot::decode(&prefix[..known]).ok();
        }
        skip_field(wire, tag, &mut rest, DecodeContext::default()).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(n: u32, parts: u32) -> v1::Snapshot {
        v1::Snapshot {
            scope: "edge-1".to_owned(),
            lane: 2,
            incarnation: vec![7; 16],
            epoch: 1,
            seq: 9,
            chain: vec![3; 16],
            part: n,
            parts,
            purpose: Purpose::Base.into(),
            entries: vec![1; 2000].into(),
            raw_len: 5,
            ..Default::default()
        }
    }

    fn feed(assembly: &mut Assembly, block: u64, n: u32, parts: u32) -> bool {
        let (head, number) = SnapshotHead::of(&part(n, parts)).unwrap();
        assembly.part(BlockNo(block), head, number).is_some()
    }

    #[test]
    fn a_set_counts_with_its_last_part_and_never_across_a_break() {
        let mut assembly = Assembly::default();
        // The oldest segment begins with the end of a set: only its mark counts.
        let (head, number) = SnapshotHead::of(&part(2, 3)).unwrap();
        let whole = assembly.part(BlockNo(1), head, number).unwrap();
        assert_eq!(whole.block, None);
        assert!(!feed(&mut assembly, 1, 2, 3));
        assert!(!feed(&mut assembly, 1, 0, 3));
        assert!(!feed(&mut assembly, 2, 1, 3));
        // Cut off; the next one begins again.
        assert!(!feed(&mut assembly, 3, 0, 3));
        assert!(!feed(&mut assembly, 4, 1, 3));
        assert!(feed(&mut assembly, 5, 2, 3));
        assert!(!feed(&mut assembly, 6, 0, 2));
        assembly.interrupt();
        assert!(!feed(&mut assembly, 7, 1, 2));
        assert!(feed(&mut assembly, 8, 0, 1));
    }

    #[test]
    fn the_head_is_read_without_the_entries() {
        let bytes = part(0, 1).encode_to_vec();
        for len in 0..bytes.len() {
            if let Some(head) = decode_head(&bytes[..len]) {
                assert_eq!((head.seq, head.parts, head.purpose), (9, 1, part(0, 1).purpose));
                assert!(len < 200);
                return;
            }
        }
        panic!("never");
    }

    #[test]
    fn garbage_never_panics() {
        let mut rng = crate::storage::sim::Rng::new(1);
        for _ in 0..2000 {
            let mut bytes = vec![0; rng.index(80)];
            rng.fill(&mut bytes);
            let _ = decode_head(&bytes);
        }
    }

    #[test]
    fn what_may_not_be_stored_is_refused() {
        let refused = |change: fn(&mut v1::Snapshot)| {
            let mut one = part(0, 1);
            change(&mut one);
            NewSnapshot::check(&[one], 1 << 20).is_err()
        };
        assert!(!refused(|_| {}));
        assert!(refused(|s| s.purpose = Purpose::Hint.into()));
        assert!(refused(|s| s.purpose = 99));
        assert!(refused(|s| s.parts = 2));
        assert!(refused(|s| s.parts = 0));
        assert!(refused(|s| s.epoch = 0));
        assert!(refused(|s| s.chain = vec![1]));
        assert!(refused(|s| s.superseded_after = Some(3)));
        assert!(refused(|s| s.raw_len = u32::MAX));
        assert!(NewSnapshot::check(&[part(0, 1)], 100).is_err());
        assert!(NewSnapshot::check(&[part(0, 2), part(0, 2)], 1 << 20).is_err());
        assert!(NewSnapshot::check(&[], 1 << 20).is_err());
    }
}
