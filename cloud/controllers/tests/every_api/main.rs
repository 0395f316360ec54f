//! Controllers against every Kubernetes API there is: the embedded one, and a real kube-apiserver where there is one. They
//! are one program, so that the API server starts once for all of them.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod definitions;
mod down;
mod real;
#[path = "../support/mod.rs"]
mod support;
mod sync;
mod up;
mod writes;
