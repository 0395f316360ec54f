//! `devices.kubeedge.io`: devices, what they have in common, and what they reported.
//!
//! Two shapes of devices and models are accepted under both versions, and one is stored: the one with
//! [`DeviceSpec::properties`] and a protocol with `configData`. The device controller rewrites the other one. None of these
//! kinds has a status subresource: the status is written with the object, as KubeEdge does.
//!
//! Reading order: [`device`], [`model`], [`status`], [`push`].

pub mod device;
pub mod model;
pub mod push;
pub mod status;

pub use self::device::{Device, DeviceSpec};
pub use self::model::{DeviceModel, DeviceModelSpec};
pub use self::status::{DeviceStatus, DeviceStatusSpec};

/// The group of these kinds.
pub const GROUP: &str = "devices.kubeedge.io";
/// The version that is stored.
pub const VERSION: &str = "v1beta1";
