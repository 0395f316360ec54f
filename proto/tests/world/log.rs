//! What a log would hold.

use std::collections::BTreeMap;

use ledge_proto::fence::{FenceUpdate, Ours};
use ledge_proto::ids::{Chain, Epoch, Mark, Position, Seq, StreamKey};
use ledge_proto::session::Holdings;
use ledge_proto::v1;

/// What a log holds of one stream, in the order of writing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Item {
    /// One record in a frame of its own. What it says is told by its number.
    Record { mark: Mark, after: Chain, says: u64 },
    /// A new beginning: records after `common`, of lower epochs, no longer stand.
    Rebase { mark: Mark, common: Option<Position> },
}

impl Item {
    pub fn mark(&self) -> Mark {
        match self {
            Item::Record { mark, .. } | Item::Rebase { mark, .. } => *mark,
        }
    }
}

/// A log: streams and the latest fences. Cloning it is cloning the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Log {
    pub streams: BTreeMap<StreamKey, Vec<Item>>,
    /// Streams' lengths when the log was opened.
    pub opened: BTreeMap<StreamKey, usize>,
    pub edge: v1::EdgeFence,
    pub node: v1::NodeFence,
    pub cloud: v1::CloudFence,
    pub archived: BTreeMap<StreamKey, Seq>,
    /// Records up to here are no longer held.
    pub held_after: BTreeMap<StreamKey, Seq>,
    /// Another session of the node lives.
    pub other_session: bool,
}

impl Log {
    /// The records and beginnings that stand, oldest first.
    pub fn standing(&self, key: &StreamKey) -> Vec<&Item> {
        standing(self.streams.get(key).map_or(&[], Vec::as_slice))
    }

    pub fn end(&self, key: &StreamKey) -> Option<Mark> {
        self.streams.get(key)?.last().map(Item::mark)
    }

    pub fn append(&mut self, key: &StreamKey, says: u64) -> Mark {
        let end = self.end(key).unwrap_or(Mark {
            position: Position {
                epoch: Epoch::FIRST,
                seq: Seq::ZERO,
            },
            chain: key.genesis_chain(),
        });
        let position = Position {
            epoch: end.position.epoch,
            seq: end.position.seq.next(),
        };
        let mark = Mark {
            position,
            chain: chain(end.chain, position, says),
        };
        self.streams.entry(key.clone()).or_default().push(Item::Record {
            mark,
            after: end.chain,
            says,
        });
        mark
    }

    /// Appends a record written elsewhere, if it follows.
    pub fn append_foreign(&mut self, key: &StreamKey, item: &Item) -> Result<(), String> {
        let end = self.end(key);
        let Item::Record { mark, after, .. } = item else {
            return Err("not a record".into());
        };
        let (seq, chain, epoch) = end.map_or((Seq::ZERO, key.genesis_chain(), Epoch::FIRST), |end| {
            (end.position.seq, end.chain, end.position.epoch)
        });
        if mark.position.seq != seq.next() || *after != chain || mark.position.epoch < epoch {
            return Err(format!("{:?} does not follow {end:?}", mark.position));
        }
        self.streams.entry(key.clone()).or_default().push(item.clone());
        Ok(())
    }

    /// What the log says, of all that was ever written to the stream.
    pub fn says(&self, key: &StreamKey) -> Vec<u64> {
        self.streams
            .get(key)
            .into_iter()
            .flatten()
            .filter_map(says)
            .collect()
    }

    pub fn reopen(&mut self) {
        self.opened = self
            .streams
            .iter()
            .map(|(key, items)| (key.clone(), items.len()))
            .collect();
    }
}

pub fn says(item: &Item) -> Option<u64> {
    match item {
        Item::Record { says, .. } => Some(*says),
        Item::Rebase { .. } => None,
    }
}

fn standing(items: &[Item]) -> Vec<&Item> {
    let mut out: Vec<&Item> = Vec::new();
    for item in items {
        if let Item::Rebase { mark, common } = item {
            let last = common.map_or(mark.position.seq, |common| common.seq.min(mark.position.seq));
            out.retain(|earlier| earlier.mark().position.seq <= last);
        }
        out.push(item);
    }
    out
}

fn chain(after: Chain, position: Position, says: u64) -> Chain {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let numbers = [u64::from(position.epoch.0), position.seq.0, says];
    for byte in after
        .0
        .into_iter()
        .chain(numbers.into_iter().flat_map(u64::to_be_bytes))
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut out = [0; 16];
    out[..8].copy_from_slice(&hash.to_be_bytes());
    Chain(out)
}

impl Ours for Log {
    fn durable(&self, key: &StreamKey) -> Option<Mark> {
        self.end(key)
    }
    fn mark_at(&self, key: &StreamKey, seq: Seq) -> Option<Mark> {
        if seq < self.held_after(key) {
            return None;
        }
        let standing = self.standing(key);
        standing
            .into_iter()
            .rev()
            .map(Item::mark)
            .find(|mark| mark.position.seq == seq)
    }
    fn held_after(&self, key: &StreamKey) -> Seq {
        self.held_after.get(key).copied().unwrap_or(Seq::ZERO)
    }
}

impl Holdings for Log {
    fn opened(&self, key: &StreamKey) -> Option<Mark> {
        let items = self.streams.get(key)?;
        items[..self.opened.get(key).copied().unwrap_or(0)]
            .last()
            .map(Item::mark)
    }
    fn snapshot_mark(&self, key: &StreamKey, peer: Position) -> Option<Mark> {
        // Where the latest epoch began, if that is enough; else the end, to which everything is folded.
        let begun = self
            .standing(key)
            .into_iter()
            .rev()
            .find(|item| matches!(item, Item::Rebase { .. }));
        let begun = begun
            .map(Item::mark)
            .filter(|mark| mark.position > peer && mark.position.seq >= self.held_after(key));
        begun.or_else(|| self.end(key).filter(|mark| mark.position > peer))
    }
    fn archived(&self, key: &StreamKey) -> Seq {
        self.archived.get(key).copied().unwrap_or(Seq::ZERO)
    }
    fn node_fence(&self) -> v1::NodeFence {
        self.node.clone()
    }
    fn cloud_fence(&self) -> v1::CloudFence {
        self.cloud
    }
    fn edge_fence(&self) -> v1::EdgeFence {
        self.edge.clone()
    }
    fn other_session(&self) -> bool {
        self.other_session
    }
}

pub fn keep(log: &mut Log, update: FenceUpdate) {
    match update {
        FenceUpdate::Node(fence) => log.node = *fence,
        FenceUpdate::Edge(fence) => log.edge = fence,
        FenceUpdate::Cloud(fence) => log.cloud = fence,
    }
}

/// What a daemon does about `Event::Reset`: a new beginning, and what it wrote after `common` once more.
pub fn begin_epoch(log: &mut Log, key: &StreamKey, epoch: Epoch, base: Mark, common: Option<Position>) {
    let mark = Mark {
        position: Position {
            epoch,
            seq: base.position.seq,
        },
        chain: base.chain,
    };
    let common = Some(common.unwrap_or(Position::ZERO));
    let held_after = log.held_after(key);
    let again: Vec<u64> = log
        .standing(key)
        .into_iter()
        .filter(|item| Some(item.mark().position) > common && item.mark().position.seq > held_after)
        .filter_map(says)
        .collect();
    log.streams
        .entry(key.clone())
        .or_default()
        .push(Item::Rebase { mark, common });
    for says in again {
        log.append(key, says);
    }
}

pub fn next_item(log: &Log, key: &StreamKey, after: Seq) -> Option<Item> {
    let standing = log.standing(key);
    let begun = standing
        .iter()
        .rposition(|item| item.mark().position.seq <= after)
        .map_or(0, |at| at + 1);
    standing[begun..]
        .iter()
        .find(|item| matches!(item, Item::Record { .. }))
        .map(|item| (*item).clone())
}
