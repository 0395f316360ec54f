//! Replication of log streams between cloud and edge over QUIC with TLS 1.3 and certificates both ways.
//!
//! The session's decisions are made by the state machine in `ledge-proto`; this crate moves its messages and the
//! log's frames. Reading order: [`certs`], [`tls`], [`link`], [`meters`].

pub mod certs;
pub mod link;
pub mod meters;
pub mod tls;
