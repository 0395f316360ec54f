//! What a data directory holds beside its log, in bytes on disk.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::budget::{BudgetError, at};

/// Directories within directories: what a daemon makes is three deep.
const DEPTH_MAX: usize = 16;
/// The rest of a projection is its tables and what tells of them.
const JOURNAL_EXTENSION: &str = "jnl";

/// What is there beside the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    /// The projection without its journal.
    pub tables: u64,
    /// All of the projection.
    pub projection: u64,
    /// Everything else: copies of damaged blocks, certificates, notes.
    pub others: u64,
}

impl Rest {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.projection.saturating_add(self.others)
    }
}

/// Measures everything under `dir` but the files of its log; nothing when there is no such directory. What the log keeps
/// in directories of its own, copies of damaged blocks, it does not count itself: that belongs to the rest.
///
/// # Errors
/// When it cannot be read.
pub fn rest(dir: &Path) -> Result<Rest, BudgetError> {
    let (log, projection) = (dir.join("log"), dir.join("projection"));
    let mut rest = Rest::default();
    walk(dir, &mut |path, bytes| {
        if path.parent() == Some(&*log) {
            return;
        }
        if !path.starts_with(&projection) {
            rest.others = rest.others.saturating_add(bytes);
            return;
        }
        rest.projection = rest.projection.saturating_add(bytes);
        if path
            .extension()
            .is_none_or(|extension| extension != JOURNAL_EXTENSION)
        {
            rest.tables = rest.tables.saturating_add(bytes);
        }
    })?;
    Ok(rest)
}

/// Visits every file under `dir` with what it takes on disk.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, u64)) -> Result<(), BudgetError> {
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
            // Of a link, its own length: what it points to is elsewhere.
            let meta: Metadata = match entry.metadata() {
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(at(&path))?,
            };
            if meta.is_dir() && depth < DEPTH_MAX {
                open.push((path, depth + 1));
            } else {
                // Blocks, not length: journals are made long and empty.
                visit(&path, meta.blocks().saturating_mul(512));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        for (name, len) in [
            ("log/seg", 1 << 20),
            ("log/quarantine/block", 40_000),
            ("projection/0.jnl", 100_000),
            ("projection/keyspaces/0/tables/7", 300_000),
            ("kube-pki/ca.key", 5000),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; len]).unwrap();
        }
        let rest = super::rest(dir.path()).unwrap();
        assert!((300_000..340_000).contains(&rest.tables), "{rest:?}");
        assert!((400_000..460_000).contains(&rest.projection), "{rest:?}");
        assert!((45_000..70_000).contains(&rest.others), "{rest:?}");
        assert_eq!(rest.bytes(), rest.projection + rest.others);
        let nothing = super::rest(&dir.path().join("nothing")).unwrap();
        assert_eq!(nothing, Rest::default());
    }
}
