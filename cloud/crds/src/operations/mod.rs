//! `operations.kubeedge.io`: jobs that nodes carry out on themselves. Types only: nothing acts on them yet.
//!
//! Reading order: [`progress`], [`upgrade`], [`prepull`], [`config`].

pub mod config;
pub mod prepull;
pub mod progress;
pub mod upgrade;

pub use self::config::{ConfigUpdateJob, ConfigUpdateJobSpec};
pub use self::prepull::{ImagePrePullJob, ImagePrePullJobSpec};
pub use self::upgrade::{NodeUpgradeJob, NodeUpgradeJobSpec};
