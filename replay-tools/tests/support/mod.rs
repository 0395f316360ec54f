//! What the tests of the real programs share.

#![allow(dead_code, reason = "each test uses its part of it")]

pub(crate) mod cluster;
pub(crate) mod kubectl;
pub(crate) mod place;
#[path = "../../../cloud/testing/src/programs.rs"]
pub(crate) mod programs;
pub(crate) mod story;
