//! A disk that is full: a small one of its own (tmpfs), which root may mount, and whoever may have a user namespace. Without
//! either the test says that it was skipped, and fails where `CI` is set.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ledge::quickstart::site::NODE;
use ledge_log::{DiskStorage, Log, LogView, Options};
use ledge_proto::ids::{Lane, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

use crate::support::place::{Everything, NOWHERE, Place, SEGMENT, node, until};

/// A small disk, mounted while this lives.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path, mib: u32) -> Option<SmallDisk> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_owned())),
            told if std::env::var_os(INSIDE).is_some() => panic!("cannot mount a tmpfs: {told:?}"),
            told => {
                if !again_as_root_of_a_namespace() {
                    let message = format!("full_disk: cannot mount a tmpfs: {told:?}");
                    assert!(std::env::var_os("CI").is_none(), "{message}");
                    // Past the test harness, which keeps what a passing test prints.
                    writeln!(std::io::stderr(), "SKIPPED {message}").ok();
                }
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let stats = rustix::fs::statvfs(&self.0).unwrap();
        stats.f_bavail * stats.f_frsize
    }

    /// Takes all but `left` bytes. Deleting the file gives them back.
    pub(crate) fn fill(&self, left: u64) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        while self.free() > left {
            // The daemon may be faster with the last page.
            if file.write_all(&[1; 4096]).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// Set for a test that runs again as root of a namespace.
const INSIDE: &str = "LEDGE_TEST_IN_NAMESPACE";

/// Runs the calling test again where it may mount, to its end. `false` where there is no such place.
fn again_as_root_of_a_namespace() -> bool {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]);
        command
    };
    let may = unshare()
        .arg("true")
        .status()
        .is_ok_and(|status| status.success());
    // The harness gives each test a thread of its name, unless it runs them all in one.
    let thread = std::thread::current();
    let Some(test) = thread.name().filter(|name| may && *name != "main") else {
        return false;
    };
    let output = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{test} in a namespace of its own: {said}"
    );
    true
}

/// A running site whose edge has some hundred blocks of room left in its log, on a disk without room for another
/// segment.
async fn nearly_full(place: &Place, disk: &SmallDisk) -> (Everything, PathBuf) {
    let all = place.start_everything().await;
    all.edge.stop().await.unwrap();
    fill_log(place).await;
    // Once more with room: everything is folded.
    place.start_edge(NOWHERE).await.stop().await.unwrap();
    let filler = disk.fill(SEGMENT / 4);
    let edge = place.start_edge(all.relay.address()).await;
    (Everything { edge, ..all }, filler)
}

/// Fills the segment of the edge's log, which was hardly begun, almost to its end.
async fn fill_log(place: &Place) {
    let options = Options {
        segment_bytes: SEGMENT,
        prepare_ahead: false,
        ..Options::new(place.authority().cluster(), NODE)
    };
    let dir = place.site.edge_dir().join("log");
    let (log, _) = Log::open(Arc::new(DiskStorage), &dir, options).unwrap();
    let up_data = StreamId::new(node(), Lane::UpData);
    let noise = noise(100 << 10);
    while log.stats().written_bytes < SEGMENT - (900 << 10) {
        let event = Payload::DaemonEvent(v1::Event {
            reason: "Noise".into(),
            message: noise.clone(),
        });
        let (kind, payload) = event.encode();
        let record = v1::Record {
            kind,
            key: NODE.into(),
            wall_us: 1_800_000_000_000_000,
            payload: payload.into(),
            ..Default::default()
        };
        log.append(&up_data, vec![record]).await.unwrap();
    }
    log.close().unwrap();
}

/// Records of the node's `up.data`.
fn telemetry(place: &Place) -> u64 {
    let log = LogView::open(Arc::new(DiskStorage), &place.site.edge_dir().join("log")).unwrap();
    let streams = log.streams().into_iter();
    let own = streams.filter(|stream| stream.key.id == StreamId::new(node(), Lane::UpData));
    own.map(|stream| stream.durable.position.seq.0).sum()
}

/// Text that compresses badly.
pub(crate) fn noise(len: usize) -> String {
    let mut state = 1u32;
    let letters = (0..len).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + u8::try_from(state >> 24).unwrap() % 95)
    });
    letters.collect()
}

#[tokio::test]
async fn edgecore_waits_for_space_and_loses_nothing() {
    let place = Place::new().await;
    let Some(disk) = SmallDisk::mount(&place.site.edge_dir(), 400) else {
        return;
    };
    let (mut all, filler) = nearly_full(&place, &disk).await;
    place
        .edge_says(&["cannot make a new log segment", "free some space"])
        .await;
    let full = telemetry(&place);
    place.cloud_holds(place.edge_records()).await;
    // What is left is for states and for what the daemon notes for itself.
    assert_eq!(telemetry(&place), full, "no telemetry is appended to a full log");

    // It lives, and goes on as soon as there is space.
    assert!(all.edge.is_running());
    fs::remove_file(&filler).unwrap();
    until("edgecore to go on", || telemetry(&place) >= full + 50).await;
    place.cloud_catches_up().await;
    all.edge.stop().await.unwrap();
    all.cloud.daemon.stop().await.unwrap();
    place.assert_sound();
    assert_eq!(place.cloud_records(), place.edge_records());
}

#[tokio::test]
async fn edgecore_starts_and_stops_on_a_full_disk() {
    let place = Place::new().await;
    let Some(disk) = SmallDisk::mount(&place.site.edge_dir(), 400) else {
        return;
    };
    let (all, filler) = nearly_full(&place, &disk).await;
    place.edge_says(&["cannot make a new log segment"]).await;
    // Not even the stop can be written down any more; it is a stop in order all the same.
    all.edge.stop().await.unwrap();
    let stopped = place.edge_records();
    let mut edge = place.start_edge(all.relay.address()).await;
    place.edge_says(&["log open", "clean: true"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(edge.is_running(), "{}", place.edge_said());
    fs::remove_file(&filler).unwrap();
    until("edgecore to go on", || place.edge_records() >= stopped + 20).await;
    edge.stop().await.unwrap();
    all.cloud.daemon.stop().await.unwrap();
    place.assert_sound();
    assert_eq!(place.cloud_records(), place.edge_records());
}

/// Not one byte left, so that the projection cannot be written either.
#[tokio::test]
async fn edgecore_survives_a_disk_without_a_byte() {
    let place = Place::new().await;
    let Some(disk) = SmallDisk::mount(&place.site.edge_dir(), 400) else {
        return;
    };
    let mut all = place.start_everything().await;
    let filler = disk.fill(0);
    let had = place.edge_records();
    place.edge_says(&["the disk is full", "free some space"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(all.edge.is_running(), "{}", place.edge_said());
    assert!(
        place.edge_records() > had,
        "the log has its segment and needs no space"
    );
    fs::remove_file(&filler).unwrap();
    // What was not folded meanwhile is folded now: a new wish reaches the device.
    place.site.write_manifests(all.device, 42.0).unwrap();
    place.edge_writes(all.device, 420).await;
    all.edge.stop().await.unwrap();
    all.cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}
