//! Device history as SQL: the records of a log as tables.
//!
//! [`source`] says where frames come from, [`clocks`] when their records happened, [`payload`] turns records into JSON and text for people, and `sql`
//! (feature `sql`, on by default) gives the tables to DataFusion. The same text gives the same rows in the same
//! order on an edge's log and on the cloud's.

pub mod clocks;
pub mod payload;
pub mod source;
#[cfg(feature = "sql")]
pub mod sql;

pub use source::{FrameSource, SourceError};
#[cfg(feature = "sql")]
pub use sql::{HistoryContext, HistoryError, Options, Rows};
