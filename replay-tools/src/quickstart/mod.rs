//! The main job, shown and proved with real processes: a device through an edge to the cloud and back, across an
//! outage and a power cut.
//!
//! Reading order: `site` (the place), [`daemons`] (the processes), `relay` (the link that can be cut), `probe`
//! (looking from outside), `story` (what happens), `claims` (what must hold afterwards).

pub mod claims;
pub mod daemons;
pub mod probe;
pub mod relay;
pub mod site;
pub mod story;
