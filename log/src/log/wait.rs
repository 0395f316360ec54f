//! Waiting on a thread that may block.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::Log;

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

/// Waits on this thread, inside an async runtime or outside.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
