//! What the tests share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part; tests may unwrap"
)]

pub(crate) mod oracle;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledge_log::{BlockNo, Log, LogView, Options, Recovery, SimDisk, Storage};
use ledge_proto::frame::{Frame, FrameWriter, push_record};
use ledge_proto::ids::{ClusterId, Incarnation, Lane, Mark, Scope, Seq, StreamId, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::snapshot::Purpose;

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/data/log")
}

pub(crate) fn stream(lane: Lane) -> StreamId {
    StreamId::new(Scope::node("edge-1").unwrap(), lane)
}

pub(crate) fn record(n: u64) -> v1::Record {
    v1::Record {
        kind: 1,
        key: format!("default/pump/{n}"),
        payload: n.to_le_bytes().to_vec().into(),
        ..Default::default()
    }
}

pub(crate) fn options(seed: u64) -> Options {
    Options {
        segment_bytes: 64 * 1024,
        ..Options::deterministic(CLUSTER, "edge-1", seed)
    }
}

pub(crate) fn open(disk: &SimDisk, seed: u64) -> (Log, Recovery) {
    Log::open(Arc::new(disk.clone()), &dir(), options(seed)).unwrap()
}

pub(crate) fn view(disk: &SimDisk) -> LogView {
    LogView::open(Arc::new(disk.clone()), &dir()).unwrap()
}

pub(crate) fn remote_key(n: u8) -> StreamKey {
    let id = StreamId::new(Scope::node(&format!("peer-{n}")).unwrap(), Lane::UpData);
    StreamKey {
        id,
        incarnation: Incarnation([n; 16]),
    }
}

/// A frame of `count` records.
pub(crate) fn frame(writer: &mut FrameWriter, count: u32) -> Frame {
    let mut payload = Vec::new();
    for n in 0..count {
        push_record(&mut payload, &record(writer.next_seq().0 + u64::from(n)));
    }
    writer.frame(count, &payload).unwrap()
}

/// Keys of all records of a stream, read by `next`.
pub(crate) fn read_all(reader: &mut ledge_log::StreamReader) -> Vec<(Seq, String)> {
    let mut all = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        for record in frame.records().unwrap() {
            let (position, record) = record.unwrap();
            all.push((position.seq, record.key));
        }
    }
    all
}

/// A snapshot of `parts` parts that says nothing.
pub(crate) fn snapshot(
    key: &StreamKey,
    mark: Mark,
    purpose: Purpose,
    parts: usize,
    superseded_after: u64,
) -> Vec<v1::Snapshot> {
    let parts = u32::try_from(parts).unwrap();
    let part = |part| v1::Snapshot {
        scope: key.id.scope.as_wire().to_owned(),
        lane: key.id.lane.as_wire(),
        incarnation: key.incarnation.0.to_vec(),
        epoch: mark.position.epoch.0,
        seq: mark.position.seq.0,
        chain: mark.chain.0.to_vec(),
        part,
        parts,
        purpose: purpose.into(),
        superseded_after: (superseded_after > 0).then_some(superseded_after),
        entries: vec![u8::try_from(part).unwrap(); 700].into(),
        raw_len: 1,
        ..Default::default()
    };
    (0..parts).map(part).collect()
}

/// Gives up the segments before `until` as their owner does: bases first.
pub(crate) fn retain_from(log: &Log, until: BlockNo) -> Result<(), oracle::Stop> {
    while let Some(oldest) = log
        .oldest_segment()
        .unwrap()
        .filter(|oldest| oldest.last_block < until)
    {
        for (key, _, mark) in oldest.streams {
            let base = log.bases().into_iter().find(|base| base.key == key);
            if base.is_none_or(|base| base.block <= oldest.last_block || base.mark.position < mark.position) {
                log.append_snapshot_blocking(snapshot(&key, mark, Purpose::Base, 1, 0))?;
            }
        }
        assert_eq!(log.recycle_before(oldest.last_block.next())?, 1);
    }
    Ok(())
}

pub(crate) fn segment_path(no: u32) -> PathBuf {
    dir().join(ledge_log::SegmentNo(no).file_name())
}

pub(crate) fn storage(disk: &SimDisk) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

pub(crate) fn verify(disk: &SimDisk) -> ledge_log::VerifyReport {
    ledge_log::verify(disk, Path::new(&dir())).unwrap()
}
