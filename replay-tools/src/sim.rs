//! Simulated devices: for the quickstart, for demonstrations and for tests that need to know the truth.

pub mod modbus;
