//! Mappers: the tasks that read and write devices.
//!
//! A mapper knows nothing of links to the cloud. It follows the [`DeviceTable`](crate::twin::DeviceTable), talks to
//! devices and appends what it saw and did to the [`Journal`](crate::twin::Journal).
//!
//! ```text
//! table -> manager -> device task (one per device) <-> connection (one per address) <-> device
//!                          |
//!                          +-> recorder (one per lane) -> journal
//! ```
//!
//! Reading order: [`manager`], `device` (the loop), `cycle` (reading), `write` (wishes), `recorder`, [`modbus`].

mod cycle;
mod device;
mod health;
pub mod manager;
pub mod modbus;
mod property;
mod recorder;
mod schedule;
mod tasks;
mod write;

pub use manager::{MapperManager, MapperOptions, Stopped};
