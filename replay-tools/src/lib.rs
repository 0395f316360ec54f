//! ledge

pub mod sim;
