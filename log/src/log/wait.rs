//! Waiting on a thread that may block.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Log;
use crate::sync::block_on;

impl Log {
    /// Resolves `ticket`, committing on this thread when nobody else does.
    pub(super) fn help_until<T>(&self, ticket: T) -> T::Output
    where
        T: Future + Unpin,
    {
        let mut ticket = ticket;
        let mut output = None;
        let mut nobody = Context::from_waker(Waker::noop());
        if self.shared().commits_inline() {
            self.shared().commit_all();
            return block_on(ticket);
        }
        self.shared().help(|| {
            if let Poll::Ready(answer) = Pin::new(&mut ticket).poll(&mut nobody) {
                output = Some(answer);
            }
            output.is_some()
        });
        match output {
            Some(answer) => answer,
            None => block_on(ticket),
        }
    }
}
