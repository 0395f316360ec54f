//! What cloudcore and edgecore do alike around their real work.
//!
//! Reading order: [`config`], [`logging`], [`tasks`], [`health`], [`http`], [`log_metrics`], [`signal`].

pub mod config;
pub mod health;
pub mod http;
pub mod log_metrics;
pub mod logging;
pub mod signal;
pub mod tasks;
