//! The edge controller: what nodes need of the Kubernetes API goes down, what they report comes up.
//!
//! Reading order: `references` (what an object refers to), `needs` (who needs which objects), `seen` (what others made of their objects), `down` (telling them), `up` (what
//! they report).

pub(crate) mod down;
mod interests;
mod needs;
mod references;
pub(crate) mod seen;
pub(crate) mod up;
