//! How much of the disk the data directory may take, and how that is divided.
//!
//! The limit is for everything under the directory. What is not the log (the projection, what was quarantined) is
//! bounded by its own options or measured; the log gets the rest.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::policy::Degrade;

/// The log must be able to finish a segment while the oldest is given up, and one is held ready.
pub const SEGMENTS_MIN: u64 = 3;
/// A log of fewer segments than this gives up much at a time: segments are made smaller before that.
const SEGMENTS_WANTED: u64 = 8;
/// Superblocks and a lock.
const LOG_EXTRA_BYTES: u64 = 64 * 1024;

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

/// How the data directory's limit is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// For everything; `None` when there is no limit.
    pub total_bytes: Option<u64>,
    /// For the log.
    pub log_bytes: Option<u64>,
    /// Length of the log's segments.
    pub segment_bytes: u64,
    /// For everything else: what is there now, or what it may grow to.
    pub rest_bytes: u64,
}

/// What the division depends on.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// The data directory. The log is in its `log`.
    pub dir: &'a Path,
    /// Length of segments as configured; smaller ones are made when few would fit.
    pub segment_bytes: u64,
    /// Whether the operator chose that length: then it is kept.
    pub segment_bytes_chosen: bool,
    /// Smallest segment that works.
    pub segment_min_bytes: u64,
    /// Most the projection takes on disk, as far as its options say.
    pub projection_bytes: u64,
}

impl Budget {
    /// Divides `limit`.
    ///
    /// # Errors
    /// [`BudgetError::TooSmall`] names the least that works.
    pub fn divide(limit: Limit, needs: &Needs<'_>) -> Result<Budget, BudgetError> {
        let measured = rest_bytes(needs.dir)?;
        let rest_bytes = measured.max(needs.projection_bytes);
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
            });
        };
        let log_bytes = total.saturating_sub(rest_bytes);
        let segment_bytes = if needs.segment_bytes_chosen {
            needs.segment_bytes
        } else {
            // A multiple of a mebibyte, which every alignment divides.
            let fitting = log_bytes / SEGMENTS_WANTED / (1 << 20) * (1 << 20);
            needs.segment_bytes.min(fitting).max(needs.segment_min_bytes)
        };
        let least = SEGMENTS_MIN * segment_bytes + LOG_EXTRA_BYTES;
        // A part of the disk is nobody's exact wish: where others take the rest, the log works in the least it needs.
        let log_bytes = match limit {
            Limit::Percent(_) => log_bytes.max(least),
            _ => log_bytes,
        };
        if log_bytes < least {
            return Err(BudgetError::TooSmall {
                dir: needs.dir.to_owned(),
                limit: total,
                minimum: rest_bytes.saturating_add(least),
                log_bytes: least,
                segment_bytes,
                rest_bytes,
            });
        }
        Ok(Budget {
            total_bytes: Some(total),
            log_bytes: Some(log_bytes),
            segment_bytes,
            rest_bytes,
        })
    }

    /// What the log may take when everything else takes `rest_bytes` now; never less than it needs to work.
    pub fn log_bytes_beside(&self, rest_bytes: u64) -> Option<u64> {
        let rest_bytes = rest_bytes.max(self.rest_bytes);
        let least = SEGMENTS_MIN * self.segment_bytes + LOG_EXTRA_BYTES;
        Some(self.total_bytes?.saturating_sub(rest_bytes).max(least))
    }
}

/// Bytes on disk of everything under `dir` but its log; 0 when there is no such directory.
///
/// # Errors
/// When it cannot be read.
pub fn rest_bytes(dir: &Path) -> Result<u64, BudgetError> {
    let log = dir.join("log");
    walk(dir, &|path| path != log)
}

/// Bytes on disk of everything under `dir`.
///
/// # Errors
/// When it cannot be read.
pub fn used_bytes(dir: &Path) -> Result<u64, BudgetError> {
    walk(dir, &|_| true)
}

/// Directories within directories: what a daemon makes is three deep.
const DEPTH_MAX: usize = 16;

fn walk(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<u64, BudgetError> {
    let mut total: u64 = 0;
    let mut open = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = open.pop() {
        let entries = match std::fs::read_dir(&dir) {
            // Projections make and remove files while they are measured.
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(at(&dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(at(&dir))?;
            let path = entry.path();
            if !wanted(&path) {
                continue;
            }
            // Of a link, its own length: what it points to is elsewhere.
            let meta = match entry.metadata() {
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(at(&path))?,
            };
            if meta.is_dir() && depth < DEPTH_MAX {
                open.push((path, depth + 1));
            } else {
                // Blocks, not length: journals are made long and empty.
                total = total.saturating_add(std::os::unix::fs::MetadataExt::blocks(&meta) * 512);
            }
        }
    }
    Ok(total)
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

fn at(path: &Path) -> impl FnOnce(io::Error) -> BudgetError + use<> {
    let dir = path.to_owned();
    move |source| BudgetError::Io { dir, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn needs(dir: &Path) -> Needs<'_> {
        Needs {
            dir,
            segment_bytes: 64 * MIB,
            segment_bytes_chosen: false,
            segment_min_bytes: 8 * MIB,
            projection_bytes: 80 * MIB,
        }
    }

    #[test]
    fn a_limit_is_divided_and_small_ones_get_small_segments() {
        let dir = tempfile::tempdir().unwrap();
        let needs = needs(dir.path());
        let large = Budget::divide(Limit::Bytes(4096 * MIB), &needs).unwrap();
        assert_eq!(
            (large.segment_bytes, large.log_bytes),
            (64 * MIB, Some(4016 * MIB))
        );
        let small = Budget::divide(Limit::Bytes(200 * MIB), &needs).unwrap();
        assert_eq!(
            (small.segment_bytes, small.log_bytes),
            (15 * MIB, Some(120 * MIB))
        );
        let none = Budget::divide(Limit::None, &needs).unwrap();
        assert_eq!((none.log_bytes, none.segment_bytes), (None, 64 * MIB));
        assert!(
            Budget::divide(Limit::Percent(80), &needs)
                .unwrap()
                .total_bytes
                .is_some()
        );
        // Everything else grew: the log gives way, down to what it needs.
        assert_eq!(small.log_bytes_beside(100 * MIB), Some(100 * MIB));
        assert_eq!(
            small.log_bytes_beside(400 * MIB),
            Some(45 * MIB + LOG_EXTRA_BYTES)
        );
        assert_eq!(small.log_bytes_beside(1), Some(120 * MIB));
    }

    #[test]
    fn a_limit_that_is_too_small_names_the_least() {
        let dir = tempfile::tempdir().unwrap();
        let err = Budget::divide(Limit::Bytes(90 * MIB), &needs(dir.path())).unwrap_err();
        let BudgetError::TooSmall { minimum, .. } = err else {
            panic!("{err}");
        };
        assert!(err.to_string().contains(&minimum.to_string()), "{err}");
        assert!(Budget::divide(Limit::Bytes(minimum), &needs(dir.path())).is_ok());
        assert!(Budget::divide(Limit::Bytes(minimum - 1), &needs(dir.path())).is_err());
        // Segments the operator chose are kept.
        let chosen = Needs {
            segment_bytes_chosen: true,
            ..needs(dir.path())
        };
        assert!(Budget::divide(Limit::Bytes(200 * MIB), &chosen).is_err());
    }

    #[test]
    fn what_is_there_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        for (name, len) in [
            ("log/seg", 1 << 20),
            ("projection/0/table", 300_000),
            ("quarantine/x", 5000),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; len]).unwrap();
        }
        let rest = rest_bytes(dir.path()).unwrap();
        assert!((305_000..400_000).contains(&rest), "{rest}");
        assert!(used_bytes(dir.path()).unwrap() >= rest + (1 << 20));
        assert_eq!(rest_bytes(&dir.path().join("nothing")).unwrap(), 0);
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
