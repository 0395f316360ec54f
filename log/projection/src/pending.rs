//! Writes in the order of their keys, fast for many in a row of one scope.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use fjall::UserKey;

/// A sorted map: for each key the value to be written, or `None` to remove it.
///
/// A key begins with its scope and a zero byte, and a frame is of one scope. So each scope has a map of its own, small enough
/// to stay in the processor's cache while its frame is folded. Keys are fjall's own from the start, so that handing them over copies
/// nothing.
#[derive(Debug)]
pub(crate) struct Pending<V> {
    scopes: Vec<OfScope<V>>,
    by_scope: HashMap<Box<[u8]>, usize>,
    /// Where the last write went.
    last: usize,
}

#[derive(Debug)]
struct OfScope<V> {
    scope: Box<[u8]>,
    writes: BTreeMap<UserKey, Option<V>>,
}

impl<V> Default for Pending<V> {
    fn default() -> Self {
        Pending {
            scopes: Vec::new(),
            by_scope: HashMap::new(),
            last: 0,
        }
    }
}

/// What of a key tells its scope: up to and with the first zero byte, or all of it.
///
/// No such part begins with another, unless that one is a whole key. So all keys of one scope come before all keys of the
/// next.
fn scope_of(key: &[u8]) -> &[u8] {
    let end = key.iter().position(|byte| *byte == 0);
    end.map_or(key, |zero| &key[..=zero])
}

impl<V> Pending<V> {
    /// Returns what was to be written under `key` before.
    pub(crate) fn insert(&mut self, key: Vec<u8>, value: Option<V>) -> Option<Option<V>> {
        let scope = scope_of(&key);
        self.last = match self.find(scope) {
            Some(at) => at,
            None => {
                self.by_scope.insert(scope.into(), self.scopes.len());
                self.scopes.push(OfScope {
                    scope: scope.into(),
                    writes: BTreeMap::new(),
                });
                self.scopes.len() - 1
            }
        };
        let writes = &mut self.scopes[self.last].writes;
        // A rebuild writes most keys again and again: then no other copy of the key is made.
        match writes.get_mut(&key[..]) {
            Some(before) => Some(std::mem::replace(before, value)),
            None => writes.insert(key.into(), value),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<V>> {
        self.scopes[self.find(scope_of(key))?].writes.get(key)
    }

    /// Everything whose key begins with `prefix`, sorted.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a UserKey, &'a Option<V>)> {
        let mut scopes: Vec<&OfScope<V>> = if prefix.contains(&0) {
            self.find(scope_of(prefix))
                .map(|at| &self.scopes[at])
                .into_iter()
                .collect()
        } else {
            let begins = |of: &&OfScope<V>| of.scope.starts_with(prefix);
            self.scopes.iter().filter(begins).collect()
        };
        scopes.sort_unstable_by(|a, b| a.scope.cmp(&b.scope));
        scopes.into_iter().flat_map(move |of| {
            of.writes
                .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(move |(key, _)| key.starts_with(prefix))
        })
    }

    /// The keys of everything, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.scopes
            .iter()
            .flat_map(|of| of.writes.keys().map(|key| &key[..]))
    }

    /// Everything, sorted.
    pub(crate) fn into_sorted(mut self) -> impl Iterator<Item = (UserKey, Option<V>)> {
        self.scopes.sort_unstable_by(|a, b| a.scope.cmp(&b.scope));
        self.scopes.into_iter().flat_map(|of| of.writes)
    }

    fn find(&self, scope: &[u8]) -> Option<usize> {
        if self.scopes.get(self.last).is_some_and(|of| *of.scope == *scope) {
            return Some(self.last);
        }
        self.by_scope.get(scope).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few letters, so that keys meet: scopes that begin with each other, keys that are a scope, keys without one.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, b'a', b'b']), 0..6)
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(
            writes in prop::collection::vec((key(), prop::option::of(0u8..4)), 0..60),
            prefix in key(),
        ) {
            let mut pending = Pending::default();
            let mut map: BTreeMap<Vec<u8>, Option<u8>> = BTreeMap::new();
            for (key, value) in writes {
                prop_assert_eq!(pending.insert(key.clone(), value), map.insert(key, value));
            }
            prop_assert_eq!(pending.get(&prefix), map.get(&prefix));
            let expected: Vec<_> = map.iter().filter(|(key, _)| key.starts_with(&prefix)).collect();
            let found: Vec<_> = pending.range(&prefix).map(|(key, value)| (key.to_vec(), value)).collect();
            prop_assert_eq!(found.iter().map(|(key, value)| (key, *value)).collect::<Vec<_>>(), expected);
            let sorted: Vec<_> = pending.into_sorted().map(|(key, value)| (key.to_vec(), value)).collect();
            prop_assert_eq!(sorted, map.into_iter().collect::<Vec<_>>());
        }
    }
}
