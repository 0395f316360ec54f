//! Opening a log for writing: take the lock, find the end, repair a torn one, and count the boot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledge_proto::ids::Incarnation;
use tokio::sync::watch;

use crate::catalog::{Catalog, Damages, Head, Quarantined, Streams};
use crate::error::OpenError;
use crate::format::block::block_chain;
use crate::format::superblock::Superblock;
use crate::ids::BlockNo;
use crate::log::Identity;
use crate::options::{OnDamage, OnLostData, Options};
use crate::quarantine;
use crate::scan::{Mode, OnHole, Scan, Tail, leftovers, scan};
use crate::stats::Counters;
use crate::storage::{Access, Storage, StorageLock, pread_exact, pwrite, write_zeros};
use crate::writer::Writer;
use crate::writer::mark::write_superblock;
use crate::writer::room::Room;
use crate::writer::segments::{Active, Spares};

/// Name of the file whose lock says that a process writes to the log.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// There was no log; this one is new.
    pub created: bool,
    /// It had been closed in order.
    pub clean: bool,
    /// Segment files.
    pub segments: usize,
    /// First block held; one past the last when there is none.
    pub first_block: BlockNo,
    /// Last block held.
    pub last_block: BlockNo,
    /// Blocks whose headers had to be read one by one, for want of an index.
    pub scanned_blocks: u64,
    /// The end was torn: nothing from this block on had been acknowledged, and it was removed.
    pub torn_at: Option<BlockNo>,
    /// Durable blocks after `last_block` up to this one are gone; streams this log writes go on in a new epoch.
    /// Only with [`OnLostData::NewEpoch`].
    pub lost_until: Option<BlockNo>,
    /// Records that were durable and cannot be read. Only with [`OnDamage::Quarantine`].
    pub quarantined: Vec<Quarantined>,
    /// No superblock was readable: the witness of what was durable, and the count of boots, start again.
    pub superblock_lost: bool,
}

/// Opens or creates a log for writing.
pub(crate) fn open(
    storage: Arc<dyn Storage>,
    dir: &Path,
    options: Options,
) -> Result<(Writer, Recovery, watch::Receiver<BlockNo>), OpenError> {
    options.check()?;
    storage
        .create_dir_all(dir)
        .map_err(OpenError::io("create", dir))?;
    let lock = take_lock(&*storage, dir)?;
    let on_hole = match options.on_damage {
        OnDamage::Refuse => OnHole::Refuse,
        OnDamage::Quarantine => OnHole::Skip,
    };
    match scan(storage.clone(), dir, Access::ReadWrite, Mode::Stopped, on_hole)? {
        None => create(storage, dir, options, lock),
        Some(found) => recover(found, dir, options, lock),
    }
}

fn take_lock(storage: &dyn Storage, dir: &Path) -> Result<Box<dyn StorageLock>, OpenError> {
    let path = dir.join(LOCK_FILE);
    storage
        .lock(&path, &std::process::id().to_string())
        .map_err(|err| {
            if err.kind() != std::io::ErrorKind::WouldBlock {
                return OpenError::io("lock", path)(err);
            }
            let mut buf = [0; 20];
            let note = storage
                .open(&path, Access::Read)
                .and_then(|file| file.pread(&mut buf, 0));
            let pid = note
                .ok()
                .and_then(|len| std::str::from_utf8(&buf[..len]).ok()?.parse::<u32>().ok());
            let holder = pid.map_or(String::new(), |pid| format!(" by process {pid}"));
            OpenError::Locked {
                dir: dir.to_owned(),
                holder,
            }
        })
}

fn create(
    storage: Arc<dyn Storage>,
    dir: &Path,
    options: Options,
    lock: Box<dyn StorageLock>,
) -> Result<(Writer, Recovery, watch::Receiver<BlockNo>), OpenError> {
    remove_leftovers(
        &*storage,
        dir,
        &storage.list(dir).map_err(OpenError::io("list", dir))?,
    )?;
    let incarnation = Incarnation(
        options
            .random
            .draw()
            .map_err(OpenError::io("draw random bytes for", dir))?,
    );
    let identity = Identity {
        cluster: options.cluster,
        node: options.node.clone(),
        incarnation,
        boot: 1,
    };
    let head = Head {
        block: BlockNo::ZERO,
        chain: genesis(&identity),
    };
    let catalog = Catalog::new(
        storage,
        dir,
        std::collections::VecDeque::new(),
        Streams::default(),
        head,
        Damages::default(),
    );
    let superblock = Superblock {
        generation: 0,
        cluster: identity.cluster,
        node: identity.node.clone(),
        incarnation,
        boot: 1,
        durable_block: BlockNo::ZERO,
        durable_chain: head.chain,
        clean: false,
        lost_from: BlockNo::ZERO,
    };
    let mut writer = writer(catalog, options, identity, head, superblock, lock);
    // The segment first: a superblock without one means that segments were lost.
    writer.ensure_room(0, 0).map_err(|err| match err {
        crate::AppendError::DiskFull { reason, .. } | crate::AppendError::Poisoned { reason } => {
            OpenError::Io {
                op: "create the first segment in",
                path: dir.to_owned(),
                source: Arc::new(std::io::Error::other(reason.to_string())),
            }
        }
        other => OpenError::Options(other.to_string()),
    })?;
    bump(&mut writer)?;
    writer.survey();
    let recovery = Recovery {
        created: true,
        clean: true,
        segments: 1,
        first_block: BlockNo(1),
        ..Recovery::default()
    };
    let durable = writer.durable.subscribe();
    Ok((writer, recovery, durable))
}

/// The chain before the first block: says whose log it is.
fn genesis(identity: &Identity) -> [u8; 16] {
    block_chain(
        b"ledge log v1\0",
        &identity.cluster.0,
        [identity.incarnation.0].into_iter(),
    )
}

fn recover(
    found: Scan,
    dir: &Path,
    options: Options,
    lock: Box<dyn StorageLock>,
) -> Result<(Writer, Recovery, watch::Receiver<BlockNo>), OpenError> {
    let Scan {
        catalog,
        superblock,
        tail,
        names,
    } = found;
    let Some(last) = catalog.segments().back().cloned() else {
        return Err(OpenError::NotALog { dir: dir.to_owned() });
    };
    let superblock_lost = superblock.is_none();
    let (file, superblock) = superblock.unwrap_or_else(|| (1, superblock_of(&last.header)));
    check_owner(&options, dir, &superblock)?;
    if superblock.incarnation != last.header.incarnation || superblock.cluster != last.header.cluster {
        return Err(OpenError::Damaged {
            path: last.path.clone(),
            offset: 0,
            reason: "the segment and the superblock belong to two logs".to_owned(),
        });
    }
    // Before anything is written.
    quarantine::keep_all(&catalog);
    let head = catalog.head();
    let lost_until = check_witness(&options, dir, &catalog, head, &superblock)?;
    let was_clean = superblock.clean && superblock.durable_block == head.block;
    if !was_clean {
        make_certain(&last, &tail)?;
    }
    remove_leftovers(&*catalog.storage, dir, &names)?;
    let boot = superblock.boot.saturating_add(1);
    let identity = Identity {
        cluster: superblock.cluster,
        node: superblock.node.clone(),
        incarnation: superblock.incarnation,
        boot,
    };
    let mut recovery = Recovery {
        created: false,
        clean: was_clean,
        segments: catalog.segments().len(),
        first_block: catalog.first_block(),
        last_block: head.block,
        scanned_blocks: tail.scanned,
        torn_at: tail.torn.map(|torn| torn.block),
        lost_until,
        quarantined: Vec::new(),
        superblock_lost,
    };
    let mut writer = writer(catalog, options, identity, head, superblock, lock);
    writer.superblock_file = 1 - file;
    if lost_until.is_some() {
        // Durable with the count of this boot: it has to outlive the witness that told of the loss.
        writer.superblock.lost_from = head.block.next();
    }
    let mut unfinished = false;
    if !tail.sealed {
        // Frames of a hole are not in what the scan indexed.
        let (no, lost) = (last.no(), writer.catalog.damages().touches(last.no()));
        let unused = tail.frames.is_empty() && tail.snapshots.is_empty();
        let mut active = Active::new(last, tail.off, tail.frames, tail.snapshots);
        if lost {
            tracing::warn!(segment = %no, "the segment gets no index: a block of it cannot be read");
            active.frames = None;
        }
        writer.active = Some(active);
        // A crash between a new segment and its STREAMS, or in the middle of them: without, giving up the segments
        // before would lose where streams stand.
        unfinished = unused;
    }
    writer.spares = Spares::of(spares(&*writer.catalog.storage, dir, &names));
    bump(&mut writer)?;
    if unfinished {
        writer.write_streams().map_err(|err| OpenError::Io {
            op: "write the streams of the last segment in",
            path: dir.to_owned(),
            source: Arc::new(std::io::Error::other(err.to_string())),
        })?;
    }
    writer.put_all_together();
    writer.survey();
    recovery.quarantined = writer.catalog.damages().listed();
    let durable = writer.durable.subscribe();
    Ok((writer, recovery, durable))
}

fn superblock_of(header: &crate::format::segment::SegmentHeader) -> Superblock {
    Superblock {
        generation: 0,
        cluster: header.cluster,
        node: header.node.clone(),
        incarnation: header.incarnation,
        boot: header.boot,
        durable_block: BlockNo::ZERO,
        durable_chain: [0; 16],
        clean: false,
        lost_from: BlockNo::ZERO,
    }
}

fn check_owner(options: &Options, dir: &Path, superblock: &Superblock) -> Result<(), OpenError> {
    if superblock.cluster != options.cluster {
        return Err(OpenError::ForeignCluster {
            dir: dir.to_owned(),
            found: superblock.cluster,
            expected: options.cluster,
        });
    }
    if superblock.node != options.node {
        return Err(OpenError::ForeignNode {
            dir: dir.to_owned(),
            found: superblock.node.clone(),
            expected: options.node.clone(),
        });
    }
    Ok(())
}

/// I6: what is found reaches at least as far as what the superblock saw durable.
fn check_witness(
    options: &Options,
    dir: &Path,
    catalog: &Catalog,
    head: Head,
    superblock: &Superblock,
) -> Result<Option<BlockNo>, OpenError> {
    let witness = superblock.durable_block;
    if head.block < witness {
        if options.on_lost_data == OnLostData::Refuse {
            return Err(OpenError::LostDurable {
                dir: dir.to_owned(),
                found: head.block,
                witness,
            });
        }
        tracing::error!(dir = %dir.display(), found = %head.block, %witness, "durable blocks are gone");
        return Ok(Some(witness));
    }
    if head.block == witness && witness > BlockNo::ZERO && head.chain != superblock.durable_chain {
        let path = catalog
            .segments()
            .back()
            .map_or(dir.to_owned(), |segment| segment.path.clone());
        return Err(OpenError::Damaged {
            path,
            offset: 0,
            reason: format!("block {witness} is not the one that was durable: its chain differs"),
        });
    }
    Ok(None)
}

/// Removes a torn end, and makes sure that the last whole block is on the disk and not only in the cache: the
/// run that wrote it may have died, or failed, before its sync. Writing the same bytes again is the only way to
/// have pages synced that a failed sync left clean.
fn make_certain(last: &crate::catalog::Segment, tail: &Tail) -> Result<(), OpenError> {
    let io = |op| OpenError::io(op, &last.path);
    if let Some(torn) = tail.torn {
        write_zeros(&*last.file, tail.off.into(), u64::from(torn.end - tail.off)).map_err(io("repair"))?;
    }
    if let Some((off, len)) = tail.last_block {
        let mut block = vec![0; len];
        pread_exact(&*last.file, &mut block, off.into()).map_err(io("read"))?;
        pwrite(&*last.file, &block, off.into()).map_err(io("write"))?;
    }
    last.file.fdatasync().map_err(io("sync"))
}

/// Used segments that can be written over, and their lengths. One that cannot be opened is of no use.
fn spares(storage: &dyn Storage, dir: &Path, names: &[String]) -> Vec<(PathBuf, u64)> {
    let len = |path: &PathBuf| storage.open(path, Access::Read).and_then(|file| file.len()).ok();
    let used = leftovers(dir, names).1;
    used.into_iter()
        .filter_map(|path| len(&path).map(|len| (path, len)))
        .collect()
}

/// Removes files of interrupted steps. Used segments kept as spares stay.
fn remove_leftovers(storage: &dyn Storage, dir: &Path, names: &[String]) -> Result<(), OpenError> {
    for path in leftovers(dir, names).0 {
        storage.remove(&path).map_err(OpenError::io("remove", &path))?;
    }
    Ok(())
}

fn writer(
    catalog: Catalog,
    options: Options,
    identity: Identity,
    head: Head,
    superblock: Superblock,
    lock: Box<dyn StorageLock>,
) -> Writer {
    let mut catalog = catalog;
    catalog.quarantines = options.on_damage == OnDamage::Quarantine;
    Writer {
        catalog: Arc::new(catalog),
        options,
        identity,
        counters: Arc::new(Counters::default()),
        active: None,
        spares: Spares::default(),
        head,
        synced: head,
        own: std::collections::HashMap::new(),
        superblock,
        superblock_file: 0,
        durable: watch::Sender::new(head.block),
        room: watch::Sender::new(Room::default()),
        blocked: None,
        retaining: false,
        poisoned: None,
        lock: Some(lock),
    }
}

/// Counts this boot and says that the log is open, before anything is appended.
fn bump(writer: &mut Writer) -> Result<(), OpenError> {
    let next = Superblock {
        generation: writer.superblock.generation + 1,
        boot: writer.identity.boot,
        durable_block: writer.head.block,
        durable_chain: writer.head.chain,
        clean: false,
        ..writer.superblock.clone()
    };
    write_superblock(
        &*writer.catalog.storage,
        &writer.catalog.dir,
        writer.superblock_file,
        &next,
    )?;
    writer.superblock_file = 1 - writer.superblock_file;
    writer.superblock = next;
    Ok(())
}
