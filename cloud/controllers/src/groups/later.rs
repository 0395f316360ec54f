//! What has to be looked at again, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Things to look at again, each the later the more often it failed.
#[derive(Debug)]
pub(super) struct Later<K> {
    due: BTreeMap<K, (Instant, u32)>,
}

impl<K> Default for Later<K> {
    fn default() -> Self {
        Later { due: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Later<K> {
    /// It failed: it comes again, after twice as long as the last time.
    pub(super) fn failed(&mut self, key: K) {
        let failures = self.due.get(&key).map_or(0, |(_, failures)| failures + 1);
        let wait = FIRST.saturating_mul(1 << failures.min(8)).min(LONGEST);
        self.due.insert(key, (Instant::now() + wait, failures));
    }

    /// It went well.
    pub(super) fn done(&mut self, key: &K) {
        self.due.remove(key);
    }

    /// What is due now. It stays known until it is [`Later::done`].
    pub(super) fn due(&self) -> Vec<K> {
        let now = Instant::now();
        let due = self.due.iter().filter(|(_, (at, _))| *at <= now);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Waits until something is due, for ever if there is nothing.
    pub(super) async fn wait(&self) {
        match self.due.values().map(|(at, _)| *at).min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_end_with_success() {
        let mut later = Later::default();
        let begun = Instant::now();
        later.failed("a");
        assert!(later.due().is_empty());
        later.wait().await;
        assert_eq!(later.due(), ["a"]);
        assert_eq!(begun.elapsed(), FIRST);
        later.failed("a");
        later.wait().await;
        assert_eq!(begun.elapsed(), FIRST * 3);
        for _ in 0..100 {
            later.failed("a");
        }
        let begun = Instant::now();
        later.wait().await;
        assert_eq!(begun.elapsed(), LONGEST);
        later.done(&"a");
        assert!(later.due().is_empty());
    }
}
