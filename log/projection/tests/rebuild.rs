//! A projection that is missing, stale, of another log or damaged is folded again, to an equal state hash.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{Applied, Follower, Opened, Options as ProjectionOptions, Projection};
use ledge_proto::fold::State;
use ledge_proto::ids::{ClusterId, Lane, Scope, Seq, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tempfile::TempDir;

struct Site {
    options: ProjectionOptions,
    dir: TempDir,
    log: Option<Log>,
}

impl Site {
    fn new() -> Site {
        let mut site = Site {
            options: ProjectionOptions::edge(),
            dir: tempfile::tempdir().unwrap(),
            log: None,
        };
        site.open_log();
        site
    }

    fn open_log(&mut self) {
        let options = Options {
            segment_bytes: 8 << 20,
            ..Options::new(ClusterId([1; 16]), "edge-1")
        };
        self.log = Some(
            Log::open(Arc::new(DiskStorage), &self.dir.path().join("log"), options)
                .unwrap()
                .0,
        );
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn projection_dir(&self) -> PathBuf {
        self.dir.path().join("projection")
    }

    fn open(&self) -> (Projection, Opened) {
        Projection::open(&self.projection_dir(), self.log(), &self.options).unwrap()
    }

    /// Opens it, folds what is missing, and gives its hash and how it was opened.
    fn fold(&self) -> ([u8; 32], Opened, Applied) {
        let (projection, opened) = self.open();
        Follower::catch_up(self.log(), &projection, || false).unwrap();
        projection.persist().unwrap();
        (
            projection.state_hash(&scope()).unwrap(),
            opened,
            projection.applied(),
        )
    }

    fn append(&self, lane: Lane, records: Vec<v1::Record>) {
        self.log()
            .append_blocking(&StreamId::new(scope(), lane), records)
            .unwrap();
    }

    fn write_some(&self, rounds: u32) {
        for n in 0..rounds {
            self.append(Lane::UpState, vec![reported(n % 7, f64::from(n))]);
            self.append(Lane::UpData, (0..5).map(|m| sample(m, u64::from(n))).collect());
        }
    }

    /// The hash by another way: every frame folded in memory.
    fn hash_in_memory(&self) -> [u8; 32] {
        let mut state = State::new();
        for stream in self.log().streams() {
            let mut reader = self.log().read_stream(&stream.key, Seq::ZERO);
            while let Some(frame) = reader.next().unwrap() {
                state.apply_frame(&frame).unwrap();
            }
        }
        state.hash(&scope())
    }
}

fn scope() -> Scope {
    Scope::node("edge-1").unwrap()
}

fn record(key: String, mono_us: u64, payload: &Payload) -> v1::Record {
    let (kind, payload) = payload.encode();
    v1::Record {
        kind,
        key,
        mono_us,
        payload: payload.into(),
        ..Default::default()
    }
}

fn value(value: f64) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::Double(value)),
    })
}

fn reported(n: u32, v: f64) -> v1::Record {
    record(
        format!("d/p/{n}"),
        0,
        &Payload::TwinReported(v1::TwinReported { value: value(v) }),
    )
}

fn sample(n: u32, mono_us: u64) -> v1::Record {
    record(
        format!("d/p/{n}"),
        mono_us,
        &Payload::Sample(v1::Sample { value: value(1.0) }),
    )
}

fn rebuilt(opened: &Opened) -> &str {
    match opened {
        Opened::Rebuilding(reason) => reason,
        Opened::Continuing => panic!("it should not have been trusted"),
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path))
        } else {
            all.push(path)
        }
    }
    all.sort();
    all
}

#[test]
fn it_goes_on_where_it_stood() {
    let site = Site::new();
    site.write_some(20);
    let (first, opened, applied) = site.fold();
    rebuilt(&opened);
    site.write_some(10);
    let (second, opened, later) = site.fold();
    assert_eq!(opened, Opened::Continuing);
    assert!(later.block > applied.block);
    assert_ne!(first, second);
    assert_eq!(second, site.hash_in_memory());
}

#[test]
fn missing_it_is_folded_again_to_the_same_hash() {
    let site = Site::new();
    site.write_some(50);
    let (before, ..) = site.fold();
    fs::remove_dir_all(site.projection_dir()).unwrap();
    let (after, opened, _) = site.fold();
    assert_eq!(rebuilt(&opened), "it was missing");
    assert_eq!(before, after);
}

#[test]
fn of_another_log_it_is_not_trusted() {
    let (site, other) = (Site::new(), Site::new());
    site.write_some(10);
    other.write_some(3);
    let (before, ..) = site.fold();
    other.fold();
    fs::remove_dir_all(site.projection_dir()).unwrap();
    fs::rename(other.projection_dir(), site.projection_dir()).unwrap();
    let (after, opened, _) = site.fold();
    assert!(rebuilt(&opened).contains("another log"), "{opened:?}");
    assert_eq!(before, after);
}

#[test]
fn ahead_of_its_log_it_is_not_trusted() {
    let mut site = Site::new();
    site.write_some(5);
    site.fold();
    // The log as it was then, restored beside a projection that has seen more.
    site.log.take().unwrap().close().unwrap();
    let copy = site.dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in files(&site.dir.path().join("log")) {
        fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    site.open_log();
    site.write_some(5);
    site.fold();
    site.log.take().unwrap().close().unwrap();
    fs::remove_dir_all(site.dir.path().join("log")).unwrap();
    fs::rename(&copy, site.dir.path().join("log")).unwrap();
    site.open_log();
    let (hash, opened, _) = site.fold();
    assert!(rebuilt(&opened).contains("ahead of the log"), "{opened:?}");
    assert_eq!(hash, site.hash_in_memory());
}

#[test]
fn damage_anywhere_in_its_files_ends_in_the_same_hash() {
    let mut site = Site::new();
    // Enough for several tables on disk, some of them compacted.
    site.options.memtable_bytes = 64 << 10;
    for _ in 0..4 {
        let keys = (0..2000).map(|n| reported(n, 1.0)).collect();
        site.append(Lane::UpState, keys);
        site.write_some(10);
        site.fold();
    }
    let (before, ..) = site.fold();
    let tables = files(&site.projection_dir())
        .iter()
        .filter(|f| f.to_string_lossy().contains("tables"))
        .count();
    assert!(
        tables > 0,
        "no table was written: {:?}",
        files(&site.projection_dir())
    );
    let pristine = site.dir.path().join("pristine");
    copy_tree(&site.projection_dir(), &pristine);
    for file in files(&pristine) {
        let relative = file.strip_prefix(&pristine).unwrap().to_owned();
        for damage in [truncate as fn(&Path), zero_start, garble_middle, remove] {
            fs::remove_dir_all(site.projection_dir()).unwrap();
            copy_tree(&pristine, &site.projection_dir());
            damage(&site.projection_dir().join(&relative));
            let (after, opened, _) = site.fold();
            assert_eq!(before, after, "{} damaged, {opened:?}", relative.display());
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn truncate(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

fn zero_start(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let end = bytes.len().min(64);
    bytes[..end].fill(0);
    fs::write(path, bytes).unwrap();
}

fn garble_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    for byte in bytes.iter_mut().skip(middle).take(8) {
        *byte ^= 0x55;
    }
    fs::write(path, bytes).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_a_log_that_grows_and_stops_when_told() {
    let site = Site::new();
    let (projection, _) = site.open();
    let follower = Follower::start(site.log().clone(), projection.clone());
    let mut applied = projection.subscribe();
    let log = site.log().clone();
    tokio::task::spawn_blocking(move || {
        for n in 0..20 {
            let stream = StreamId::new(scope(), Lane::UpState);
            log.append_blocking(&stream, vec![reported(n, 1.0)]).unwrap();
        }
    })
    .await
    .unwrap();
    let end = site.log().durable_block();
    tokio::time::timeout(
        Duration::from_secs(10),
        applied.wait_for(|applied| applied.block >= end),
    )
    .await
    .expect("the projection falls behind")
    .unwrap();
    assert_eq!(projection.state_hash(&scope()).unwrap(), site.hash_in_memory());
    assert!(follower.is_running());
    follower.stop().unwrap();
}

#[test]
fn folded_from_nothing_in_many_loads_it_is_the_same_and_goes_on() {
    let mut site = Site::new();
    site.options.rebuild_bytes = 32 << 10;
    let device = |n: u32, payload: &Payload| record(format!("d/{n}"), 0, payload);
    let desired = |n: u32| {
        record(
            format!("d/{n}/p"),
            0,
            &Payload::TwinDesired(v1::TwinDesired { value: value(1.0) }),
        )
    };
    let spec = Payload::DeviceSpec(Box::default());
    for round in 0..6 {
        let records = |from: u32| (from..from + 400).map(|n| reported(n, f64::from(n + round)));
        site.append(Lane::UpState, records(round * 300).collect());
        let devices = (0..200).flat_map(|n| [device(round * 100 + n, &spec), desired(round * 100 + n)]);
        site.append(Lane::Down, devices.collect());
        // Some of those went into an earlier load, with what was wished of them.
        let removed = (0..50).map(|n| device(round * 100 + n * 2, &Payload::DeviceRemoved));
        site.append(Lane::Down, removed.collect());
    }
    let (hash, opened, _) = site.fold();
    assert!(matches!(opened, Opened::Rebuilding(_)), "{opened:?}");
    assert_eq!(hash, site.hash_in_memory());

    site.write_some(20);
    let (hash, opened, _) = site.fold();
    assert_eq!(opened, Opened::Continuing);
    assert_eq!(hash, site.hash_in_memory());
}
