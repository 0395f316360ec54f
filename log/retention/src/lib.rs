//! What of the log may go, in which order, and what is written down before it does.
//!
//! Reading order: [`policy`], [`budget`].

pub mod budget;
pub mod policy;

pub use policy::{Degrade, Policy, Reason};
