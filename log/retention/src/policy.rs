//! What the operator decides.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What takes the place of telemetry before it is dropped unarchived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Degrade {
    /// Nothing: it is dropped, and a gap record says so.
    #[default]
    None,
    /// Per property and minute, the average with its bounds; when that would be dropped too, the last value.
    Averages,
    /// Per property, the last value.
    Last,
}

impl Degrade {
    /// As written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Degrade::None => "none",
            Degrade::Averages => "averages",
            Degrade::Last => "last",
        }
    }
}

impl fmt::Display for Degrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Degrade {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Degrade::None, Degrade::Averages, Degrade::Last]
            .into_iter()
            .find(|degrade| degrade.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("`{text}` is none of none, averages, last"))
    }
}

/// Whose log it is, and so where is written down what goes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeper {
    /// A node's: what it wrote and is not archived is a gap in its own telemetry, which reaches the cloud.
    #[default]
    Node,
    /// The cloud's, with no archive beside it: "archived" there means that its log has it, so telemetry that goes is
    /// nowhere else. It is noted in the lane `local` of the node's scope. Nothing takes its place: the node's stream
    /// is the node's to write.
    Cloud,
}

/// What goes and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whose log it is.
    pub keeper: Keeper,
    /// Telemetry goes when the segment it is in was finished longer ago than this, also when there is room. Only by a
    /// clock that is synced, and never state: its latest values stay.
    pub max_age: Option<Duration>,
    /// What takes the place of telemetry that goes before it was archived.
    pub degrade: Degrade,
    /// Summaries and the gap record they stand beside become durable together: most bytes of one such append. At most
    /// what fits into one frame.
    pub chunk_bytes: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            keeper: Keeper::Node,
            max_age: None,
            degrade: Degrade::None,
            chunk_bytes: 128 * 1024,
        }
    }
}

/// Why something went. Written in gap records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The log is as large as it may get.
    DiskLimit,
    /// Others fill the disk.
    DiskFull,
    /// It is older than the operator wants to keep.
    MaxAge,
    /// It cannot be read.
    Corrupt,
    /// A cloud had acknowledged it, so it went without a word; the cloud there is now does not hold it.
    CloudLost,
}

impl Reason {
    /// As written in gap records.
    pub fn name(self) -> &'static str {
        match self {
            Reason::DiskLimit => "DiskLimit",
            Reason::DiskFull => "DiskFull",
            Reason::MaxAge => "MaxAge",
            Reason::Corrupt => "Corrupt",
            Reason::CloudLost => "CloudLost",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
