//! How much a peer may send ahead: little for a link that idles, much for one that catches up.
//!
//! Memory for what was received and not yet read is what a crowd of links costs; only so many get the large window at
//! once, in the order in which they asked.

use std::pin::Pin;
use std::sync::Arc;

use quinn::{Connection, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Receive window of a connection that idles; also what a connection begins with.
pub(crate) const IDLE_WINDOW: u32 = 256 * 1024;
/// Receive window of one that catches up: a little more than one lane's worth each.
pub(crate) const REPLAY_WINDOW: u32 = 12 * 1024 * 1024;
/// A backlog of so many records asks for the large window; one of fewer than the second gives it back.
const BEHIND_RECORDS: u64 = 1024;
const CAUGHT_UP_RECORDS: u64 = 64;

/// How many links of a process may have the large window at once. Clones share them.
#[derive(Debug, Clone)]
pub struct ReplaySlots(Arc<Semaphore>);

impl ReplaySlots {
    /// So many.
    pub fn new(links: usize) -> Self {
        ReplaySlots(Arc::new(Semaphore::new(links.min(Semaphore::MAX_PERMITS))))
    }
}

type Slot = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// The window of one connection.
pub(super) struct Window {
    connection: Connection,
    slots: ReplaySlots,
    held: Option<OwnedSemaphorePermit>,
    waiting: Option<Slot>,
}

impl Window {
    pub(super) fn new(connection: Connection, slots: ReplaySlots) -> Self {
        Window {
            connection,
            slots,
            held: None,
            waiting: None,
        }
    }

    /// The peer has so many records that we do not hold.
    pub(super) fn set_backlog(&mut self, records: u64) {
        if records >= BEHIND_RECORDS && self.held.is_none() && self.waiting.is_none() {
            let slots = self.slots.0.clone();
            self.waiting = Some(Box::pin(async move { slots.acquire_owned().await.ok() }));
        } else if records < CAUGHT_UP_RECORDS {
            self.waiting = None;
            if self.held.take().is_some() {
                self.connection.set_receive_window(VarInt::from_u32(IDLE_WINDOW));
            }
        }
    }

    /// Resolves when it is this connection's turn, which has the large window from then on.
    pub(super) async fn raise(&mut self) {
        let Some(waiting) = &mut self.waiting else {
            return std::future::pending().await;
        };
        let permit = waiting.await;
        self.waiting = None;
        if permit.is_some() {
            self.connection
                .set_receive_window(VarInt::from_u32(REPLAY_WINDOW));
        }
        self.held = permit;
    }
}
