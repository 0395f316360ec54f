//! Snapshots: the folded state of one lane of a scope, taken out of one store and loaded into another.
//!
//! Loading a snapshot of position P gives the same entries as folding every record up to P, so a store that was
//! loaded and one that folded all of them have the same [`super::state_hash`].

use bytes::Bytes;
use prost::Message;
use prost::encoding::decode_varint;

use super::table::{self, Table};
use super::{FOLD_VERSION, FoldError, Read, Store, folded_stream};
use crate::ids::{
    Chain, Epoch, Incarnation, Lane, Mark, NameError, Position, Scope, Seq, StreamId, StreamKey,
};
use crate::limits;
use crate::v1;
use crate::v1::snapshot::Purpose;

/// Why a snapshot cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A name in it is not valid.
    #[error("snapshot: {0}")]
    Name(#[from] NameError),
    /// Its entries cannot be read.
    #[error("snapshot of {stream}: {reason}")]
    Malformed {
        /// The stream.
        stream: String,
        /// Why.
        reason: String,
    },
    /// Its parts do not belong together.
    #[error("snapshot of {stream}: its parts do not belong together")]
    Parts {
        /// The stream.
        stream: String,
    },
}

/// Gives the folded state of streams. Calls may block: they come from threads meant for that.
pub trait SnapshotSource: Send + Sync + 'static {
    /// Everything folded of `key`, with the position it is folded up to; `None` when there is nothing.
    fn live(&self, key: &StreamKey) -> Option<Vec<v1::Snapshot>>;

    /// The position `key` is folded up to; `None` when nothing of it is.
    fn mark(&self, key: &StreamKey) -> Option<Mark>;

    /// What was folded of `key` after `after` (see [`changes`]); `None` when nothing was.
    fn changes(&self, key: &StreamKey, after: Position) -> Option<Vec<v1::Snapshot>>;
}

/// The stream a part is about.
///
/// # Errors
/// [`SnapshotError::Name`].
pub fn key_of(part: &v1::Snapshot) -> Result<StreamKey, SnapshotError> {
    Ok(StreamKey {
        id: StreamId::new(Scope::from_wire(&part.scope)?, Lane::from_wire(part.lane)?),
        incarnation: Incarnation::from_slice(&part.incarnation)?,
    })
}

/// The position a part is folded up to.
///
/// # Errors
/// [`SnapshotError::Name`].
pub fn mark_of(part: &v1::Snapshot) -> Result<Mark, SnapshotError> {
    let chain = if part.seq == 0 {
        key_of(part)?.genesis_chain()
    } else {
        Chain::from_slice(&part.chain)?
    };
    Ok(Mark {
        position: Position {
            epoch: Epoch(part.epoch),
            seq: Seq(part.seq),
        },
        chain,
    })
}

/// Takes out what `store` holds of the lane of `key`, as parts of at most [`limits::SNAPSHOT_PART_BYTES`] before
/// compression (one entry more, when a single entry is larger). `None` when the store has folded nothing of it.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn extract<S: Read>(
    store: &S,
    key: &StreamKey,
    purpose: Purpose,
) -> Result<Option<Vec<v1::Snapshot>>, FoldError<S::Error>> {
    take_out(store, key, purpose, Position::ZERO)
}

/// Takes out what `store` folded of the lane of `key` after `after`: values to send ahead of the records that say so
/// ([`Purpose::Hint`]). Its mark is the position folded up to. `None` when nothing was folded since.
///
/// # Errors
/// When the store fails or an entry is damaged.
pub fn changes<S: Read>(
    store: &S,
    key: &StreamKey,
    after: Position,
) -> Result<Option<Vec<v1::Snapshot>>, FoldError<S::Error>> {
    take_out(store, key, Purpose::Hint, after)
}

fn take_out<S: Read>(
    store: &S,
    key: &StreamKey,
    purpose: Purpose,
    after: Position,
) -> Result<Option<Vec<v1::Snapshot>>, FoldError<S::Error>> {
    let Some(folded) = folded_stream(store, &key.id)? else {
        return Ok(None);
    };
    let up_to = Position {
        epoch: Epoch(folded.epoch),
        seq: Seq(folded.seq),
    };
    let unchanged = after != Position::ZERO && up_to <= after;
    if folded.incarnation != key.incarnation.0.as_slice() || unchanged {
        return Ok(None);
    }
    let mut bodies = vec![Vec::new()];
    let mut damaged = None;
    for table in Table::ALL.into_iter().filter(|table| table.lane() == key.id.lane) {
        let prefix = table::key(&key.id.scope, table, b"");
        let changed = |value: &[u8]| -> Result<bool, FoldError<S::Error>> {
            if purpose != Purpose::Hint {
                return Ok(true);
            }
            if table == Table::stream_of(key.id.lane) {
                return Ok(false);
            }
            let entry: v1::Entry = super::decode(table, Bytes::copy_from_slice(value))?;
            let written = Position {
                epoch: Epoch(entry.epoch),
                seq: Seq(entry.seq),
            };
            Ok(written > after)
        };
        store
            .scan(&prefix, &mut |at, value| {
                match changed(value) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(err) => {
                        damaged.get_or_insert(err);
                        return;
                    }
                }
                let entry = v1::SnapshotEntry {
                    table: u32::from(table as u8),
                    key: at[prefix.len()..].to_vec(),
                    value: value.to_vec(),
                };
                let full = bodies.last().is_some_and(|body| {
                    !body.is_empty() && body.len() + entry.encoded_len() > limits::SNAPSHOT_PART_BYTES
                });
                if full {
                    bodies.push(Vec::new());
                }
                if let Some(body) = bodies.last_mut() {
                    body.extend_from_slice(&entry.encode_length_delimited_to_vec());
                }
            })
            .map_err(FoldError::Store)?;
    }
    if let Some(err) = damaged {
        return Err(err);
    }
    let count = u32::try_from(bodies.len()).unwrap_or(u32::MAX);
    let parts = bodies.into_iter().zip(0..).map(|(body, part)| v1::Snapshot {
        scope: key.id.scope.as_wire().to_owned(),
        lane: key.id.lane.as_wire(),
        incarnation: folded.incarnation.clone(),
        epoch: folded.epoch,
        seq: folded.seq,
        chain: folded.chain.clone(),
        part,
        parts: count,
        fold_version: FOLD_VERSION,
        purpose: purpose.into(),
        superseded_after: None,
        raw_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        // Into memory: zstd only fails when its output has no room.
        entries: zstd::bulk::compress(&body, 1).unwrap_or_default().into(),
    });
    Ok(Some(parts.collect()))
}

/// The snapshot of a stream of which nothing is folded, at no position yet.
pub fn nothing(key: &StreamKey, purpose: Purpose) -> v1::Snapshot {
    v1::Snapshot {
        scope: key.id.scope.as_wire().to_owned(),
        lane: key.id.lane.as_wire(),
        incarnation: key.incarnation.0.to_vec(),
        parts: 1,
        fold_version: FOLD_VERSION,
        purpose: purpose.into(),
        ..Default::default()
    }
}

/// The position up to which `store` has folded `key`; `None` when it has folded nothing of it.
///
/// # Errors
/// When the store fails or the entry is damaged.
pub fn folded_mark<S: Read>(store: &S, key: &StreamKey) -> Result<Option<Mark>, FoldError<S::Error>> {
    let folded = folded_stream(store, &key.id)?;
    let folded = folded.filter(|folded| folded.incarnation == key.incarnation.0);
    let mark = folded.map(|folded| {
        Ok(Mark {
            position: Position {
                epoch: Epoch(folded.epoch),
                seq: Seq(folded.seq),
            },
            chain: Chain::from_slice(&folded.chain)?,
        })
    });
    mark.transpose()
        .map_err(|err: NameError| FoldError::Snapshot(err.into()))
}

/// Puts a whole snapshot in the place of everything `store` holds of that lane.
///
/// # Errors
/// [`FoldError::Snapshot`] when the parts are not one whole snapshot; the store was not changed then.
pub fn load<S: Store>(store: &mut S, parts: &[v1::Snapshot]) -> Result<(), FoldError<S::Error>> {
    let (key, entries) = entries_of(parts).map_err(FoldError::Snapshot)?;
    let scope = &key.id.scope;
    super::clear_lane(store, scope, key.id.lane)?;
    for (table, entry) in entries {
        store.put(table::key(scope, table, &entry.key), entry.value);
    }
    // The mark of the parts, not the entry's: a stream that was rebased continues from there.
    let mut folded = folded_stream(store, &key.id)?.unwrap_or_default();
    folded.incarnation = key.incarnation.0.to_vec();
    if let Some(first) = parts.first() {
        folded.epoch = first.epoch;
        folded.seq = first.seq;
        folded.chain.clone_from(&first.chain);
    }
    store.put(
        table::key(scope, Table::stream_of(key.id.lane), b""),
        folded.encode_to_vec(),
    );
    Ok(())
}

/// The stream and the entries of a whole snapshot.
///
/// # Errors
/// See [`SnapshotError`].
pub fn entries_of(
    parts: &[v1::Snapshot],
) -> Result<(StreamKey, Vec<(Table, v1::SnapshotEntry)>), SnapshotError> {
    let Some(first) = parts.first() else {
        return Err(SnapshotError::Parts {
            stream: String::new(),
        });
    };
    let key = key_of(first)?;
    mark_of(first)?;
    let mut entries = Vec::new();
    for (part, n) in parts.iter().zip(0u32..) {
        let whole = part.part == n
            && part.parts as usize == parts.len()
            && key_of(part)? == key
            && (part.epoch, part.seq) == (first.epoch, first.seq)
            && part.chain == first.chain;
        if !whole {
            return Err(SnapshotError::Parts {
                stream: key.to_string(),
            });
        }
        decode_entries(part, &key, &mut entries)?;
    }
    Ok((key, entries))
}

fn decode_entries(
    part: &v1::Snapshot,
    key: &StreamKey,
    into: &mut Vec<(Table, v1::SnapshotEntry)>,
) -> Result<(), SnapshotError> {
    let malformed = |reason: &str| SnapshotError::Malformed {
        stream: key.to_string(),
        reason: reason.to_owned(),
    };
    let raw_len = part.raw_len as usize;
    if raw_len > limits::SNAPSHOT_PART_MAX_BYTES {
        return Err(malformed("a part is larger than allowed"));
    }
    let raw = zstd::bulk::decompress(&part.entries, raw_len)
        .map_err(|_| malformed("a part cannot be decompressed"))?;
    if raw.len() != raw_len {
        return Err(malformed("a part is not as long as it says"));
    }
    let mut rest = raw.as_slice();
    while !rest.is_empty() {
        let len = decode_varint(&mut rest).map_err(|_| malformed("an entry has no length"))?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let body = rest.get(..len).ok_or_else(|| malformed("an entry is cut off"))?;
        let entry = v1::SnapshotEntry::decode(body).map_err(|_| malformed("an entry is not a message"))?;
        rest = &rest[len..];
        let number = u8::try_from(entry.table).map_err(|_| malformed("an entry's table has no number"))?;
        match Table::of_key(&[number]) {
            Some(table) if table.lane() == key.id.lane => into.push((table, entry)),
            Some(_) => return Err(malformed("an entry belongs to another lane")),
            None => {} // A table of a later version.
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::State;
    use crate::frame::FrameWriter;
    use crate::record::Payload;

    fn record(n: u64) -> v1::Record {
        let (kind, payload) = Payload::Sample(v1::Sample {
            value: Some(v1::Value {
                value: Some(v1::value::Value::Int(i64::try_from(n).unwrap())),
            }),
        })
        .encode();
        v1::Record {
            kind,
            key: format!("default/pump-{}/temperature", n % 50),
            wall_us: i64::try_from(n).unwrap() * 1000,
            mono_us: n,
            boot: 1,
            payload: payload.into(),
            ..Default::default()
        }
    }

    fn folded(records: std::ops::Range<u64>, writer: &mut FrameWriter, state: &mut State) {
        for n in records {
            let mut payload = Vec::new();
            crate::frame::push_record(&mut payload, &record(n));
            state.apply_frame(&writer.frame(1, &payload).unwrap()).unwrap();
        }
    }

    fn key() -> StreamKey {
        StreamKey {
            id: StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData),
            incarnation: Incarnation([7; 16]),
        }
    }

    #[test]
    fn loading_is_as_good_as_folding() {
        let mut writer = FrameWriter::new(key());
        let mut whole = State::new();
        folded(0..500, &mut writer, &mut whole);
        let parts = extract(&whole, &key(), Purpose::Base).unwrap().unwrap();
        let mut loaded = State::new();
        // What the store held of the lane before goes.
        folded(900..950, &mut FrameWriter::new(key()), &mut loaded);
        load(&mut loaded, &parts).unwrap();
        assert_eq!(loaded, whole);
        // And folding goes on from there.
        let mut payload = Vec::new();
        crate::frame::push_record(&mut payload, &record(501));
        let next = writer.frame(1, &payload).unwrap();
        loaded.apply_frame(&next).unwrap();
        whole.apply_frame(&next).unwrap();
        assert_eq!(loaded.hash(&key().id.scope), whole.hash(&key().id.scope));
    }

    #[test]
    fn a_hint_holds_what_was_folded_since_and_not_how_far() {
        let mut writer = FrameWriter::new(key());
        let mut state = State::new();
        folded(0..50, &mut writer, &mut state);
        let before = Position {
            epoch: Epoch::FIRST,
            seq: Seq(50),
        };
        assert_eq!(changes(&state, &key(), before).unwrap(), None);
        folded(50..53, &mut writer, &mut state);
        let parts = changes(&state, &key(), before).unwrap().unwrap();
        assert_eq!(parts[0].purpose(), Purpose::Hint);
        assert_eq!(mark_of(&parts[0]).unwrap().position.seq, Seq(53));
        let (_, entries) = entries_of(&parts).unwrap();
        let keys: Vec<_> = entries
            .iter()
            .map(|(table, entry)| (*table, entry.key.as_slice()))
            .collect();
        let sample = |n| {
            (
                Table::LatestSamples,
                format!("default/pump-{n}/temperature").into_bytes(),
            )
        };
        let expected = [sample(0), sample(1), sample(2)];
        assert_eq!(
            keys,
            expected
                .iter()
                .map(|(t, k)| (*t, k.as_slice()))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn parts_that_do_not_belong_together_change_nothing() {
        let mut state = State::new();
        folded(0..10, &mut FrameWriter::new(key()), &mut state);
        let parts = extract(&state, &key(), Purpose::Base).unwrap().unwrap();
        let mut twice = parts.clone();
        twice.extend(parts);
        let mut other = state.clone();
        assert!(matches!(
            load(&mut other, &twice),
            Err(FoldError::Snapshot(SnapshotError::Parts { .. }))
        ));
        assert!(load(&mut other, &[]).is_err());
        assert_eq!(other, state);
    }

    #[test]
    fn a_part_that_claims_too_much_is_refused_before_anything_is_allocated() {
        let mut state = State::new();
        folded(0..10, &mut FrameWriter::new(key()), &mut state);
        let mut parts = extract(&state, &key(), Purpose::Base).unwrap().unwrap();
        parts[0].raw_len = u32::MAX;
        assert!(matches!(entries_of(&parts), Err(SnapshotError::Malformed { .. })));
    }
}
