//! Modbus TCP and RTU.
//!
//! Reading order: [`point`] (where a property lies), [`codec`] (registers to values), [`address`] (how a device is
//! reached), [`dial`] and [`connection`] (one connection per address, shared by the devices behind it).

pub mod address;
pub mod codec;
pub mod connection;
pub mod dial;
pub mod point;
mod scale;
mod serial;
mod shape;
mod wanted;

pub use address::{Address, AddressError};
pub use codec::{DecodeError, Raw};
pub use connection::{CallError, Connection};
pub use dial::{Dial, NetDial};
pub use point::{Point, PointError, Range, Table};
pub use shape::ShapeError;
pub use wanted::EncodeError;
