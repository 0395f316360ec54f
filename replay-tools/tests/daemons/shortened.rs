//! Logs that end earlier than they did: the disk said that something was durable, and lost it.

use std::fs;
use std::path::{Path, PathBuf};

use ledge::quickstart::probe;
use ledge::quickstart::site::address;
use serde_json::Value;

use crate::bounded::sql;
use crate::damaged_log::{all_arrives, first_segment, hash};
use crate::fencing::{ledge, until_told, up};
use crate::support::place::{NOWHERE, Place, assert_whole, refuses, until};

const UNIT: usize = 4096;
/// Records after which the last blocks are telemetry, and not what the session began with.
const ENOUGH: u64 = 80;

/// Where the blocks of a segment start.
fn blocks(segment: &[u8]) -> Vec<usize> {
    (0..segment.len())
        .step_by(UNIT)
        .filter(|at| segment[*at..].starts_with(b"LBK1"))
        .collect()
}

/// Takes the last `count` blocks from the log in `dir`.
fn cut(dir: &Path, count: usize) {
    let path = first_segment(dir);
    let mut bytes = fs::read(&path).unwrap();
    let found = blocks(&bytes);
    let from = found[found.len() - count];
    bytes[from..].fill(0);
    fs::write(&path, &bytes).unwrap();
}

fn superblocks(dir: &Path) -> [PathBuf; 2] {
    ["super-a", "super-b"].map(|name| dir.join("log").join(name))
}

/// Events of the node as the cloud has them, by reason.
fn events(place: &Place, reason: &str) -> Vec<Value> {
    let query = format!("SELECT * FROM events WHERE reason = '{reason}'");
    sql(place, &place.site.cloud_dir(), &query)
}

/// What the edge has written since, the cloud has; what it lost, it is told to have lost.
async fn goes_on_under_a_new_epoch(place: &Place, hub: std::net::SocketAddr, http: std::net::SocketAddr) {
    // Before that it might be a second disk.
    until_told(place, http, "the end of the link", |node| {
        node["link"]["connected"] == false
    })
    .await;
    let edge = place.start_edge(hub).await;
    let told = until_told(place, http, "the shorter log", |node| {
        up(node) && node["disk"]["epoch"].as_u64() > Some(1)
    })
    .await;
    assert_eq!(told["disk"]["quarantine"], Value::Null, "{told:#}");
    edge.stop().await.unwrap();
    all_arrives(place).await;
}

/// The disk lost the end, and the superblock knows that it was there.
#[tokio::test]
async fn a_shorter_log_goes_on_and_says_what_it_lost() {
    let place = Place::new().await;
    let running = place.start_everything().await;
    place.cloud_holds(ENOUGH).await;
    running.edge.stop().await.unwrap();
    place.cloud_catches_up().await;
    let dir = place.site.edge_dir();
    cut(&dir, 5);

    // Alone first, and killed before it could say anything: the witness of the loss is gone by then.
    let edge = place.start_edge(NOWHERE).await;
    place
        .edge_says(&["the disk lost these blocks", "new epoch"])
        .await;
    let http = address(&edge, "health on ").unwrap();
    let metrics = probe::http_get(http, "/metrics").await.unwrap();
    assert!(
        probe::metric(&metrics, "ledge_log_lost_blocks", &[]) > 4.5,
        "{metrics}"
    );
    edge.kill().await.unwrap();
    goes_on_under_a_new_epoch(&place, running.cloud.hub, running.cloud.http).await;
    running.cloud.daemon.stop().await.unwrap();
    assert_eq!(events(&place, "DiskLostBlocks").len(), 1, "{}", place.edge_said());
    assert_eq!(hash(&dir), hash(&place.site.cloud_dir()));
    place.assert_sound();
}

/// The disk lost the end and the superblocks that knew of it: nothing but the cloud can tell.
#[tokio::test]
async fn a_shorter_log_that_nothing_on_the_disk_tells_of_is_noticed_by_the_cloud() {
    let place = Place::new().await;
    let running = place.start_everything().await;
    let dir = place.site.edge_dir();
    let old = superblocks(&dir).map(|path| fs::read(path).ok());
    place.cloud_holds(ENOUGH).await;
    running.edge.kill().await.unwrap();
    place.cloud_catches_up().await;
    cut(&dir, 6);
    for (path, bytes) in superblocks(&dir).into_iter().zip(old) {
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => drop(fs::remove_file(path)),
        }
    }
    goes_on_under_a_new_epoch(&place, running.cloud.hub, running.cloud.http).await;
    running.cloud.daemon.stop().await.unwrap();
    assert!(!place.edge_said().contains("the disk lost these blocks"));
    place.edge_says(&["older state", "new epoch"]).await;
    assert!(!events(&place, "HistoryLost").is_empty());
    assert_eq!(hash(&dir), hash(&place.site.cloud_dir()));
    place.assert_sound();
}

/// A cloud is put back on purpose, or not at all: it does not guess.
#[tokio::test]
async fn a_cloud_whose_log_is_shorter_does_not_start() {
    let place = Place::new().await;
    let running = place.start_everything().await;
    running.edge.stop().await.unwrap();
    running.cloud.daemon.stop().await.unwrap();
    let dir = place.site.cloud_dir();
    let whole = fs::read(first_segment(&dir)).unwrap();
    cut(&dir, 3);
    let words = ["was durable", "the disk lost data", dir.to_str().unwrap()];
    refuses(&place.cloud(), 1, &words).await;
    fs::write(first_segment(&dir), whole).unwrap();
    place.start_cloud().await.daemon.stop().await.unwrap();
    place.assert_sound();
}

async fn verify(place: &Place, dir: &Path, repair: bool) -> (i32, Value) {
    let mut args = vec!["log", "verify", dir.to_str().unwrap(), "-o", "json"];
    args.extend(repair.then_some("--repair"));
    let (code, said) = ledge(place, None, &args).await;
    (code, serde_json::from_str(&said).unwrap_or(Value::String(said)))
}

/// What was being written when the power went is removed, and nothing else.
#[tokio::test]
async fn repair_removes_a_torn_end_and_nothing_else() {
    let place = Place::new().await;
    let running = place.start_everything().await;
    running.edge.kill().await.unwrap();
    running.cloud.daemon.stop().await.unwrap();
    let dir = place.site.edge_dir();
    let path = first_segment(&dir);
    let before = fs::read(&path).unwrap();
    let last = *blocks(&before).last().unwrap();
    let next = (last / UNIT + 1..)
        .map(|unit| unit * UNIT)
        .find(|at| before[*at..*at + UNIT].iter().all(|byte| *byte == 0))
        .unwrap();
    // The beginning of a block of which no more was written.
    let mut torn = before.clone();
    torn.copy_within(last..last + 256, next);
    let number = u64::from_le_bytes(before[last + 16..last + 24].try_into().unwrap()) + 1;
    torn[next + 16..next + 24].copy_from_slice(&number.to_le_bytes());
    fs::write(&path, &torn).unwrap();

    let (code, found) = verify(&place, &dir, false).await;
    assert_eq!(code, 3, "{found:#}");
    let (code, repaired) = verify(&place, &dir, true).await;
    assert_eq!((code, &repaired["repaired"]["touched"]), (0, &Value::Bool(true)));
    assert!(
        fs::read(&path).unwrap()[..next] == before[..next],
        "more was changed"
    );
    assert_whole(&dir);
    let (code, again) = verify(&place, &dir, true).await;
    assert_eq!((code, &again["repaired"]["touched"]), (0, &Value::Bool(false)));

    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    until_told(&place, cloud.http, "the link", up).await;
    edge.stop().await.unwrap();
    all_arrives(&place).await;
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
    assert_eq!(hash(&dir), hash(&place.site.cloud_dir()));
}

/// What rotted is quarantined, never cut off, and comes back from the cloud once the daemon runs again.
#[tokio::test]
async fn repair_quarantines_what_rotted_and_the_cloud_gives_it_back() {
    let place = Place::new().await;
    let running = place.start_everything().await;
    place.cloud_holds(ENOUGH).await;
    running.edge.stop().await.unwrap();
    place.cloud_catches_up().await;
    running.cloud.daemon.stop().await.unwrap();
    let dir = place.site.edge_dir();
    let path = first_segment(&dir);
    let before = fs::read(&path).unwrap();
    // A bit in one block, and two as a whole, long before the end.
    let found = blocks(&before);
    let at = found.len() / 2;
    let mut damaged = before.clone();
    damaged[found[at] + 120] ^= 1;
    damaged[found[at + 3]..found[at + 5]].fill(0);
    fs::write(&path, &damaged).unwrap();

    let (code, report) = verify(&place, &dir, false).await;
    assert_eq!(code, 4, "{report:#}");
    let (code, repaired) = verify(&place, &dir, true).await;
    assert_eq!(code, 4, "{repaired:#}");
    assert!(
        fs::read(&path).unwrap() == damaged,
        "damage was not left as it is"
    );
    let copies = fs::read_dir(dir.join("log/quarantine")).unwrap().count();
    assert!(copies >= 2, "{copies} copies");

    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    until("what rotted to come back", || {
        let now = fs::read(&path).unwrap();
        now[..found[at + 5]] == before[..found[at + 5]]
    })
    .await;
    until_told(&place, cloud.http, "the link", up).await;
    edge.stop().await.unwrap();
    all_arrives(&place).await;
    cloud.daemon.stop().await.unwrap();
    assert_eq!(verify(&place, &dir, false).await.0, 0);
    assert_eq!(hash(&dir), hash(&place.site.cloud_dir()));
}
