//! Controllers between the Kubernetes API and the log: what objects say goes to the nodes' `down` streams, what nodes
//! say goes back to the API. The same code runs against the embedded API and a real API server: all it has of either is
//! a [`kube::Client`].
//!
//! A controller keeps no state of its own. It compares what the API says with what nodes were told, which is the
//! projection of their streams, and appends the difference: after a restart it goes on where the log ends.
//!
//! Reading order: [`told`].

pub mod told;
