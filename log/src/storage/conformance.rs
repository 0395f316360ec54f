//! The contract of [`super::Storage`] as tests, run over every implementation.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use super::{Access, DiskStorage, SimDisk, Storage, pread_exact, pwrite, write_zeros};

fn check(storage: &dyn Storage, dir: &Path) {
    storage.create_dir_all(dir).unwrap();
    storage.create_dir_all(dir).unwrap();
    assert!(storage.list(dir).unwrap().is_empty());
    assert_eq!(
        storage.list(&dir.join("none")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(storage.free_bytes(dir).unwrap() > 0);

    // Writing grows the file; reading is short only at its end.
    let (a, b) = (dir.join("a"), dir.join("b"));
    assert_eq!(
        storage.open(&a, Access::Read).err().map(|err| err.kind()),
        Some(ErrorKind::NotFound)
    );
    let file = storage.create(&a).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.pwritev(
        &[IoSlice::new(b"one"), IoSlice::new(b""), IoSlice::new(b"two")],
        2,
    )
    .unwrap();
    assert_eq!(file.len().unwrap(), 8);
    let mut buf = [9; 10];
    assert_eq!(file.pread(&mut buf, 0).unwrap(), 8);
    assert_eq!(&buf, b"\0\0onetwo\x09\x09");
    assert_eq!(file.pread(&mut buf, 100).unwrap(), 0);
    assert_eq!(
        pread_exact(&*file, &mut buf, 0).unwrap_err().kind(),
        ErrorKind::UnexpectedEof
    );

    // More pieces than one system call takes.
    let pieces: Vec<[u8; 2]> = (0..3000u16).map(u16::to_le_bytes).collect();
    let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    file.pwritev(&slices, 1000).unwrap();
    let mut all = vec![0; 6000];
    pread_exact(&*file, &mut all, 1000).unwrap();
    assert_eq!(all, pieces.concat());

    // Cut and grown again, it reads as zeros.
    file.set_len(4).unwrap();
    file.set_len(8).unwrap();
    pread_exact(&*file, &mut buf[..8], 0).unwrap();
    assert_eq!(&buf[..8], b"\0\0on\0\0\0\0");
    write_zeros(&*file, 0, 700_000).unwrap();
    assert_eq!(file.len().unwrap(), 700_000);
    file.fdatasync().unwrap();
    storage.sync_dir(dir).unwrap();

    // Renaming replaces; handles stay valid.
    pwrite(&*file, b"kept", 0).unwrap();
    pwrite(&*storage.create(&b).unwrap(), b"gone", 0).unwrap();
    assert_eq!(storage.list(dir).unwrap(), ["a", "b"]);
    storage.rename(&a, &b).unwrap();
    assert_eq!(storage.list(dir).unwrap(), ["b"]);
    assert_eq!(storage.rename(&a, &b).unwrap_err().kind(), ErrorKind::NotFound);
    pwrite(&*file, b"K", 0).unwrap();
    let reader = storage.open(&b, Access::Read).unwrap();
    pread_exact(&*reader, &mut buf[..4], 0).unwrap();
    assert_eq!(&buf[..4], b"Kept");
    assert!(pwrite(&*reader, b"x", 0).is_err(), "opened for reading");
    storage.remove(&b).unwrap();
    assert_eq!(storage.remove(&b).unwrap_err().kind(), ErrorKind::NotFound);
    pread_exact(&*reader, &mut buf[..4], 0).unwrap();
    assert_eq!(
        storage
            .create(&dir.join("none").join("c"))
            .err()
            .map(|err| err.kind()),
        Some(ErrorKind::NotFound)
    );

    // Creating empties what is there.
    pwrite(&*storage.create(&a).unwrap(), b"old", 0).unwrap();
    assert_eq!(storage.create(&a).unwrap().len().unwrap(), 0);

    // One lock at a time; it ends when it is dropped.
    let path = dir.join("LOCK");
    let lock = storage.lock(&path, "7").unwrap();
    assert_eq!(
        storage.lock(&path, "8").err().map(|err| err.kind()),
        Some(ErrorKind::WouldBlock)
    );
    drop(lock);
    drop(storage.lock(&path, "9").unwrap());
}

#[test]
fn real_files_keep_the_contract() {
    let temp = tempfile::tempdir().unwrap();
    check(&DiskStorage, &temp.path().join("x").join("y"));
}

#[test]
fn the_simulated_disk_keeps_the_contract() {
    check(&SimDisk::new(), Path::new("/sim/x"));
}

mod crashes {
    use super::super::sim::{CrashKeeps, Fault, SECTOR};
    use super::*;

    fn disk_with_file() -> (SimDisk, std::path::PathBuf) {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let path = Path::new("/d/f").to_owned();
        let file = disk.create(&path).unwrap();
        pwrite(&*file, &[1; 4 * SECTOR], 0).unwrap();
        file.fdatasync().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        (disk, path)
    }

    #[test]
    fn synced_bytes_survive_and_unsynced_sectors_survive_one_by_one() {
        let (disk, path) = disk_with_file();
        let file = disk.open(&path, Access::ReadWrite).unwrap();
        pwrite(&*file, &[2; 3 * SECTOR], 0).unwrap();
        assert_eq!((disk.pending().sectors, disk.pending().names), (3, 0));
        for bits in 0..8u64 {
            let after = disk.after_crash(&CrashKeeps::Chosen(bits)).read(&path).unwrap();
            for sector in 0..4 {
                let expected = if bits >> sector & 1 == 1 { 2 } else { 1 };
                assert!(
                    after[sector * SECTOR..(sector + 1) * SECTOR]
                        .iter()
                        .all(|byte| *byte == expected)
                );
            }
        }
        file.fdatasync().unwrap();
        let after = disk.after_crash(&CrashKeeps::Nothing).read(&path).unwrap();
        assert_eq!(after[..3 * SECTOR], [2; 3 * SECTOR]);
    }

    #[test]
    fn names_survive_only_by_a_sync_of_the_directory() {
        let (disk, path) = disk_with_file();
        let to = Path::new("/d/g");
        disk.rename(&path, to).unwrap();
        let lost = disk.after_crash(&CrashKeeps::Nothing);
        assert_eq!(lost.list(Path::new("/d")).unwrap(), ["f"]);
        let kept = disk.after_crash(&CrashKeeps::Everything);
        assert_eq!(kept.list(Path::new("/d")).unwrap(), ["g"]);
        assert_eq!(kept.read(to).unwrap().len(), 4 * SECTOR);
    }

    #[test]
    fn a_failed_sync_leaves_pages_that_no_later_sync_writes() {
        let (disk, path) = disk_with_file();
        let file = disk.open(&path, Access::ReadWrite).unwrap();
        pwrite(&*file, &[3; SECTOR], 0).unwrap();
        disk.fail_at(disk.ops(), Fault::SyncError);
        file.fdatasync().unwrap_err();
        file.fdatasync().unwrap();
        assert_eq!(disk.read(&path).unwrap()[0], 3, "reads show it");
        assert_eq!(
            disk.after_crash(&CrashKeeps::Everything).read(&path).unwrap()[0],
            1,
            "the disk never got it"
        );
    }

    #[test]
    fn faults_crashes_and_capacity_do_what_was_ordered() {
        let (disk, path) = disk_with_file();
        let file = disk.open(&path, Access::ReadWrite).unwrap();
        disk.fail_at(disk.ops(), Fault::NoSpace { written: 3 });
        let err = pwrite(&*file, b"abcdef", 0).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::StorageFull);
        assert_eq!(&disk.read(&path).unwrap()[..4], b"abc\x01");
        disk.set_capacity(Some(4 * SECTOR as u64 + 10));
        assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 10);
        assert_eq!(
            pwrite(&*file, &[5; 20], 4 * SECTOR as u64).unwrap_err().kind(),
            ErrorKind::StorageFull
        );
        assert_eq!(file.len().unwrap(), 4 * SECTOR as u64 + 10);
        disk.crash_at(disk.ops());
        assert!(pwrite(&*file, b"x", 0).is_err() && disk.has_crashed());
        assert!(file.pread(&mut [0], 0).is_err(), "the machine is off");
    }
}
