//! The embedded Kubernetes API of cloudcore. Its objects are a projection of the stream `cluster/api` of cloudcore's log:
//! a resource version is a sequence number, a watch is a replay.
//!
//! Reading order: [`store`], [`environment`], [`pki`], [`tokens`], [`accounts`], [`rbac`], [`node`], [`access`], [`reviews`],
//! [`escalation`], [`admission`], [`bootstrap`], [`janitor`], [`bodies`], [`server`], [`local`], [`embedded`].

pub mod access;
pub mod accounts;
pub mod admission;
mod bodies;
pub mod bootstrap;
pub mod embedded;
pub mod environment;
pub mod escalation;
pub mod janitor;
pub mod local;
pub mod node;
pub mod pki;
pub mod rbac;
pub mod reviews;
pub mod server;
pub mod store;
pub mod tokens;
