//! Current values of a node whose history is still on its way: an overlay over what is folded.
//!
//! It comes from hints, is held in memory only, and yields, key by key, to whatever is folded of the same position or
//! a later one. Nothing is acknowledged for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledge_proto::fold::{Read, Table, snapshot};
use ledge_proto::ids::{Epoch, Incarnation, Lane, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::v1;
use prost::Message;

/// What one node said ahead of its history.
#[derive(Debug, Clone, Default)]
pub(super) struct Ahead {
    incarnation: Incarnation,
    values: BTreeMap<(Table, Vec<u8>), (Position, Bytes)>,
}

impl Ahead {
    /// Takes a hint: the later position wins, key by key.
    pub(super) fn take(&mut self, key: &StreamKey, parts: &[v1::Snapshot]) {
        let entries = match snapshot::entries_of(parts) {
            Ok((_, entries)) => entries,
            Err(err) => {
                tracing::warn!(%key, %err, "a hint cannot be read");
                return;
            }
        };
        if self.incarnation != key.incarnation {
            *self = Ahead {
                incarnation: key.incarnation,
                values: BTreeMap::new(),
            };
        }
        for (table, entry) in entries {
            let Some(position) = position_of(&entry.value) else {
                continue;
            };
            if table == Table::stream_of(key.id.lane) {
                continue;
            }
            let held = self
                .values
                .entry((table, entry.key))
                .or_insert((Position::ZERO, Bytes::new()));
            if position > held.0 {
                *held = (position, entry.value.into());
            }
        }
    }

    /// Drops what is folded by now.
    pub(super) fn forget(&mut self, folded: &v1::FoldedStream) {
        if folded.incarnation == self.incarnation.0 {
            let folded = Position {
                epoch: Epoch(folded.epoch),
                seq: Seq(folded.seq),
            };
            self.values.retain(|_, (position, _)| *position > folded);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn position_of(entry: &[u8]) -> Option<Position> {
    let entry = v1::Entry::decode(entry).ok()?;
    Some(Position {
        epoch: Epoch(entry.epoch),
        seq: Seq(entry.seq),
    })
}

/// A view with the values over it that one node said ahead of its history.
#[derive(Debug)]
pub struct Fresh<S> {
    under: S,
    over: BTreeMap<Vec<u8>, Bytes>,
}

impl<S: Read> Fresh<S> {
    pub(super) fn new(under: S, node: &Scope, mut ahead: Ahead) -> Self {
        let id = StreamId::new(node.clone(), Lane::UpState);
        if let Ok(Some(folded)) = ledge_proto::fold::folded_stream(&under, &id) {
            ahead.forget(&folded);
        }
        let over = ahead
            .values
            .into_iter()
            .map(|((table, key), (_, value))| (table.store_key(node, &key), value))
            .collect();
        Fresh { under, over }
    }

    /// How many values are ahead of what is folded.
    pub fn ahead(&self) -> usize {
        self.over.len()
    }

    /// Whether the value of `scope` under `key` is ahead of what is folded.
    pub fn is_ahead(&self, scope: &Scope, table: Table, key: &str) -> bool {
        self.over.contains_key(&table.store_key(scope, key.as_bytes()))
    }
}

impl<S: Read> Read for Fresh<S> {
    type Error = S::Error;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, S::Error> {
        match self.over.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None => self.under.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), S::Error> {
        let mut over = self
            .over
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        self.under.scan(prefix, &mut |key, value| {
            while let Some((before, value)) = over.next_if(|(over, _)| over.as_slice() < key) {
                visit(before, value);
            }
            match over.next_if(|(over, _)| over.as_slice() == key) {
                Some((_, newer)) => visit(key, newer),
                None => visit(key, value),
            }
        })?;
        over.for_each(|(key, value)| visit(key, value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ledge_proto::fold::{State, view};
    use ledge_proto::frame::{FrameWriter, push_record};
    use ledge_proto::record::Payload;

    use super::*;

    fn key(incarnation: u8) -> StreamKey {
        StreamKey {
            id: StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpState),
            incarnation: Incarnation([incarnation; 16]),
        }
    }

    /// Folds that `property` of pump-1 was `value`.
    fn say(state: &mut State, writer: &mut FrameWriter, property: &str, value: i64) {
        let (kind, payload) = Payload::TwinReported(v1::TwinReported {
            value: Some(v1::Value {
                value: Some(v1::value::Value::Int(value)),
            }),
        })
        .encode();
        let record = v1::Record {
            kind,
            key: format!("default/pump-1/{property}"),
            payload: payload.into(),
            ..Default::default()
        };
        let mut payload = Vec::new();
        push_record(&mut payload, &record);
        state.apply_frame(&writer.frame(1, &payload).unwrap()).unwrap();
    }

    fn reported(fresh: &Fresh<State>) -> Vec<(String, i64)> {
        let entries: Vec<(String, view::Latest<v1::TwinReported>)> =
            view::entries(fresh, &key(7).id.scope, Table::Reported).unwrap();
        let int = |value: Option<v1::Value>| match value.unwrap().value.unwrap() {
            v1::value::Value::Int(value) => value,
            other => panic!("{other:?}"),
        };
        let property = |key: String| key.rsplit('/').next().unwrap().to_owned();
        entries
            .into_iter()
            .map(|(key, latest)| (property(key), int(latest.content.value)))
            .collect()
    }

    #[test]
    fn what_is_ahead_shows_until_history_passes_it() {
        let scope = &key(7).id.scope;
        let mut edge = State::new();
        let mut writer = FrameWriter::new(key(7));
        say(&mut edge, &mut writer, "b", 1);
        say(&mut edge, &mut writer, "d", 2);
        let cloud = edge.clone();
        say(&mut edge, &mut writer, "a", 3);
        say(&mut edge, &mut writer, "b", 4);
        say(&mut edge, &mut writer, "e", 5);
        let held = Position {
            epoch: Epoch::FIRST,
            seq: Seq(2),
        };
        let hint = snapshot::changes(&edge, &key(7), held).unwrap().unwrap();
        let mut ahead = Ahead::default();
        ahead.take(&key(7), &hint);
        let fresh = Fresh::new(cloud, scope, ahead.clone());
        let expected = [("a", 3), ("b", 4), ("d", 2), ("e", 5)].map(|(p, v)| (p.to_owned(), v));
        assert_eq!(reported(&fresh), expected);
        assert_eq!(fresh.ahead(), 3);
        assert!(fresh.is_ahead(scope, Table::Reported, "default/pump-1/b"));
        assert!(!fresh.is_ahead(scope, Table::Reported, "default/pump-1/d"));
        // History goes further than the hint did: nothing goes back.
        say(&mut edge, &mut writer, "b", 6);
        let fresh = Fresh::new(edge.clone(), scope, ahead.clone());
        assert_eq!((fresh.ahead(), reported(&fresh)[1].1), (0, 6));
        let folded = ledge_proto::fold::folded_stream(&edge, &key(7).id)
            .unwrap()
            .unwrap();
        ahead.forget(&folded);
        assert!(ahead.is_empty());
    }

    #[test]
    fn an_older_hint_changes_nothing_and_another_life_begins_afresh() {
        let mut edge = State::new();
        let mut writer = FrameWriter::new(key(7));
        say(&mut edge, &mut writer, "a", 1);
        let old = snapshot::changes(&edge, &key(7), Position::ZERO)
            .unwrap()
            .unwrap();
        say(&mut edge, &mut writer, "a", 2);
        let new = snapshot::changes(&edge, &key(7), Position::ZERO)
            .unwrap()
            .unwrap();
        let mut ahead = Ahead::default();
        ahead.take(&key(7), &new);
        ahead.take(&key(7), &old);
        let shown = |ahead: &Ahead| reported(&Fresh::new(State::new(), &key(7).id.scope, ahead.clone()));
        assert_eq!(shown(&ahead), [("a".to_owned(), 2)]);
        let mut other = State::new();
        say(&mut other, &mut FrameWriter::new(key(8)), "z", 9);
        let hint = snapshot::changes(&other, &key(8), Position::ZERO)
            .unwrap()
            .unwrap();
        ahead.take(&key(8), &hint);
        assert_eq!(shown(&ahead), [("z".to_owned(), 9)]);
    }
}
