//! The real cloudcore and edgecore, met with what goes wrong in the field. Each case looks at the exit code, at what
//! the program says and whether that helps, and at the logs afterwards: nothing acknowledged may be lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/mod.rs"]
mod support;

mod bit_rot;
mod boot_1970;
mod bounded;
mod certificates;
mod cloud_bounded;
mod damaged_log;
mod devices;
mod fencing;
mod figures;
mod full_disk;
mod kubernetes;
mod manifests;
mod metaserver;
mod outage;
mod peers;
mod refused_start;
mod shortened;
mod stopping;
mod within_limit;
