//! Replication of log streams between cloud and edge over QUIC with TLS 1.3 and certificates both ways.
//!
//! The session's decisions are made by the state machine in `ledge-proto`; this crate moves its messages and the
//! log's frames. Reading order: [`certs`], [`cert_clock`], [`tls`], [`fences`], [`reset`], [`link`], [`meters`].

pub mod cert_clock;
pub mod certs;
pub mod fences;
pub mod link;
pub mod meters;
pub mod reset;
pub mod tls;
