//! What the API holds of a kind, as far as a controller looks at it.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};

/// Namespace (empty for kinds that have none) and name.
pub(super) type Key = (String, String);

/// The key of an object.
pub(super) fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// What is known of the objects of a kind: a `V` of each.
///
/// Nothing is known until the first list is complete, and nothing is gone because a list was begun again.
#[derive(Debug)]
pub(super) struct Mirror<V> {
    now: BTreeMap<Key, V>,
    listing: BTreeMap<Key, V>,
    complete: bool,
}

/// What became of an object.
#[derive(Debug)]
pub(super) struct Change<V> {
    pub(super) key: Key,
    /// What was known of it; `None`: it was not there.
    pub(super) before: Option<V>,
}

impl<V> Default for Mirror<V> {
    fn default() -> Self {
        Mirror {
            now: BTreeMap::new(),
            listing: BTreeMap::new(),
            complete: false,
        }
    }
}

impl<V: PartialEq> Mirror<V> {
    /// Takes what a watch told, and gives what is different now. An object of which `view` is `None` is as good as absent.
    pub(super) fn take<K: ResourceExt>(
        &mut self,
        event: Event<K>,
        view: impl Fn(K) -> Option<V>,
    ) -> Vec<Change<V>> {
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = key(&object);
                if let Some(view) = view(object) {
                    self.listing.insert(key, view);
                }
                Vec::new()
            }
            Event::InitDone => {
                self.complete = true;
                let listed = std::mem::take(&mut self.listing);
                let mut changes = Vec::new();
                let mut before = std::mem::take(&mut self.now);
                for (key, view) in &listed {
                    let before = before.remove(key);
                    if before.as_ref() != Some(view) {
                        let key = key.clone();
                        changes.push(Change { key, before });
                    }
                }
                let gone = before.into_iter().map(|(key, before)| Change {
                    key,
                    before: Some(before),
                });
                changes.extend(gone);
                self.now = listed;
                changes
            }
            Event::Apply(object) => {
                let key = key(&object);
                let view = view(object);
                if self.now.get(&key) == view.as_ref() {
                    return Vec::new();
                }
                let before = match view {
                    Some(view) => self.now.insert(key.clone(), view),
                    None => self.now.remove(&key),
                };
                vec![Change { key, before }]
            }
            Event::Delete(object) => {
                let key = key(&object);
                let before = self.now.remove(&key);
                let change = before.map(|before| Change {
                    key,
                    before: Some(before),
                });
                change.into_iter().collect()
            }
        }
    }

    /// Whether all objects are known.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// What is known of an object.
    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.now.get(key)
    }

    /// All that is known.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.now.iter()
    }
}

/// What a watch tells; while it fails it is begun again, ever more slowly, and one line says so.
pub(super) fn events<K: Send + 'static>(
    what: String,
    stream: impl futures::Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> BoxStream<'static, Event<K>> {
    let mut failing = false;
    stream
        .default_backoff()
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    failing = false;
                    Some(event)
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%what, %error, "cannot be followed now; it is tried again");
                    }
                    None
                }
            };
            std::future::ready(event)
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(name: &str, value: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.data = Some([("value".to_owned(), value.to_owned())].into());
        map
    }

    fn take(mirror: &mut Mirror<String>, event: Event<ConfigMap>) -> Vec<(String, Option<String>)> {
        let changes = mirror.take(event, |map| {
            map.data?.remove("value").filter(|value| !value.is_empty())
        });
        changes
            .into_iter()
            .map(|change| (change.key.1, change.before))
            .collect()
    }

    #[test]
    fn nothing_is_gone_before_a_list_is_complete() {
        let mut mirror = Mirror::default();
        assert!(take(&mut mirror, Event::Init).is_empty());
        assert!(take(&mut mirror, Event::InitApply(map("a", "1"))).is_empty());
        assert!(!mirror.is_complete());
        take(&mut mirror, Event::InitApply(map("b", "1")));
        assert_eq!(take(&mut mirror, Event::InitDone).len(), 2);
        assert!(mirror.is_complete());
        // Begun again: `b` is still known until the end of the list tells otherwise.
        take(&mut mirror, Event::Init);
        take(&mut mirror, Event::InitApply(map("a", "2")));
        assert!(mirror.get(&(String::new(), "b".to_owned())).is_some());
        let was = Some("1".to_owned());
        assert_eq!(
            take(&mut mirror, Event::InitDone),
            [("a".to_owned(), was.clone()), ("b".to_owned(), was)]
        );
        assert_eq!(mirror.iter().count(), 1);
    }

    #[test]
    fn only_what_is_looked_at_changes() {
        let mut mirror = Mirror::default();
        assert_eq!(
            take(&mut mirror, Event::Apply(map("a", "1"))),
            [("a".to_owned(), None)]
        );
        assert!(take(&mut mirror, Event::Apply(map("a", "1"))).is_empty());
        // What is not looked at any more is gone.
        assert_eq!(
            take(&mut mirror, Event::Apply(map("a", ""))),
            [("a".to_owned(), Some("1".to_owned()))]
        );
        assert!(take(&mut mirror, Event::Delete(map("a", ""))).is_empty());
    }
}
