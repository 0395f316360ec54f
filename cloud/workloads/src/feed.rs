//! The watches of all kinds as one stream.
//!
//! A watch is polled by the task that acts, and only between its actions. That a kind is about to be listed is told before
//! the list is asked for, so no write of ours happens between a list and its end: a list is never older than what is known.

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll, select_all};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::world::{Input, Tracked, watches};

/// What all watches tell.
pub(crate) type Feed = SelectAll<BoxStream<'static, Input>>;

/// Follows every kind of [`crate::world::World`]. Never ends: a watch that fails is begun again, ever more slowly.
pub(crate) fn feed(client: &Client) -> Feed {
    select_all(watches(client))
}

pub(crate) fn watch<K: Tracked>(client: &Client) -> BoxStream<'static, Input> {
    let told = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    told.filter_map(async |event| match event {
        Ok(event) => Some(K::input(event)),
        Err(error) => {
            let kind = <K as k8s_openapi::Resource>::KIND;
            tracing::warn!(kind, %error, "objects cannot be followed; it is tried again");
            None
        }
    })
    .boxed()
}
