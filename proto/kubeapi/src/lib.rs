//! The Kubernetes REST protocol over a store trait: what turns a collection of versioned JSON objects into an API that
//! kubectl and every client library can use. The embedded API of cloudcore and the MetaServer of edgecore are two
//! stores behind the same code.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: the shell gives requests, a [`store::Store`]
//! and an [`Environment`].
//!
//! Reading order: [`resource`], [`schema`], [`object`], [`store`], [`objects`], [`memory`], [`error`], [`path`].

pub mod apply;
pub mod builtin;
pub mod crd;
pub mod discovery;
pub mod error;
pub mod memory;
pub mod meta;
pub mod object;
pub mod objects;
pub mod openapi;
pub mod patch;
pub mod path;
pub mod protobuf;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod serve;
pub mod store;
pub mod table;
mod yaml;

pub use error::{ApiError, Reason};
pub use object::{Object, ObjectKey, Version};
pub use resource::{Registry, Resource};
pub use schema::Schema;
pub use store::{Change, Event, EventKind, Page, Selection, Store};

/// What the protocol needs to know of the world.
pub trait Environment: Send + Sync + 'static {
    /// Wall clock, microseconds since 1970.
    fn now_us(&self) -> i64;
    /// A new unique id, as `metadata.uid`.
    fn uid(&self) -> String;
    /// Is over after so many milliseconds.
    fn timer(&self, after_ms: u64) -> futures::future::BoxFuture<'static, ()>;
    /// Random characters that end a name made from `metadata.generateName`.
    fn name_suffix(&self) -> String;
}
