//! The device twin: what a device should be, against what it is.
//!
//! [`table`] is what the log says (specifications, desired values, last reports); [`journal`] is the way back
//! into the log. The mappers stand between the two and the devices.

pub mod clock;
pub mod journal;
pub mod reconcile;
pub mod report;
pub mod table;
pub mod value;

pub use clock::{Clock, Stamp};
pub use journal::{Journal, JournalError, NewRecord};
pub use report::Unchanged;
pub use table::{Desired, DeviceEntry, DeviceTable};
