//! What was folded but not yet committed: one fjall batch or bulk load, readable while it grows.

use bytes::Bytes;
use fjall::UserValue;
use ledge_proto::fold::{Read, Store};

use crate::pending::Pending;
use crate::{APPLIED_KEY, Applied, Projection, ProjectionError, StoreError, View};

/// A value to be written.
enum Value {
    /// As the fold made it.
    Folded(Vec<u8>),
    /// fjall's own: handing it over copies nothing, and what the fold made was given back while it was still in the cache.
    Ready(UserValue),
}

impl Value {
    fn into_ready(self) -> UserValue {
        match self {
            Value::Folded(value) => value.into(),
            Value::Ready(value) => value,
        }
    }
}

impl std::ops::Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Value::Folded(value) => value,
            Value::Ready(value) => value,
        }
    }
}

/// Writes collected over a view of the projection.
pub(crate) struct Batch<'a> {
    projection: &'a Projection,
    base: View,
    pending: Pending<Value>,
    bytes: usize,
    /// From nothing: most values are written again before they are committed, so only the last is made ready for it.
    rebuilding: bool,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(projection: &'a Projection, rebuilding: bool) -> Self {
        Batch {
            projection,
            base: projection.view(),
            pending: Pending::default(),
            bytes: 0,
            rebuilding,
        }
    }

    /// Bytes to be written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Commits the writes and the position they stand for as one, without fsync.
    pub(crate) fn commit(self, applied: Applied) -> Result<(), ProjectionError> {
        let projection = self.projection;
        let changed = projection.feeds.wanted(self.pending.keys());
        let mut batch = projection.db.batch();
        for (key, value) in self.pending.into_sorted() {
            match value {
                Some(value) => batch.insert(&projection.state, key, value.into_ready()),
                None => batch.remove(&projection.state, key),
            }
        }
        batch.insert(&projection.state, APPLIED_KEY, applied.encode());
        batch.commit().map_err(|source| projection.error(source))?;
        projection.applied.send_replace(applied);
        projection.feeds.tell(&changed);
        Ok(())
    }

    /// As [`Batch::commit`], as one table of its own, past journal and memtable: faster, and written once. For large batches
    /// while nobody reads: many small tables would have to be merged again.
    pub(crate) fn load(self, applied: Applied) -> Result<(), ProjectionError> {
        let projection = self.projection;
        let load = || -> fjall::Result<()> {
            let mut load = projection.state.start_ingestion()?;
            for (key, value) in self.pending.into_sorted() {
                match value {
                    Some(value) => load.write(key, value.into_ready())?,
                    None => load.write_tombstone(key)?,
                }
            }
            // The last of all keys; the table becomes part of the keyspace as a whole.
            load.write(APPLIED_KEY, applied.encode())?;
            load.finish()
        };
        load().map_err(|source| projection.error(source))?;
        projection.applied.send_replace(applied);
        projection.feeds.tell_all();
        Ok(())
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Value>) {
        let (key_len, len) = (key.len(), value.as_ref().map_or(0, |value| value.len()));
        self.bytes += match self.pending.insert(key, value) {
            Some(before) => {
                self.bytes -= before.map_or(0, |before| before.len());
                len
            }
            None => key_len + len,
        };
    }
}

impl Read for Batch<'_> {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.pending.get(key) {
            Some(value) => Ok(value.as_deref().map(Bytes::copy_from_slice)),
            None => self.base.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let mut pending = self.pending.range(prefix).peekable();
        self.base.scan(prefix, &mut |key, value| {
            while let Some((ours, written)) = pending.next_if(|(ours, _)| ours[..] < *key) {
                if let Some(written) = written {
                    visit(ours, written);
                }
            }
            match pending.next_if(|(ours, _)| ours[..] == *key) {
                Some((_, Some(written))) => visit(key, written),
                Some((_, None)) => {}
                None => visit(key, value),
            }
        })?;
        for (key, written) in pending {
            if let Some(written) = written {
                visit(key, written);
            }
        }
        Ok(())
    }
}

impl Store for Batch<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let value = if self.rebuilding {
            Value::Folded(value)
        } else {
            Value::Ready(value.into())
        };
        self.set(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.set(key, None);
    }
}
