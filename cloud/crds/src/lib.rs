//! The kinds Ledge adds to Kubernetes, as Rust types, and their definitions.
//!
//! Names of kinds and fields are KubeEdge's, so that manifests and clients written for KubeEdge work as they are.
//! [`definitions`] gives what an API server has to be told; everything else is types for clients.
//!
//! Reading order: [`devices`], [`apps`], [`rules`], [`operations`], [`policy`], [`reliablesyncs`].
#![allow(
    unreachable_pub,
    reason = "the derive of schemas with rules makes a private copy of the type"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "two printer columns may have the same type"
)]

pub mod apps;
mod definition;
pub mod devices;
pub mod operations;
pub mod policy;
pub mod reliablesyncs;
pub mod rules;
mod schema;

pub use self::definition::definitions;
