//! Logs that are not what was written. A daemon that needs what is damaged, because it has not folded it yet, refuses to
//! run and says how to look closer; one that does not says so, goes on with the rest and asks the other end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledge::quickstart::daemons::Launch;
use ledge::quickstart::site::NODE;
use ledge_log::{DiskStorage, Log, LogView, Options};
use ledge_proto::fold::{Read, State, Table};
use ledge_proto::ids::{Lane, Scope, Seq, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;
use ledge_retention::replay::fold_all;

use crate::bit_rot::{flip, frame_of};
use crate::bounded::{dropped, ledge, sql};
use crate::fencing::{ledge as ask, until_told};
use crate::support::place::{NOWHERE, Place, assert_whole, node, refuses, until};

const UNIT: usize = 4096;
/// Appends, each a block of its own; a segment holds some sixty.
const APPENDS: u32 = 150;

/// Fills the log of the data directory `dir` with [`APPENDS`] records in several segments.
async fn fill(place: &Place, dir: &Path, writer: &str, scope: Scope, lane: Lane) {
    let options = Options {
        segment_bytes: 64 * UNIT as u64,
        ..Options::new(place.authority().cluster(), writer)
    };
    let (log, _) = Log::open(Arc::new(DiskStorage), &dir.join("log"), options).unwrap();
    for n in 0..APPENDS {
        let value = v1::Value {
            value: Some(v1::value::Value::Int(n.into())),
        };
        let payload = match lane {
            Lane::Down => Payload::TwinDesired(v1::TwinDesired { value: Some(value) }),
            _ => Payload::Sample(v1::Sample { value: Some(value) }),
        };
        let (kind, payload) = payload.encode();
        let record = v1::Record {
            kind,
            key: "default/pump/speed".into(),
            wall_us: 1_800_000_000_000_000 + i64::from(n),
            payload: payload.into(),
            ..Default::default()
        };
        log.append(&StreamId::new(scope.clone(), lane), vec![record])
            .await
            .unwrap();
    }
    log.close().unwrap();
}

/// A filled log and the daemon that owns it.
async fn filled_edge(place: &Place) -> (PathBuf, Launch) {
    let dir = place.site.edge_dir();
    fill(place, &dir, NODE, node(), Lane::UpData).await;
    (dir, place.edge_alone())
}

async fn filled_cloud(place: &Place) -> (PathBuf, Launch) {
    let dir = place.site.cloud_dir();
    fill(place, &dir, "cloud", node(), Lane::Down).await;
    (dir, place.cloud())
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("seg-"))
        .collect();
    found.sort();
    found
}

pub(crate) fn first_segment(dir: &Path) -> PathBuf {
    segments(dir).remove(0)
}

/// Makes a segment one that a later version wrote.
pub(crate) fn raise_version(segment: &mut [u8]) {
    segment[8] += 1;
}

/// Where a block in the middle of `segment` begins.
fn middle_block(segment: &[u8]) -> usize {
    let blocks: Vec<usize> = (0..segment.len())
        .step_by(UNIT)
        .filter(|at| segment[*at..].starts_with(b"LBK1"))
        .collect();
    blocks[blocks.len() / 2]
}

/// Damages `path` with `damage`, checks that the daemon refuses it with all of `words` and leaves the file alone,
/// and that with the right bytes back nothing is missing.
async fn refused_when(
    launch: &Launch,
    dir: &Path,
    path: &Path,
    damage: impl FnOnce(&mut Vec<u8>),
    words: &[&str],
) {
    let before = fs::read(path).unwrap();
    let mut damaged = before.clone();
    damage(&mut damaged);
    fs::write(path, &damaged).unwrap();
    let file = path.to_str().unwrap();
    let command = format!("ledge log verify {}", dir.join("log").display());
    refuses(launch, 1, &[&[file, &command], words].concat()).await;
    assert!(fs::read(path).unwrap() == damaged, "{file} was changed");
    fs::write(path, &before).unwrap();
    assert_whole(dir);
}

#[tokio::test]
async fn a_block_that_cannot_be_read_stops_folding_it() {
    let place = Place::new().await;
    for (dir, launch) in [filled_edge(&place).await, filled_cloud(&place).await] {
        let last = segments(&dir).pop().unwrap();
        let zero = |bytes: &mut Vec<u8>| {
            let at = middle_block(bytes);
            bytes[at..at + 512].fill(0);
        };
        refused_when(&launch, &dir, &last, zero, &["projection", "is damaged at byte"]).await;
        launch.start().await.unwrap().stop().await.unwrap();
    }
    place.assert_sound();
}

#[tokio::test]
async fn a_flipped_bit_in_an_old_segment_stops_folding_it() {
    let place = Place::new().await;
    for (dir, launch) in [filled_edge(&place).await, filled_cloud(&place).await] {
        let flip = |bytes: &mut Vec<u8>| {
            let at = middle_block(bytes) + 100;
            bytes[at] ^= 1;
        };
        refused_when(
            &launch,
            &dir,
            &first_segment(&dir),
            flip,
            &["projection", "is damaged at byte"],
        )
        .await;
        launch.start().await.unwrap().stop().await.unwrap();
    }
    // Started, NodeState, Stopped; and the status of the Node, unless it was stopped before it had looked.
    let written = place.edge_records() - u64::from(APPENDS);
    assert!((3..=4).contains(&written), "{written}");
    place.assert_sound();
}

#[tokio::test]
async fn a_file_that_was_cut_off_and_a_file_that_is_gone() {
    let place = Place::new().await;
    for (dir, launch) in [filled_edge(&place).await, filled_cloud(&place).await] {
        let first = first_segment(&dir);
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
        refused_when(&launch, &dir, &first, cut, &["cut off"]).await;
        let middle = segments(&dir).remove(1);
        let away = dir.join("away");
        fs::rename(&middle, &away).unwrap();
        refuses(
            &launch,
            1,
            &["segment 1 is missing", dir.to_str().unwrap(), "restore the file"],
        )
        .await;
        fs::rename(&away, &middle).unwrap();
        assert_whole(&dir);
    }
}

/// What is folded already is not read again at the start: the link meets the damage, in records that the cloud never had.
/// They are declared, and everything else arrives.
#[tokio::test]
async fn telemetry_that_rots_before_it_was_sent_is_a_gap_and_the_rest_arrives() {
    let place = Place::new().await;
    let (dir, _) = filled_edge(&place).await;
    place.start_edge(NOWHERE).await.stop().await.unwrap();
    let first = first_segment(&dir);
    let mut damaged = fs::read(&first).unwrap();
    let at = middle_block(&damaged);
    // One bit of a frame, and the next block as a whole.
    damaged[at + 100] ^= 1;
    damaged[at + UNIT..at + 2 * UNIT].fill(0);
    fs::write(&first, &damaged).unwrap();

    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    place
        .edge_says(&["a damaged block", first.file_name().unwrap().to_str().unwrap()])
        .await;
    place.edge_says(&["declared as a gap", "count=3"]).await;
    all_arrives(&place).await;
    let told = until_told(&place, cloud.http, "what the node cannot read", |node| {
        node["link"]["unreadableRecords"] == 2
    })
    .await;
    assert_eq!(told["unreadableRecords"], 0, "the cloud can: {told:#}");
    let (_, shown) = ask(&place, Some(cloud.http), &["node", "show", NODE]).await;
    assert!(shown.contains("damaged         node 2\n"), "{shown}");
    edge.stop().await.unwrap();
    // Stopped and started again, nothing is told twice.
    let edge = place.start_edge(cloud.hub).await;
    all_arrives(&place).await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    assert!(fs::read(&first).unwrap() == damaged, "the file was changed");

    let cloud_dir = place.site.cloud_dir();
    let gaps = sql(
        &place,
        &cloud_dir,
        "SELECT reason, dropped, first_seq, last_seq FROM gaps",
    );
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["reason"], "Corrupt", "{gaps:?}");
    // Two damaged records, and the one behind: nothing connects it with what the cloud has.
    assert_eq!(gaps[0]["dropped"], 3, "{gaps:?}");
    assert_eq!(dropped(&place, &cloud_dir, "up.data"), 3);
    // The edge's own log still lists what it cannot read, and counts the gap.
    assert_eq!(dropped(&place, &dir, "up.data"), 3);
    let stats = &ledge(&place, &["log", "stats", dir.to_str().unwrap()])[0]["unreadable"];
    assert_eq!(stats["blocks"], 2, "{stats:#}");
    assert_eq!(stats["records"][0]["records"], 2, "{stats:#}");
    assert_whole(&cloud_dir);
    // What was there, a gap record, and what the daemon says of its starts and stops.
    let held = place.cloud_records();
    assert!(held > u64::from(APPENDS) - 3, "{held}");
    assert!(!place.edge_said().contains("panicked") && !place.cloud_said().contains("panicked"));
}

/// State that rots before it was sent: what it came to was folded, and is what the cloud gets.
#[tokio::test]
async fn state_that_rots_before_it_was_sent_arrives_as_what_it_came_to() {
    let place = Place::new().await;
    let running = place.start_everything().await;
    running.edge.stop().await.unwrap();
    place.cloud_catches_up().await;
    running.cloud.daemon.stop().await.unwrap();
    let before = frames_of(&place.site.edge_dir(), Lane::UpState);
    let edge = place.start_edge(NOWHERE).await;
    let more = || frames_of(&place.site.edge_dir(), Lane::UpState) > before + 2;
    until("more state", more).await;
    edge.stop().await.unwrap();
    let dir = place.site.edge_dir();
    let at = frame_of(&dir, Lane::UpState, 1) + 60;
    flip(&dir, at);

    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    all_arrives(&place).await;
    place
        .edge_says(&["the other end never had these records", "up.state"])
        .await;
    edge.stop().await.unwrap();
    all_arrives(&place).await;
    cloud.daemon.stop().await.unwrap();
    assert_whole(&place.site.cloud_dir());
    // With the right bit back, both fold to the same.
    flip(&dir, at);
    let (edge, cloud) = (state_of(&dir), state_of(&place.site.cloud_dir()));
    assert!(!edge.is_empty());
    assert_eq!(edge, cloud);
}

fn frames_of(dir: &Path, lane: Lane) -> usize {
    let view = LogView::open(Arc::new(DiskStorage), &dir.join("log")).unwrap();
    let streams = view.streams();
    let Some(stream) = streams
        .iter()
        .find(|stream| stream.key.id.lane == lane && stream.key.id.scope == node())
    else {
        return 0;
    };
    let mut reader = view.read_stream(&stream.key, Seq::ZERO);
    std::iter::from_fn(|| reader.next().unwrap()).count()
}

/// Waits until the cloud's copies of the node's streams end where the edge's do.
pub(crate) async fn all_arrives(place: &Place) {
    let ends = |dir: &Path| -> Vec<_> {
        let Ok(view) = LogView::open(Arc::new(DiskStorage), &dir.join("log")) else {
            return Vec::new(); // Not there yet.
        };
        let streams = view.streams().into_iter();
        let up = streams.filter(|stream| matches!(stream.key.id.lane, Lane::UpState | Lane::UpData));
        up.map(|stream| (stream.key, stream.durable)).collect()
    };
    let (edge, cloud) = (place.site.edge_dir(), place.site.cloud_dir());
    until("everything to arrive", || ends(&edge) == ends(&cloud)).await;
}

/// What a log folds to, as a hash.
pub(crate) fn hash(dir: &Path) -> String {
    let view = LogView::open(Arc::new(DiskStorage), &dir.join("log")).unwrap();
    let mut state = State::new();
    fold_all(&view, &mut state).unwrap();
    hex::encode(state.hash(&node()))
}

/// What a log folds to for the node, of its lane `up.state`.
fn state_of(dir: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let view = LogView::open(Arc::new(DiskStorage), &dir.join("log")).unwrap();
    let mut state = State::new();
    fold_all(&view, &mut state).unwrap();
    let mut entries = Vec::new();
    for table in Table::ALL
        .into_iter()
        .filter(|table| table.lane() == Lane::UpState)
    {
        let mut take = |key: &[u8], value: &[u8]| entries.push((key.to_vec(), value.to_vec()));
        Read::scan(&state, &table.store_key(&node(), b""), &mut take).unwrap();
    }
    entries
}
