//! What of the log may go, in which order, and what is written down before it does.
//!
//! Nothing goes silently. Telemetry that goes before it was archived leaves a gap record in its own stream, and what the
//! policy wants to keep of it; state leaves a base, from which the rest of the log folds to the same state as before.
//!
//! Reading order: [`policy`], [`budget`], [`measure`], [`engine`], `state`, [`gaps`], `degrade`, [`around`]; [`replay`], which folds a
//! log of which the beginning is gone; [`account`], what that says of a stream; and [`reset`], by which a stream goes on
//! under a new epoch.

pub mod account;
pub mod around;
pub mod budget;
mod degrade;
pub mod engine;
mod error;
pub mod gaps;
pub mod measure;
pub mod policy;
pub mod replay;
pub mod reset;
mod state;

pub use engine::{GivenUp, Outcome, Retention};
pub use error::RetentionError;
pub use policy::{Degrade, Keeper, Policy, Reason};
