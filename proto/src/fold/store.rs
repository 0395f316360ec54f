//! What a fold needs of the place that keeps its state.

use bytes::Bytes;

use super::table::{Table, scope_prefix};
use crate::ids::Scope;

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
    let mut hasher = blake3::Hasher::new();
    let prefix = scope_prefix(scope);
    store.scan(&prefix, &mut |key, value| {
        if Table::of_key(&key[prefix.len()..]).is_some_and(|table| !table.lane().is_replicated()) {
            return;
        }
        for part in [key, value] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    })?;
    Ok(*hasher.finalize().as_bytes())
}
