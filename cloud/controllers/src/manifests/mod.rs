//! Device manifests: from KubeEdge's `Device` and `DeviceModel` objects, in a directory or in an API, to what each node is told.
//!
//! ```text
//! files --load--> Objects --resolve(nodes)--> Assignments
//!   ^ Watcher reads them again when they change
//! ```
//!
//! [`load()`] and [`resolve()`] are functions of their arguments: no files, no clock. A mistake in one object is a
//! [`Problem`] that names file, document, line, field and the way out; it neither takes other objects down nor
//! takes back what was accepted before.
//!
//! Reading order: [`object`](Objects) (what a manifest says), `device`, `model`, `modbus`, `selector` (how it says
//! it), [`load()`] and `json` (files and objects of an API), [`resolve()`], [`Watcher`].

mod device;
mod document;
mod fields;
mod json;
mod load;
mod modbus;
mod model;
mod object;
mod problem;
mod resolve;
mod selector;
mod value;
mod watch;

pub(crate) use json::{Accepted, FromApi, from_api};
pub use load::{Loaded, SourceFile, load};
pub use modbus::{Connection, Visitor};
pub use object::{
    Desired, Device, DeviceModel, DeviceProperty, Kind, ModelProperty, ObjectKey, Objects, Placement, Source,
};
pub use problem::{Problem, Severity};
pub use resolve::{Assigned, Assignments, KnownNodes, resolve};
pub use selector::NodeSelector;
pub use watch::{Snapshot, WatchError, WatchOptions, Watcher};
