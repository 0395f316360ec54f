//! Folds: state as a pure function of the log. The same code runs in edgecore, cloudcore and `ledge`.
//!
//! State is a sorted map of bytes. A key is the scope, a zero byte, the [`Table`]'s number and the record's key.
//! Each table is written by one lane only, so that the order in which lanes interleave, which differs between
//! cloud and edge, makes no difference to the result: the same positions give the same state and the same
//! [`state_hash`].
//!
//! Reading order: [`table`], [`store`], this file, [`snapshot`], [`view`].

mod memory;
pub mod snapshot;
mod store;
mod table;
pub mod view;

pub use memory::State;
pub use store::{Read, Store, lane_hash, state_hash};
pub use table::Table;

use bytes::Bytes;
use prost::Message;

use crate::frame::{Frame, FrameError};
use crate::ids::{Lane, Position, Scope, Seq, StreamId};
use crate::mutants;
use crate::record::RecordKind;
use crate::v1;

/// Version of the folds. Raised when the same records fold to another state, so that projections are rebuilt.
pub const FOLD_VERSION: u32 = 3;

/// Why a frame could not be folded. The state is as it was before the frame only if the caller drops what the
/// store collected since.
#[derive(Debug, thiserror::Error)]
pub enum FoldError<E> {
    /// The store failed.
    #[error("projection store: {0}")]
    Store(E),
    /// The frame cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame does not continue what was folded.
    #[error(
        "{stream}: record {found} cannot be folded after record {folded}: records between them are missing"
    )]
    Gap {
        /// The stream.
        stream: StreamId,
        /// Last record folded.
        folded: Seq,
        /// First record of the frame.
        found: Seq,
    },
    /// A snapshot cannot be used.
    #[error(transparent)]
    Snapshot(snapshot::SnapshotError),
    /// What the store holds under one of our keys is not ours.
    #[error("projection entry of table {table:?} is damaged: {reason}")]
    Damaged {
        /// The table.
        table: Table,
        /// Why it cannot be read.
        reason: String,
    },
}

/// Folds one frame. A frame that was folded before changes nothing.
///
/// # Errors
/// [`FoldError::Gap`] when records between the state and the frame are missing; see [`FoldError`].
pub fn apply_frame<S: Store>(store: &mut S, frame: &Frame) -> Result<(), FoldError<S::Error>> {
    let StreamId { scope, lane } = &frame.key().id;
    let mut folded = match load::<S, v1::FoldedStream>(store, scope, Table::stream_of(*lane), b"")? {
        Some(folded) if folded.incarnation == frame.key().incarnation.0.as_slice() => {
            let folded_before = if mutants::on("dedupe-by-seq-only") {
                frame.last_seq().0 <= folded.seq
            } else {
                // A frame of a lower epoch was superseded when the higher one began.
                (frame.epoch().0, frame.last_seq().0) <= (folded.epoch, folded.seq)
            };
            if folded_before {
                return Ok(());
            }
            if folded.seq.checked_add(1) != Some(frame.first_seq().0) {
                return Err(FoldError::Gap {
                    stream: frame.key().id.clone(),
                    folded: Seq(folded.seq),
                    found: frame.first_seq(),
                });
            }
            folded
        }
        previous => {
            // A new life of the writer's disk: what the old one said no longer stands.
            if previous.is_some() {
                clear_lane(store, scope, *lane)?;
            }
            v1::FoldedStream {
                incarnation: frame.key().incarnation.0.to_vec(),
                ..Default::default()
            }
        }
    };
    for item in frame.records()? {
        let (position, record) = item?;
        apply_record(store, scope, *lane, position, record)?;
    }
    folded.epoch = frame.epoch().0;
    folded.seq = frame.last_seq().0;
    folded.chain = frame.chain().0.to_vec();
    // A snapshot from a peer may say any number.
    folded.records = folded.records.saturating_add(u64::from(frame.count()));
    store.put(
        table::key(scope, Table::stream_of(*lane), b""),
        folded.encode_to_vec(),
    );
    Ok(())
}

/// Position up to which `stream` is folded in `store`, or zero.
///
/// # Errors
/// When the store fails or the entry is damaged.
pub fn folded_stream<S: Read>(
    store: &S,
    stream: &StreamId,
) -> Result<Option<v1::FoldedStream>, FoldError<S::Error>> {
    load(store, &stream.scope, Table::stream_of(stream.lane), b"")
}

fn apply_record<S: Store>(
    store: &mut S,
    scope: &Scope,
    lane: Lane,
    position: Position,
    record: v1::Record,
) -> Result<(), FoldError<S::Error>> {
    let Some(kind) = RecordKind::from_wire(record.kind) else {
        return Ok(()); // A kind of a later version: in the log for whoever understands it.
    };
    let Some(effect) = effect_of(kind, lane) else {
        return Ok(());
    };
    let (table, keep) = effect;
    if table.lane() != lane {
        // Sent on a lane that must not write this table: its order against that lane would be undefined.
        return Ok(());
    }
    let key = table::key(scope, table, record.key.as_bytes());
    match keep {
        Keep::Remove => {
            store.remove(key);
            if table == Table::Devices {
                remove_prefix(
                    store,
                    &table::key(scope, Table::Desired, format!("{}/", record.key).as_bytes()),
                )?;
            }
        }
        Keep::Latest => store.put(key, entry_of(position, record, 0).encode_to_vec()),
        Keep::Gap => {
            let old: Option<v1::Entry> = load_key(store, table, &key)?;
            let mut entry = entry_of(position, record, old.as_ref().map_or(0, |old| old.count) + 1);
            if let Some(longer) = old.and_then(|old| joined(&old.payload, &entry.payload)) {
                entry.payload = longer.into();
            }
            store.put(key, entry.encode_to_vec());
        }
        Keep::LatestByTime => {
            let old: Option<v1::Entry> = load_key(store, table, &key)?;
            let Some((record, samples)) = as_sample(kind, record) else {
                return Ok(()); // It makes no sense, as a kind of a later version makes none.
            };
            let count = old.as_ref().map_or(0, |old| old.count).saturating_add(samples);
            let newer = old
                .as_ref()
                .is_none_or(|old| (record.boot, record.mono_us) >= (old.boot, old.mono_us));
            let entry = match old {
                Some(old) if !newer => v1::Entry { count, ..old },
                _ => entry_of(position, record, count),
            };
            store.put(key, entry.encode_to_vec());
        }
    }
    Ok(())
}

enum Keep {
    /// The record replaces what was there: its lane has one writer, so log order is the order of truth.
    Latest,
    /// As `Latest`, but a record that happened earlier by the writer's own monotonic clock only counts: late
    /// data never moves the latest value backwards, whatever the wall clock did meanwhile. A run counts as its readings.
    LatestByTime,
    /// A gap that continues the one under the same key makes it longer: an outage of weeks is one entry.
    Gap,
    Remove,
}

fn effect_of(kind: RecordKind, lane: Lane) -> Option<(Table, Keep)> {
    Some(match kind {
        RecordKind::Sample | RecordKind::SampleRun => (Table::LatestSamples, Keep::LatestByTime),
        RecordKind::Gap if lane == Lane::Local => (Table::GivenUp, Keep::Gap),
        RecordKind::Gap => (Table::Gaps, Keep::Gap),
        RecordKind::TwinReported => (Table::Reported, Keep::Latest),
        RecordKind::DeviceState => (Table::DeviceStates, Keep::Latest),
        RecordKind::NodeState => (Table::NodeStates, Keep::Latest),
        RecordKind::WriteResult => (Table::WriteResults, Keep::Latest),
        RecordKind::DeviceSpec => (Table::Devices, Keep::Latest),
        RecordKind::DeviceRemoved => (Table::Devices, Keep::Remove),
        RecordKind::TwinDesired => (Table::Desired, Keep::Latest),
        RecordKind::KubeObject => (Table::KubeObjects, Keep::Latest),
        RecordKind::KubeObjectRemoved => (Table::KubeObjects, Keep::Remove),
        RecordKind::InterestState => (Table::InterestStates, Keep::Latest),
        RecordKind::InterestStateRemoved => (Table::InterestStates, Keep::Remove),
        RecordKind::KubeWriteResult => (Table::KubeWriteResults, Keep::Latest),
        RecordKind::KubeWriteResultRemoved => (Table::KubeWriteResults, Keep::Remove),
        RecordKind::Repair => (Table::Repairs, Keep::Latest),
        RecordKind::KubeStatus => (Table::KubeStatuses, Keep::Latest),
        RecordKind::KubeStatusRemoved => (Table::KubeStatuses, Keep::Remove),
        RecordKind::Interest => (Table::Interests, Keep::Latest),
        RecordKind::InterestRemoved => (Table::Interests, Keep::Remove),
        RecordKind::KubeWrite => (Table::KubeWrites, Keep::Latest),
        RecordKind::KubeWriteRemoved => (Table::KubeWrites, Keep::Remove),
        RecordKind::DownApplied => (Table::DownApplied, Keep::Latest),
        RecordKind::EventCursor => (Table::EventCursors, Keep::Latest),
        RecordKind::NodeFence => (Table::NodeFences, Keep::Latest),
        RecordKind::EdgeFence => (Table::EdgeFences, Keep::Latest),
        RecordKind::CloudFence => (Table::CloudFences, Keep::Latest),
        RecordKind::ApiObject => (Table::ApiObjects, Keep::Latest),
        RecordKind::ApiObjectDeleted => (Table::ApiObjects, Keep::Remove),
        // A summary is about samples that were folded when they were there.
        RecordKind::SampleSummary
        | RecordKind::DeviceEvent
        | RecordKind::KubeEvent
        | RecordKind::DaemonEvent
        | RecordKind::WriteIntent
        | RecordKind::ClockSync => return None,
    })
}

/// The last of the samples that `record` tells of, and how many they are.
fn as_sample(kind: RecordKind, record: v1::Record) -> Option<(v1::Record, u64)> {
    if kind != RecordKind::SampleRun {
        return Some((record, 1));
    }
    let run = v1::SampleRun::decode(record.payload).ok()?;
    let sample = v1::Sample { value: run.value };
    let payload = sample.encode_to_vec().into();
    Some((v1::Record { payload, ..record }, run.count))
}

/// Two gaps as one, when the second begins where the first ends.
fn joined(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    let (first, second) = (v1::Gap::decode(first).ok()?, v1::Gap::decode(second).ok()?);
    let follows = (
        &first.scope,
        first.lane,
        first.epoch,
        &first.reason,
        first.replaced_by,
    ) == (
        &second.scope,
        second.lane,
        second.epoch,
        &second.reason,
        second.replaced_by,
    ) && first.last_seq.checked_add(1) == Some(second.first_seq);
    let longer = v1::Gap {
        first_seq: first.first_seq,
        count: first.count.saturating_add(second.count),
        ..second
    };
    follows.then(|| longer.encode_to_vec())
}

fn entry_of(position: Position, record: v1::Record, count: u64) -> v1::Entry {
    v1::Entry {
        epoch: position.epoch.0,
        seq: position.seq.0,
        wall_us: record.wall_us,
        clock: record.clock,
        boot: record.boot,
        mono_us: record.mono_us,
        cause: record.cause,
        payload: record.payload,
        count,
    }
}

fn load<S: Read, M: Message + Default>(
    store: &S,
    scope: &Scope,
    table: Table,
    key: &[u8],
) -> Result<Option<M>, FoldError<S::Error>> {
    load_key(store, table, &table::key(scope, table, key))
}

fn load_key<S: Read, M: Message + Default>(
    store: &S,
    table: Table,
    key: &[u8],
) -> Result<Option<M>, FoldError<S::Error>> {
    let Some(bytes) = store.get(key).map_err(FoldError::Store)? else {
        return Ok(None);
    };
    decode(table, bytes).map(Some)
}

fn decode<M: Message + Default, E>(table: Table, bytes: Bytes) -> Result<M, FoldError<E>> {
    M::decode(bytes).map_err(|err| FoldError::Damaged {
        table,
        reason: err.to_string(),
    })
}

fn clear_lane<S: Store>(store: &mut S, scope: &Scope, lane: Lane) -> Result<(), FoldError<S::Error>> {
    for table in Table::ALL.into_iter().filter(|table| table.lane() == lane) {
        remove_prefix(store, &table::key(scope, table, b""))?;
    }
    Ok(())
}

fn remove_prefix<S: Store>(store: &mut S, prefix: &[u8]) -> Result<(), FoldError<S::Error>> {
    let mut keys = Vec::new();
    store
        .scan(prefix, &mut |key, _| keys.push(key.to_vec()))
        .map_err(FoldError::Store)?;
    for key in keys {
        store.remove(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
