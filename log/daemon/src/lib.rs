//! What cloudcore and edgecore do alike around their real work.
//!
//! Reading order: [`config`], [`disk`], [`damage`], [`logging`], [`tasks`], [`health`], [`http`], [`log_metrics`], `folded_metrics`, [`status`], [`clock`], [`retention`], `fit`, [`settings`], [`signal`], [`closing`].

pub mod clock;
pub mod closing;
pub mod config;
pub mod damage;
pub mod disk;
mod fit;
mod folded_metrics;
pub mod health;
pub mod http;
pub mod log_metrics;
pub mod logging;
mod metrics_help;
pub mod retention;
pub mod settings;
pub mod signal;
pub mod status;
pub mod tasks;
