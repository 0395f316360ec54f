//! How much of the disk the data directory may take, and how that is divided.
//!
//! The limit is for everything under the directory. What is not the log (the projection, copies of damaged blocks) is
//! bounded by its own options or measured, again and again while the daemon runs; the log gets the rest, and gives way
//! when that grows, down to what it needs to work.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::measure::{self, Rest};
use crate::policy::Degrade;

/// The log must be able to finish a segment while the oldest is given up, and one is held ready.
pub const SEGMENTS_MIN: u64 = 3;
/// A log of fewer segments than this gives up much at a time: segments are made smaller before that.
const SEGMENTS_WANTED: u64 = 8;
/// Superblocks and a lock.
const LOG_EXTRA_BYTES: u64 = 64 * 1024;
/// Set aside for what is neither the log nor the projection, unless there is more of it.
const OTHERS_BYTES: u64 = 1 << 20;

/// How much the data directory may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Whatever the disk has.
    None,
    /// So many bytes.
    Bytes(u64),
    /// So much of the file system it is on.
    Percent(u8),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::None => f.write_str("none"),
            Limit::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Limit::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    /// `none`, or `80%`. Sizes are read where the configuration's other sizes are.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a limit: write for example 2GiB, 80% or none");
        if text.eq_ignore_ascii_case("none") {
            return Ok(Limit::None);
        }
        let percent = text
            .strip_suffix('%')
            .and_then(|number| number.trim().parse().ok());
        percent
            .filter(|percent| (1..=100).contains(percent))
            .map(Limit::Percent)
            .ok_or_else(wrong)
    }
}

/// The settings `disk` of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// How much the data directory may take.
    pub limit: Limit,
    /// Kept at the end of the log's last segment for control and state, bytes.
    pub reserve_bytes: u64,
    /// See [`crate::Policy::max_age`].
    pub max_age: Option<Duration>,
    /// See [`crate::Policy::degrade`].
    pub degrade: Degrade,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions {
            limit: Limit::Percent(80),
            reserve_bytes: 1 << 20,
            max_age: None,
            degrade: Degrade::None,
        }
    }
}

/// Why the disk cannot be divided.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// Too small to work in.
    #[error(
        "the disk limit of {limit} bytes for {} is too small: at least {minimum} bytes are needed \
         ({log_bytes} for the log: {SEGMENTS_MIN} segments of {segment_bytes}, and {rest_bytes} for everything else there)",
        dir.display()
    )]
    TooSmall {
        /// The data directory.
        dir: PathBuf,
        /// What was asked for.
        limit: u64,
        /// The least that works.
        minimum: u64,
        /// The part of it that is the log's.
        log_bytes: u64,
        /// Length of a segment.
        segment_bytes: u64,
        /// The rest.
        rest_bytes: u64,
    },
    /// The directory cannot be measured.
    #[error("cannot measure {}: {source}", dir.display())]
    Io {
        /// The directory or file.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a projection takes on disk while its state is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionShare {
    /// Most its journal takes.
    pub journal_bytes: u64,
    /// What its tables may take before they are counted.
    pub tables_bytes: u64,
}

impl ProjectionShare {
    fn bytes(self) -> u64 {
        self.journal_bytes + self.tables_bytes
    }

    /// What it may take from now on, when `rest` is there now.
    fn beside(self, rest: &Rest) -> u64 {
        // Tables that are merged are there twice until that is done.
        let tables = rest.tables.saturating_mul(2) + self.tables_bytes / 2;
        let most = self.journal_bytes.saturating_add(tables.max(self.tables_bytes));
        most.max(rest.projection)
    }
}

/// How the data directory's limit is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// For everything; `None` when there is no limit.
    pub total_bytes: Option<u64>,
    /// For the log.
    pub log_bytes: Option<u64>,
    /// Length of the log's segments.
    pub segment_bytes: u64,
    /// For everything else: what is there now, and what it may grow to.
    pub rest_bytes: u64,
    /// What the limit lacks for the log to have what it needs and everything else what it may grow to. When this is not
    /// 0, the limit may be exceeded: the log gives up what it can, and state never goes.
    pub short_bytes: u64,
}

/// What the division depends on.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// The data directory. The log is in its `log`, the projection in its `projection`.
    pub dir: &'a Path,
    /// Length of segments as configured; smaller ones are made when few would fit.
    pub segment_bytes: u64,
    /// Whether the operator chose that length: then it is kept.
    pub segment_bytes_chosen: bool,
    /// Smallest segment that works.
    pub segment_min_bytes: u64,
    /// What the projection takes.
    pub projection: ProjectionShare,
}

impl Budget {
    /// Divides `limit`. What is there already does not make a limit too small, for a daemon has to start: see
    /// [`Budget::short_bytes`].
    ///
    /// # Errors
    /// [`BudgetError::TooSmall`] names the least that works.
    pub fn divide(limit: Limit, needs: &Needs<'_>) -> Result<Budget, BudgetError> {
        let there = measure::rest(needs.dir)?;
        let rest_bytes = rest_needed(&there, needs.projection);
        let total = match limit {
            Limit::None => None,
            Limit::Bytes(bytes) => Some(bytes),
            Limit::Percent(percent) => Some(filesystem_bytes(needs.dir)? / 100 * u64::from(percent)),
        };
        let Some(total) = total else {
            return Ok(Budget {
                total_bytes: None,
                log_bytes: None,
                segment_bytes: needs.segment_bytes,
                rest_bytes,
                short_bytes: 0,
            });
        };
        let segment_bytes = if needs.segment_bytes_chosen {
            needs.segment_bytes
        } else {
            // A multiple of a mebibyte, which every alignment divides.
            let fitting = total.saturating_sub(rest_bytes) / SEGMENTS_WANTED / (1 << 20) * (1 << 20);
            needs.segment_bytes.min(fitting).max(needs.segment_min_bytes)
        };
        let least = log_least(segment_bytes, 0);
        let minimum = needs.projection.bytes().saturating_add(least);
        // A part of the disk is nobody's exact wish: where others take the rest, the log works in the least it needs.
        if total < minimum && !matches!(limit, Limit::Percent(_)) {
            return Err(BudgetError::TooSmall {
                dir: needs.dir.to_owned(),
                limit: total,
                minimum,
                log_bytes: least,
                segment_bytes,
                rest_bytes: needs.projection.bytes(),
            });
        }
        let undivided = Budget {
            total_bytes: Some(total),
            log_bytes: None,
            segment_bytes,
            rest_bytes,
            short_bytes: 0,
        };
        Ok(undivided.with_rest(total, rest_bytes, &there))
    }

    /// The same limit, divided again now that `rest` is there beside the log. The same as before as long as that is
    /// within what was set aside for it.
    #[must_use]
    pub fn beside(&self, rest: &Rest, projection: ProjectionShare) -> Budget {
        let Some(total) = self.total_bytes else {
            return *self;
        };
        let needed = rest_needed(rest, projection);
        // Not for every byte, and ahead of what grows: making room takes some room itself.
        let ahead = self.segment_bytes / 4;
        let outgrown = needed > self.rest_bytes;
        let shrunk = needed.saturating_add(ahead + self.segment_bytes) <= self.rest_bytes;
        let rest_bytes = if outgrown || shrunk {
            needed.saturating_add(ahead)
        } else {
            self.rest_bytes
        };
        self.with_rest(total, rest_bytes, rest)
    }

    fn with_rest(self, total: u64, rest_bytes: u64, there: &Rest) -> Budget {
        let least = log_least(self.segment_bytes, there.tables);
        let short = rest_bytes.saturating_add(least).saturating_sub(total);
        Budget {
            log_bytes: Some(total.saturating_sub(rest_bytes).max(least)),
            rest_bytes,
            // What is set aside for small things is not needed to the last byte.
            short_bytes: if short > OTHERS_BYTES + self.segment_bytes / 4 {
                short
            } else {
                0
            },
            ..self
        }
    }
}

fn rest_needed(rest: &Rest, projection: ProjectionShare) -> u64 {
    let others = rest.others.max(OTHERS_BYTES);
    projection.beside(rest).saturating_add(others)
}

/// What the log needs to work. Before its oldest segment goes, the state is written anew, as a base, while the base before
/// it is still there: it takes about as much as the `tables` of the projection.
fn log_least(segment_bytes: u64, tables: u64) -> u64 {
    let bases = (SEGMENTS_MIN - 1)
        .saturating_mul(segment_bytes)
        .saturating_add(tables.saturating_mul(2));
    bases.max(SEGMENTS_MIN * segment_bytes) + LOG_EXTRA_BYTES
}

/// Size of the file system that holds `dir` or the nearest directory above that is there.
fn filesystem_bytes(dir: &Path) -> Result<u64, BudgetError> {
    let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() {
        Path::new(".")
    } else {
        there
    };
    let stat = rustix::fs::statvfs(there).map_err(|err| at(there)(err.into()))?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> BudgetError + use<> {
    let dir = path.to_owned();
    move |source| BudgetError::Io { dir, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const PROJECTION: ProjectionShare = ProjectionShare {
        journal_bytes: 64 * MIB,
        tables_bytes: 16 * MIB,
    };

    fn needs(dir: &Path) -> Needs<'_> {
        Needs {
            dir,
            segment_bytes: 64 * MIB,
            segment_bytes_chosen: false,
            segment_min_bytes: 8 * MIB,
            projection: PROJECTION,
        }
    }

    fn divide(mib: u64) -> Budget {
        let dir = tempfile::tempdir().unwrap();
        Budget::divide(Limit::Bytes(mib * MIB), &needs(dir.path())).unwrap()
    }

    fn rest(tables: u64, others: u64) -> Rest {
        Rest {
            tables: tables * MIB,
            projection: tables * MIB + 3 * MIB,
            others: others * MIB,
        }
    }

    #[test]
    fn a_limit_is_divided_and_small_ones_get_small_segments() {
        let dir = tempfile::tempdir().unwrap();
        let needs = needs(dir.path());
        let large = divide(4097);
        assert_eq!(
            (large.segment_bytes, large.log_bytes),
            (64 * MIB, Some(4016 * MIB))
        );
        let small = divide(201);
        assert_eq!(
            (small.segment_bytes, small.log_bytes),
            (15 * MIB, Some(120 * MIB))
        );
        let none = Budget::divide(Limit::None, &needs).unwrap();
        assert_eq!((none.log_bytes, none.segment_bytes), (None, 64 * MIB));
        assert_eq!(none.beside(&rest(900, 900), PROJECTION), none);
        assert!(
            Budget::divide(Limit::Percent(80), &needs)
                .unwrap()
                .total_bytes
                .is_some()
        );
    }

    #[test]
    fn the_log_gives_way_to_what_grows_and_comes_back() {
        let small = divide(224);
        let ahead = small.segment_bytes / 4;
        assert_eq!((small.segment_bytes, ahead), (17 * MIB, 17 * MIB / 4));
        // Within what was set aside nothing changes, not even by a byte.
        for rest in [rest(0, 0), rest(4, 0), rest(4, 1)] {
            assert_eq!(small.beside(&rest, PROJECTION), small);
        }
        // Copies of damaged blocks: as much as there is.
        let copies = small.beside(&rest(4, 31), PROJECTION);
        assert_eq!(copies.log_bytes, Some(113 * MIB - ahead));
        assert_eq!((copies.short_bytes, copies.segment_bytes), (0, 17 * MIB));
        assert_eq!(copies.beside(&rest(4, 32), PROJECTION), copies, "it was ahead");
        // They are removed again.
        let back = copies.beside(&rest(4, 1), PROJECTION);
        assert_eq!(back.log_bytes, Some(143 * MIB - ahead));
        // Tables: twice, for they are merged.
        let tables = small.beside(&rest(20, 1), PROJECTION);
        assert_eq!(tables.log_bytes, Some((224 - 64 - 48 - 1) * MIB - ahead));
        assert_eq!(tables.short_bytes, 0);
        // More than there is room for beside what the log needs for its bases: told.
        let much = small.beside(&rest(60, 1), PROJECTION);
        assert_eq!(much.log_bytes, Some((34 + 120) * MIB + LOG_EXTRA_BYTES));
        assert!(much.short_bytes > 0);
        let more = small.beside(&rest(4, u64::MAX / MIB), PROJECTION);
        assert_eq!(more.log_bytes, Some(51 * MIB + LOG_EXTRA_BYTES));
        assert!(more.short_bytes > 0);
    }

    #[test]
    fn a_limit_that_is_too_small_names_the_least() {
        let dir = tempfile::tempdir().unwrap();
        let err = Budget::divide(Limit::Bytes(90 * MIB), &needs(dir.path())).unwrap_err();
        let BudgetError::TooSmall { minimum, .. } = err else {
            panic!("{err}");
        };
        assert!(err.to_string().contains(&minimum.to_string()), "{err}");
        let least = Budget::divide(Limit::Bytes(minimum), &needs(dir.path())).unwrap();
        assert_eq!(least.short_bytes, 0);
        assert_eq!(least.beside(&rest(0, 0), PROJECTION), least);
        assert!(Budget::divide(Limit::Bytes(minimum - 1), &needs(dir.path())).is_err());
        // Segments the operator chose are kept.
        let chosen = Needs {
            segment_bytes_chosen: true,
            ..needs(dir.path())
        };
        assert!(Budget::divide(Limit::Bytes(200 * MIB), &chosen).is_err());
        // What is there already keeps no daemon from starting.
        std::fs::create_dir(dir.path().join("kube-pki")).unwrap();
        std::fs::write(dir.path().join("kube-pki/x"), vec![1; 20 << 20]).unwrap();
        let full = Budget::divide(Limit::Bytes(minimum), &needs(dir.path())).unwrap();
        assert_eq!(full.log_bytes, least.log_bytes);
        assert!(full.short_bytes > 10 * MIB, "{full:?}");
    }

    #[test]
    fn limits_are_read() {
        assert_eq!("none".parse(), Ok(Limit::None));
        assert_eq!("80%".parse(), Ok(Limit::Percent(80)));
        for wrong in ["0%", "101%", "%", "", "much"] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
    }
}
