//! State in memory: for replay, time travel and tests.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;

use super::{FoldError, Read, Store, apply_frame, state_hash, view};
use crate::frame::Frame;
use crate::ids::Scope;

/// The state of one or many nodes, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    entries: BTreeMap<Vec<u8>, Bytes>,
}

impl State {
    /// Nothing folded yet.
    pub fn new() -> Self {
        State::default()
    }

    /// Folds one frame; see [`apply_frame`].
    ///
    /// # Errors
    /// See [`FoldError`]; the state may hold part of the frame then.
    pub fn apply_frame(&mut self, frame: &Frame) -> Result<(), FoldError<Infallible>> {
        apply_frame(self, frame)
    }

    /// Hash of what is known about `scope`; see [`state_hash`].
    pub fn hash(&self, scope: &Scope) -> [u8; 32] {
        match state_hash(self, scope) {
            Ok(hash) => hash,
            Err(never) => match never {},
        }
    }

    /// Every scope something is known about, in order.
    pub fn scopes(&self) -> Vec<Scope> {
        view::scopes(self).unwrap_or_default()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was folded.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Read for State {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Infallible> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Infallible> {
        for (key, value) in self.entries.range(prefix.to_vec()..) {
            if !key.starts_with(prefix) {
                break;
            }
            visit(key, value);
        }
        Ok(())
    }
}

impl Store for State {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.entries.insert(key, value.into());
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.entries.remove(&key);
    }
}
