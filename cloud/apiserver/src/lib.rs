//! The embedded Kubernetes API of cloudcore. Its objects are a projection of the stream `cluster/api` of cloudcore's log:
//! a resource version is a sequence number, a watch is a replay.
//!
//! Reading order: [`store`], [`environment`], [`pki`], [`rbac`], [`admission`], [`bootstrap`], [`janitor`], [`server`],
//! [`local`], [`embedded`].

pub mod admission;
pub mod bootstrap;
pub mod embedded;
pub mod environment;
pub mod janitor;
pub mod local;
pub mod pki;
pub mod rbac;
pub mod server;
pub mod store;
