//! A gateway without a battery for its clock: the real edgecore started in 1970, when none of its certificates is valid
//! yet, without a link; then with one; then its clock is set. And a clock that is set back, and right again, while edgecore runs.
//!
//! Its wall clock is that of libfaketime (Debian: `apt-get install faketime`), in a file that the test changes while
//! edgecore runs; `LEDGE_FAKETIME` names the library where it is elsewhere. Without it the test says that it was skipped,
//! and fails where `CI` is set.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ledge::quickstart::claims::{self, Side};
use ledge::quickstart::daemons::Launch;
use ledge::quickstart::probe;
use ledge::quickstart::relay::Relay;
use ledge::quickstart::site::{COUNTER, DEVICE};
use ledge_log::{DiskStorage, LogView};
use ledge_proto::ids::{Lane, Seq, StreamId, StreamKey};
use ledge_proto::record::Payload;
use ledge_proto::stamp::BUILT_AFTER_US;
use ledge_proto::v1::{self, ClockQuality};

use crate::support::place::{Everything, Place, node, until};

const YEAR_US: i64 = 365 * 86_400 * 1_000_000;

/// The wall clock of a program started under it.
struct WallClock {
    library: PathBuf,
    /// What libfaketime adds to the machine's clock.
    offset: PathBuf,
}

impl WallClock {
    /// A clock that shows a minute after midnight, 1 January 1970.
    fn in_1970(place: &Place) -> Option<WallClock> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        WallClock::ahead(place, &format!("-{}", now - 60))
    }

    /// A clock that is `offset` seconds from the machine's.
    fn ahead(place: &Place, offset: &str) -> Option<WallClock> {
        let Some(library) = library() else {
            let message = "boot_1970: libfaketime is not installed (apt-get install faketime)";
            assert!(std::env::var_os("CI").is_none(), "{message}");
            // Past the test harness, which keeps what a passing test prints.
            writeln!(std::io::stderr(), "SKIPPED {message}").ok();
            return None;
        };
        let clock = WallClock {
            library,
            offset: place.path("clock"),
        };
        clock.shift(offset);
        Some(clock)
    }

    /// The time service has answered.
    fn set_right(&self) {
        self.shift("+0");
    }

    /// Whoever reads the file meanwhile reads all of it.
    fn shift(&self, offset: &str) {
        let new = self.offset.with_extension("new");
        fs::write(&new, offset).unwrap();
        fs::rename(&new, &self.offset).unwrap();
    }

    /// `launch`, under this clock. The monotonic clock stays as it is, as it does on a machine whose clock is set.
    fn over(&self, launch: Launch) -> Launch {
        let mut args: Vec<String> = [
            ("LD_PRELOAD", self.library.as_path()),
            ("FAKETIME_TIMESTAMP_FILE", &self.offset),
            ("FAKETIME_CACHE_DURATION", Path::new("1")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
            ("NO_FAKE_STAT", Path::new("1")),
        ]
        .map(|(name, value)| format!("{name}={}", value.display()))
        .into();
        args.push(launch.program.display().to_string());
        args.extend(launch.args);
        Launch {
            // It becomes the program: signals reach it.
            program: PathBuf::from("env"),
            args,
            ..launch
        }
    }
}

fn library() -> Option<PathBuf> {
    let given = std::env::var_os("LEDGE_FAKETIME").map(PathBuf::from);
    let arch = std::env::consts::ARCH;
    let debian = format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1");
    given
        .into_iter()
        .chain([PathBuf::from(debian)])
        .find(|library| library.is_file())
}

/// Records of the node's lane, in the order of the log.
fn records(dir: &Path, lane: Lane) -> Vec<v1::Record> {
    let view = LogView::open(Arc::new(DiskStorage), &dir.join("log")).unwrap();
    let id = StreamId::new(node(), lane);
    let is_it = |key: &&StreamKey| key.id == id;
    let key = view
        .streams()
        .into_iter()
        .map(|info| info.key)
        .collect::<Vec<_>>();
    let key = key.iter().find(is_it).unwrap();
    let mut reader = view.read_stream(key, Seq::ZERO);
    let mut records = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        let of_frame = frame.records().unwrap();
        records.extend(of_frame.map(|item| item.unwrap().1));
    }
    records
}

#[tokio::test]
async fn a_gateway_that_boots_in_1970_works_on_and_is_heard_once_and_in_order() {
    let place = Place::new().await;
    let Some(clock) = WallClock::in_1970(&place) else {
        return;
    };
    // It learns its device while its clock is right; then the power fails.
    let Everything {
        simulator,
        device,
        cloud,
        relay,
        edge,
    } = place.start_everything().await;
    place.edge_writes(device, 300).await;
    edge.stop().await.unwrap();
    relay.cut();
    let before = place.edge_records();

    // 1970, no link: what the projection holds is worked with, in both directions.
    let edge = clock
        .over(place.site.edgecore(relay.address()).unwrap())
        .start()
        .await
        .unwrap();
    until("readings in 1970", || place.edge_records() > before + 20).await;
    probe::write_register(device, place.site.registers().setpoint, 170)
        .await
        .unwrap();
    place.edge_writes(device, 300).await;

    // A link comes before the time does. By the wall clock no certificate is valid yet.
    relay.restore();
    place.cloud_catches_up().await;

    // The time arrives.
    clock.set_right();
    place.edge_says(&["the wall clock was set"]).await;
    let set = place.edge_records();
    place.cloud_holds(set + 20).await;
    edge.stop().await.unwrap();
    drop(simulator);
    cloud.daemon.stop().await.unwrap();

    // Delivered once, in order, and it is what the device said.
    let of = |dir: &Path| Side::read(dir, &node(), &format!("{DEVICE}/{COUNTER}")).unwrap();
    let (edge_dir, cloud_dir) = (place.site.edge_dir(), place.site.cloud_dir());
    let (ours, theirs) = (of(&edge_dir), of(&cloud_dir));
    let handed_out = claims::handed_out(&place.site.device_journal()).unwrap();
    assert!(handed_out.len() > 20, "{}", handed_out.len());
    for claim in [
        claims::nothing_lost_or_doubled(&ours, &theirs),
        claims::same_hash(&ours, &theirs, &node()),
        // Stopped twice with an answer in its hands, at most.
        claims::device_agrees(&handed_out, &theirs, 2),
    ] {
        assert!(claim.holds, "{}: {}", claim.claim, claim.seen);
    }

    // Every record says what its clock was worth.
    let telemetry = records(&cloud_dir, Lane::UpData);
    let boot = telemetry.last().unwrap().boot;
    let this_start: Vec<&v1::Record> = telemetry.iter().filter(|record| record.boot == boot).collect();
    let notes: Vec<(usize, v1::ClockSync)> = (0..)
        .zip(&this_start)
        .filter_map(|(at, record)| match Payload::decode(record).unwrap() {
            Payload::ClockSync(note) => Some((at, note)),
            _ => None,
        })
        .collect();
    let [(at, note)] = &notes[..] else {
        panic!("one note of the clock, not {notes:#?}");
    };
    assert!(
        note.before_us < YEAR_US && note.wall_us > BUILT_AFTER_US,
        "{note:?}"
    );
    assert_eq!(note.boot, boot);
    let in_1970 = |record: &v1::Record| record.clock() == ClockQuality::ClockBeforeBuild;
    let (early, late) = this_start.split_at(*at);
    assert!(early.iter().filter(|record| in_1970(record)).count() > 20);
    for record in this_start.iter().filter(|record| in_1970(record)) {
        assert!((0..YEAR_US).contains(&record.wall_us), "{record:?}");
        assert!(record.mono_us <= note.mono_us, "{record:?}");
    }
    assert!(
        !late.iter().any(|record| in_1970(record)),
        "the clock was right by then"
    );
    let state = records(&cloud_dir, Lane::UpState);
    assert!(state.iter().any(in_1970), "state too");

    // Nothing was taken for gone because a certificate was not valid yet.
    let state = ledge_proto::fold::view::devices(&theirs.state, &node()).unwrap();
    assert!(state[DEVICE].spec.is_some());
    place.assert_sound();
}

/// The order never depends on the wall clock, which goes back by an hour and forth again while a device is read.
#[tokio::test]
async fn a_clock_that_is_set_back_changes_no_order_and_doubles_nothing() {
    let place = Place::new().await;
    let Some(clock) = WallClock::ahead(&place, "+0") else {
        return;
    };
    let (simulator, device) = place.site.start_device().await.unwrap();
    place.site.write_manifests(device, 30.0).unwrap();
    let cloud = place.start_cloud().await;
    let relay = Relay::start(cloud.hub).await.unwrap();
    let edge = clock.over(place.site.edgecore(relay.address()).unwrap());
    let edge = edge.start().await.unwrap();
    place.cloud_holds(20).await;
    place.edge_writes(device, 300).await;

    let told = || place.edge_said().matches("the wall clock was set").count();
    clock.shift("-3600");
    until("the jump back", || told() == 1).await;
    let back = place.edge_records();
    // A link that breaks meanwhile is made again, and wishes are carried out.
    relay.cut();
    until("readings without a link", || place.edge_records() > back + 20).await;
    relay.restore();
    place.site.write_manifests(device, 42.0).unwrap();
    place.edge_writes(device, 420).await;
    place.cloud_catches_up().await;
    clock.set_right();
    until("the jump forth", || told() == 2).await;
    let forth = place.edge_records();
    place.cloud_holds(forth + 20).await;
    edge.stop().await.unwrap();
    drop(simulator);
    cloud.daemon.stop().await.unwrap();

    let of = |dir: &Path| Side::read(dir, &node(), &format!("{DEVICE}/{COUNTER}")).unwrap();
    let (ours, theirs) = (of(&place.site.edge_dir()), of(&place.site.cloud_dir()));
    let handed_out = claims::handed_out(&place.site.device_journal()).unwrap();
    for claim in [
        claims::nothing_lost_or_doubled(&ours, &theirs),
        claims::same_hash(&ours, &theirs, &node()),
        claims::device_agrees(&handed_out, &theirs, 1),
    ] {
        assert!(claim.holds, "{}: {}", claim.claim, claim.seen);
    }
    let telemetry = records(&place.site.cloud_dir(), Lane::UpData);
    let counter = format!("{DEVICE}/{COUNTER}");
    let readings: Vec<&v1::Record> = telemetry.iter().filter(|record| record.key == counter).collect();
    let went_back = |pair: &[&v1::Record]| pair[1].wall_us < pair[0].wall_us - 3_000_000_000;
    assert_eq!(readings.windows(2).filter(|pair| went_back(pair)).count(), 1);
    assert!(
        readings.windows(2).all(|pair| pair[1].mono_us >= pair[0].mono_us),
        "by the monotonic clock nothing went back"
    );
    let notes = telemetry
        .iter()
        .filter_map(|record| match Payload::decode(record).unwrap() {
            Payload::ClockSync(note) => Some((note.wall_us - note.before_us) / 1_000_000),
            _ => None,
        });
    let jumps: Vec<i64> = notes.collect();
    let near = |jump: i64, seconds: i64| (jump - seconds).abs() < 60;
    assert!(
        matches!(jumps[..], [back, forth] if near(back, -3600) && near(forth, 3600)),
        "{jumps:?}"
    );
    place.assert_sound();
}
