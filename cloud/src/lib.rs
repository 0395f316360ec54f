//! ledge-cloud

pub mod config;
pub mod manifests;
