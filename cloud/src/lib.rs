//! cloudcore: hub, fleet projection, device controller.
//!
//! Controllers talk by appending records; none reads another's state. Reading order: [`config`], [`daemon`],
//! [`leadership`], [`hub`], [`fleet`], [`manifests`], [`device_controller`].

pub mod api;
pub mod config;
pub mod daemon;
pub mod device_controller;
pub mod fleet;
pub mod hub;
pub mod kubernetes;
pub mod leadership;
pub mod manifests;
