//! What a fold needs of the place that keeps its state.

use bytes::Bytes;

use super::table::{Table, scope_prefix};
use crate::ids::{Lane, Scope};

/// A sorted map of bytes, to read.
pub trait Read {
    /// Why the store failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Self::Error>;

    /// Calls `visit` with every key that begins with `prefix` and its value, in the order of the keys.
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Self::Error>;
}

/// A sorted map of bytes, to fold into. Reads see the writes made before them, also those not yet committed.
pub trait Store: Read {
    /// Sets the value under `key`.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);

    /// Removes `key`, if present.
    fn remove(&mut self, key: Vec<u8>);
}

/// BLAKE3 of everything the store holds for `scope` from replicated lanes: equal on cloud and edge when both folded
/// the same records.
///
/// # Errors
/// When the store fails.
pub fn state_hash<S: Read>(store: &S, scope: &Scope) -> Result<[u8; 32], S::Error> {
    hash_of(store, scope, |table| {
        table.is_none_or(|table| table.lane().is_replicated())
    })
}

/// As [`state_hash`], of what one lane says alone, without how far it is folded: equal at the same position, however a
/// store came there.
///
/// # Errors
/// When the store fails.
pub fn lane_hash<S: Read>(store: &S, scope: &Scope, lane: Lane) -> Result<[u8; 32], S::Error> {
    hash_of(store, scope, |table| {
        table.is_some_and(|table| table.lane() == lane && table != Table::stream_of(lane))
    })
}

fn hash_of<S: Read>(
    store: &S,
    scope: &Scope,
    takes: impl Fn(Option<Table>) -> bool,
) -> Result<[u8; 32], S::Error> {
    let mut hasher = blake3::Hasher::new();
    let prefix = scope_prefix(scope);
    store.scan(&prefix, &mut |key, value| {
        if !takes(Table::of_key(&key[prefix.len()..])) {
            return;
        }
        for part in [key, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    })?;
    Ok(*hasher.finalize().as_bytes())
}
