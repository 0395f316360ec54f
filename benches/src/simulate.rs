//! L2: the whole protocol in a deterministic simulation. One cloud and five edges, each a real log over a
//! simulated disk and a real session over a simulated network, on one thread, with simulated time; everything
//! that happens is drawn from one seed. After each step the invariants of the log and of the protocol are checked.
//!
//! What is simulated is only what lies outside: disks, network, clocks, crashes, operators. Every decision is
//! made by the code that also runs in the daemons.
//!
//! Reading order: [`plan`], `events`, `machine`, `link`, `world`, `faults`, `oracle`, [`mutants`], [`runner`].
//! `docs/simulation.md` tells how to use it.

mod checks;
mod clock;
mod copies;
mod events;
mod faults;
mod fencing;
mod lanes;
mod link;
mod machine;
pub mod mutants;
mod net;
mod oracle;
pub mod plan;
mod probe;
pub mod runner;
mod settle;
mod shell;
mod trace;
mod upkeep;
mod violation;
mod words;
mod workload;
mod world;
mod writing;

pub use plan::Plan;
pub use runner::{Outcome, run};
pub use violation::Violation;
