//! What the tests of the real programs share.

#![allow(dead_code, reason = "each test uses its part of it")]

pub(crate) mod cluster;
pub(crate) mod kubectl;
pub(crate) mod place;
pub(crate) mod story;
