//! What a crash leaves behind.

use std::collections::BTreeSet;

use super::fault::Rng;
use super::file::{Inode, put_sector};
use super::{Disk, SECTOR};

/// How many things a crash could independently keep or lose: see [`CrashKeeps::Chosen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Sectors written and not synced, over all files.
    pub sectors: usize,
    /// Creates, renames and removes not synced.
    pub names: usize,
}

impl Pending {
    /// Sum of both.
    pub fn total(self) -> usize {
        self.sectors + self.names
    }
}

/// Which of the unsynced changes survive. Changes are numbered: first names, oldest first, then sectors by file
/// and position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrashKeeps {
    /// Nothing that was not synced.
    Nothing,
    /// Everything.
    Everything,
    /// Everything but one change.
    AllBut(usize),
    /// One change.
    Only(usize),
    /// The changes whose bit is set.
    Chosen(u64),
    /// Each change, and which version of a sector written several times, by a coin thrown with this seed.
    Random(u64),
}

impl CrashKeeps {
    fn keeps(&self, number: usize, rng: &mut Rng) -> bool {
        match self {
            CrashKeeps::Nothing => false,
            CrashKeeps::Everything => true,
            CrashKeeps::AllBut(lost) => number != *lost,
            CrashKeeps::Only(kept) => number == *kept,
            CrashKeeps::Chosen(bits) => number < 64 && bits >> number & 1 == 1,
            CrashKeeps::Random(_) => rng.below(2) == 1,
        }
    }
}

pub(super) fn pending(disk: &Disk) -> Pending {
    Pending {
        sectors: disk.inodes.iter().map(|inode| inode.pending.len()).sum(),
        names: disk.pending_names.len(),
    }
}

pub(super) fn survivor(disk: &Disk, keeps: &CrashKeeps) -> Disk {
    let seed = if let CrashKeeps::Random(seed) = keeps {
        *seed
    } else {
        0
    };
    let mut rng = Rng::new(seed);
    let mut number = 0;
    let mut keep = |rng: &mut Rng| {
        number += 1;
        keeps.keeps(number - 1, rng)
    };
    let mut names = disk.durable_names.clone();
    for change in &disk.pending_names {
        if keep(&mut rng) {
            change.apply(&mut names);
        }
    }
    let inodes = disk
        .inodes
        .iter()
        .map(|inode| {
            let mut bytes = inode.durable.clone();
            // A new length survives on its own, or because a sector beyond the old one did.
            if inode.len_pending {
                let longer = inode.bytes().len() > bytes.len();
                let survives = match keeps {
                    CrashKeeps::Nothing => false,
                    CrashKeeps::Random(_) => rng.below(2) == 1,
                    _ => true,
                };
                if survives
                    || longer
                        && inode
                            .pending
                            .keys()
                            .any(|s| *s * SECTOR as u64 >= bytes.len() as u64)
                {
                    bytes.resize(inode.bytes().len(), 0);
                }
            }
            for (sector, versions) in &inode.pending {
                if keep(&mut rng) {
                    let version = match keeps {
                        CrashKeeps::Random(_) => versions.get(rng.index(versions.len())),
                        _ => versions.last(),
                    };
                    if let Some(version) = version {
                        put_sector(
                            &mut bytes,
                            usize::try_from(*sector).unwrap_or(usize::MAX),
                            version,
                        );
                    }
                }
            }
            Inode::of(bytes, inode.stale().clone())
        })
        .collect();
    fresh(disk, inodes, names)
}

pub(super) fn killed(disk: &Disk) -> Disk {
    let mut after = fresh(disk, disk.inodes.clone(), disk.durable_names.clone());
    after.names.clone_from(&disk.names);
    after.pending_names.clone_from(&disk.pending_names);
    after.lying = disk.lying;
    after
}

fn fresh(
    disk: &Disk,
    inodes: Vec<Inode>,
    names: std::collections::BTreeMap<std::path::PathBuf, usize>,
) -> Disk {
    Disk {
        inodes,
        names: names.clone(),
        durable_names: names,
        dirs: disk.dirs.clone(),
        locks: BTreeSet::new(),
        capacity: disk.capacity,
        ..Disk::default()
    }
}
