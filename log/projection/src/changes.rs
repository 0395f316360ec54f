//! Which entries changed: for those that act on state and cannot look at all of it every time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledge_proto::fold::Table;
use ledge_proto::ids::Scope;
use tokio::sync::Notify;

use crate::Projection;

/// Keys that a reader has not taken yet; beyond, it is told to look at everything.
const UNTAKEN_MAX: usize = 1 << 16;

/// An entry that was written or removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Changed {
    /// Whose it is.
    pub scope: Scope,
    /// Which table.
    pub table: Table,
    /// Its key.
    pub key: String,
}

/// What changed since it was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Anything may have changed: at the beginning, and when too much did.
    All,
    /// These entries, each once however often it changed.
    Entries(BTreeSet<Changed>),
}

/// Tells what changes in some tables, from when it was made. What it tells is visible in [`Projection::view`].
#[derive(Debug)]
pub struct ChangeFeed {
    feed: Arc<Feed>,
    feeds: Feeds,
}

/// All feeds of a projection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feeds(Arc<Mutex<Vec<Arc<Feed>>>>);

#[derive(Debug)]
struct Feed {
    tables: Vec<Table>,
    untaken: Mutex<Changes>,
    more: Notify,
}

impl Projection {
    /// A feed of what changes in `tables`. The first thing it tells is [`Changes::All`].
    pub fn changes(&self, tables: &[Table]) -> ChangeFeed {
        let feed = Arc::new(Feed {
            tables: tables.to_vec(),
            untaken: Mutex::new(Changes::All),
            more: Notify::new(),
        });
        feed.more.notify_one();
        self.feeds.lock().push(Arc::clone(&feed));
        ChangeFeed {
            feed,
            feeds: self.feeds.clone(),
        }
    }
}

impl ChangeFeed {
    /// Waits until something changed. May be dropped while it waits: nothing is lost.
    pub async fn next(&mut self) -> Changes {
        loop {
            let taken = std::mem::replace(&mut *self.feed.untaken(), Changes::Entries(BTreeSet::new()));
            match taken {
                Changes::Entries(entries) if entries.is_empty() => self.feed.more.notified().await,
                changes => return changes,
            }
        }
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.feeds.lock().retain(|feed| !Arc::ptr_eq(feed, &self.feed));
    }
}

impl Feed {
    fn untaken(&self) -> MutexGuard<'_, Changes> {
        self.untaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, changed: &[Changed]) {
        let mut untaken = self.untaken();
        if let Changes::Entries(entries) = &mut *untaken {
            let ours = changed
                .iter()
                .filter(|changed| self.tables.contains(&changed.table));
            entries.extend(ours.cloned());
            if entries.is_empty() {
                return;
            }
            if entries.len() > UNTAKEN_MAX {
                *untaken = Changes::All;
            }
        }
        drop(untaken);
        self.more.notify_one();
    }
}

impl Feeds {
    /// What of the keys about to be written somebody wants to know.
    pub(crate) fn wanted<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<Changed> {
        let tables: BTreeSet<Table> = {
            let feeds = self.lock();
            feeds
                .iter()
                .flat_map(|feed| feed.tables.iter().copied())
                .collect()
        };
        if tables.is_empty() {
            return Vec::new();
        }
        keys.filter_map(|key| {
            let (scope, table, key) = Table::parse_store_key(key)?;
            tables.contains(&table).then_some(Changed { scope, table, key })
        })
        .collect()
    }

    /// They were written.
    pub(crate) fn tell(&self, changed: &[Changed]) {
        for feed in &*self.lock() {
            feed.take_in(changed);
        }
    }

    /// Too much was written to tell.
    pub(crate) fn tell_all(&self) {
        for feed in &*self.lock() {
            *feed.untaken() = Changes::All;
            feed.more.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Feed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
