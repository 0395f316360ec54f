//! cloudcore: hub, fleet projection, and the controllers' home.
//!
//! Controllers talk by appending records; none reads another's state. Reading order: [`config`], [`daemon`],
//! [`leadership`], [`hub`], [`fleet`], [`kubernetes`], `memory`.

pub mod api;
pub mod config;
pub mod daemon;
pub mod fleet;
pub mod hub;
pub mod kubernetes;
pub mod leadership;
mod memory;
