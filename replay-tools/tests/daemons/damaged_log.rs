//! Logs that are not what was written. A daemon that needs what is damaged, because it has not folded it yet, refuses to
//! run and says how to look closer; one that does not says so, goes on with the rest and asks the other end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledge::quickstart::daemons::Launch;
use ledge::quickstart::site::NODE;
use ledge_log::{DiskStorage, Log, Options};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

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
    assert_eq!(
        place.edge_records() - u64::from(APPENDS),
        3,
        "Started, NodeState, Stopped"
    );
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

/// What is folded already is not read again at the start: the link meets the damage.
#[tokio::test]
async fn a_flipped_bit_that_only_the_link_meets() {
    let place = Place::new().await;
    let (dir, _) = filled_edge(&place).await;
    place.start_edge(NOWHERE).await.stop().await.unwrap();
    let first = first_segment(&dir);
    let before = fs::read(&first).unwrap();
    let mut damaged = before.clone();
    let at = middle_block(&damaged) + 100;
    damaged[at] ^= 1;
    fs::write(&first, &damaged).unwrap();

    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    place
        .edge_says(&[
            "no link",
            first.to_str().unwrap(),
            "is damaged at byte",
            "ledge log verify",
        ])
        .await;
    let had = place.cloud_records();
    assert!(had < u64::from(APPENDS), "{had} records came past the damage");
    edge.stop().await.unwrap();
    assert!(fs::read(&first).unwrap() == damaged, "the file was changed");

    // With the right bytes back, the rest follows.
    fs::write(&first, &before).unwrap();
    let edge = place.start_edge(cloud.hub).await;
    until("the rest", || place.cloud_records() > u64::from(APPENDS)).await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}
