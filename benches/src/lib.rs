//! Ratios against raw limits measured in the same run, and whole-system simulation.

pub mod idle;
pub mod memory;
pub mod ratio;
mod site;
