//! What cloud and edge say to each other and keep: frames, records, folds, and the session state machine.
//!
//! Nothing in this crate does I/O, reads a clock or draws a random number: everything is a function of its
//! arguments, so that replay gives the same result anywhere.
//!
//! Reading order: [`limits`], [`ids`], [`frame`], [`record`], [`stamp`], [`retime`], [`fold`], [`fence`], [`session`].

pub mod checksum;
pub mod fence;
pub mod fold;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod mutants;
pub mod record;
pub mod retime;
pub mod session;
pub mod stamp;

/// The messages of `proto/ledge/v1/*.proto`, generated at build time.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/ledge.v1.rs"));
}
