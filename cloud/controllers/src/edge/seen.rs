//! What the API says of Nodes and pods, for those who write their status: whatever another writer made of it, they see.
//! `down` follows these kinds anyway.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

/// An object is put right at most once in this time: a writer that insists is answered, and not raced.
const PUT_RIGHT_EVERY: Duration = Duration::from_secs(10);

/// Nodes and pods that were made or changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) nodes: Arc<Latest>,
    pub(crate) pods: Arc<Latest>,
}

/// Objects by their keys, the latest of each until it is taken: never more than there are.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    objects: Mutex<BTreeMap<String, Value>>,
    more: Notify,
}

impl Latest {
    pub(crate) fn put(&self, key: String, object: Value) {
        self.lock().insert(key, object);
        self.more.notify_one();
    }

    /// Waits until there is any. May be dropped while it waits: nothing is lost.
    pub(crate) async fn take(&self) -> BTreeMap<String, Value> {
        loop {
            let taken = std::mem::take(&mut *self.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.more.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When what has to be put right is.
#[derive(Debug)]
pub(crate) struct Paced<K> {
    due: HashMap<K, Instant>,
    last: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Paced<K> {
    pub(crate) fn new() -> Paced<K> {
        Paced {
            due: HashMap::new(),
            last: HashMap::new(),
        }
    }

    /// It is to be put right: now, or when it may be again.
    pub(crate) fn add(&mut self, what: K) {
        let now = Instant::now();
        let last = self.last.get(&what);
        let due = last.map_or(now, |last| (*last + PUT_RIGHT_EVERY).max(now));
        self.due.entry(what).or_insert(due);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// What is due.
    pub(crate) fn take(&mut self) -> Vec<K> {
        let now = Instant::now();
        self.last.retain(|_, last| *last + PUT_RIGHT_EVERY > now);
        let due = self.due.extract_if(|_, due| *due <= now);
        let due: Vec<K> = due.map(|(what, _)| what).collect();
        self.last.extend(due.iter().map(|what| (what.clone(), now)));
        due
    }
}

/// Waits until then.
pub(crate) async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_insists_is_answered_once_in_a_while() {
        let mut paced = Paced::new();
        let mut answers = Vec::new();
        let began = Instant::now();
        for _ in 0..59 {
            paced.add("a");
            answers.extend(paced.take().into_iter().map(|_| began.elapsed().as_secs()));
            advance(Duration::from_millis(500)).await;
        }
        assert_eq!(answers, [0, 10, 20]);
        // Another one need not wait for it.
        paced.add("b");
        assert_eq!(paced.take(), ["b"]);
        assert_eq!(paced.next(), Some(began + Duration::from_secs(30)));
    }
}
