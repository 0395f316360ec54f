//! edgecore: hub client, device twin, mappers, MetaServer.
//!
//! Everything here works from the node's own log and projection; whether the cloud can be reached changes nothing
//! but what has been acknowledged. Reading order: [`config`], [`daemon`], [`node`], [`tables`], [`hub`], [`meta`], then
//! [`twin`] and [`mapper`].

pub mod config;
pub mod daemon;
pub mod hub;
pub mod mapper;
pub mod meta;
pub mod node;
pub mod tables;
pub mod twin;
