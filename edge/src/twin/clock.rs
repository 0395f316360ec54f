//! The time a record is given, taken through a clock that was handed in, so that tests can simulate it.

pub use ledge_proto::stamp::Stamp;

/// Tells the time of an event.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn stamp(&self) -> Stamp;
}
