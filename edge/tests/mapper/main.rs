//! The mappers against devices in memory with simulated time, and against real sockets and serial lines.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "tests, with small numbers"
)]

mod collect;
mod desired;
mod faults;
mod journal;
mod lifecycle;
mod rtu;
mod support;
mod tcp;
mod unchanged;
