//! ledge-edge

pub mod config;
