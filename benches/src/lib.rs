//! Ratios against raw limits measured in the same run, and whole-system simulation.

#[cfg(feature = "ratios")]
pub mod idle;
#[cfg(feature = "ratios")]
pub mod memory;
#[cfg(feature = "ratios")]
pub mod ratio;
pub mod simulate;
#[cfg(feature = "ratios")]
mod site;
