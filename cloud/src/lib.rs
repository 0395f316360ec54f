//! ledge-cloud

pub mod config;
