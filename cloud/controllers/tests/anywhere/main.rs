//! The controllers over every Kubernetes API there is.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod clock;
mod interests;
mod namespaces;
mod outage;
mod overlay;
mod place;
mod put_off;
mod put_right;
