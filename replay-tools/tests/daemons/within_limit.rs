//! The disk limit is for everything in the data directory: what grows beside the log takes room from the log, while
//! edgecore runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ledge::quickstart::probe;
use ledge::quickstart::site::{NODE, address};
use ledge_proto::ids::{Lane, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

use super::bounded::{MIB, open_log, set_disk, sql, telemetry, used};
use super::full_disk::noise;
use crate::support::place::{NOWHERE, Place, SEGMENT, node};

/// Watches what a directory takes, from a thread of its own.
pub(crate) struct Watched {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watched {
    pub(crate) fn start(dir: PathBuf) -> Watched {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !told.load(Ordering::Relaxed) {
                let mut now = used(&dir);
                // A file that is renamed while its directory is read is seen twice.
                for _ in 0..2 {
                    if now > most {
                        now = now.min(used(&dir));
                    }
                }
                most = most.max(now);
                #[allow(clippy::disallowed_methods, reason = "nothing tells of files that grow")]
                std::thread::sleep(Duration::from_millis(10));
            }
            most
        });
        Watched { stop, thread }
    }

    /// The most that was there at any time.
    pub(crate) fn most(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Gives the node state of so many properties, each of another 64 KiB, that its log is the only place for.
fn large_state(place: &Place, properties: usize) {
    const VALUE: usize = 64 << 10;
    let dir = place.site.edge_dir();
    let log = open_log(place, (NODE, &dir));
    let up_state = StreamId::new(node(), Lane::UpState);
    let values = noise(properties * VALUE);
    let (boot, mut mono_us) = (log.identity().boot, 0);
    for (n, value) in values.as_bytes().chunks(VALUE).enumerate() {
        let value = v1::value::Value::String(String::from_utf8(value.to_vec()).unwrap());
        let reported = v1::TwinReported {
            value: Some(v1::Value { value: Some(value) }),
        };
        let (kind, payload) = Payload::TwinReported(reported).encode();
        mono_us += 1_000_000;
        let record = v1::Record {
            kind,
            key: format!("default/tank-{n}/level"),
            wall_us: 1_790_000_000_000_000,
            boot,
            mono_us,
            payload: payload.into(),
            ..Default::default()
        };
        log.append_blocking(&up_state, vec![record]).unwrap();
    }
    log.close().unwrap();
}

async fn disk(http: SocketAddr, field: &str) -> u64 {
    let told = probe::http_json(http, "/v1/log").await.unwrap();
    told["disk"][field].as_u64().unwrap()
}

async fn until_log_limit(place: &Place, http: SocketAddr, what: &str, yes: impl Fn(u64) -> bool) -> u64 {
    let began = Instant::now();
    loop {
        let limit = disk(http, "logLimitBytes").await;
        if yes(limit) && disk(http, "logUsedBytes").await <= limit {
            return limit;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited for {what}: {limit}\n{}",
            place.edge_said()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Copies of damaged blocks, so many of 2 MiB.
pub(crate) async fn copies(dir: &Path, count: u64) {
    fs::create_dir_all(dir).unwrap();
    for n in 0..count {
        fs::write(dir.join(format!("seg-{n:016x}-00001000.blk")), vec![7; 2 << 20]).unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn what_grows_beside_the_log_takes_room_from_it() {
    let place = Place::new().await;
    let edge_dir = place.site.edge_dir();
    std::thread::scope(|scope| scope.spawn(|| large_state(&place, 120)).join().unwrap());
    telemetry(&place, (NODE, &edge_dir), 9 * SEGMENT, 1_800_000_000_000_000);
    let limit = 160 * MIB;
    let launch = place.site.edgecore(NOWHERE).unwrap();
    set_disk(&place.path("edgecore.yaml"), &format!("limit: {limit}"));
    let watched = Watched::start(edge_dir.clone());
    let edge = launch.start().await.unwrap();
    let http = address(&edge, "health on ").unwrap();

    // The projection: twice what is there now, for it is merged, and its journal.
    let beside_state = until_log_limit(&place, http, "room for the projection", |log| log < 80 * MIB).await;
    assert!(beside_state > 50 * MIB, "{beside_state}");
    let metrics = probe::http_get(http, "/metrics").await.unwrap();
    let metric = |name| probe::metric(&metrics, name, &[]);
    assert!(metric("ledge_disk_short_bytes") < 1.0, "{metrics}");

    // Copies of damaged blocks.
    let quarantine = edge_dir.join("log/quarantine");
    copies(&quarantine, 10).await;
    let beside_copies = until_log_limit(&place, http, "room for copies", |log| {
        log + 16 * MIB < beside_state
    })
    .await;
    fs::remove_dir_all(&quarantine).unwrap();
    until_log_limit(&place, http, "the room of the copies", |log| {
        log >= beside_copies + 16 * MIB
    })
    .await;

    // More than there is room for beside what the log needs: told, and everything goes on.
    copies(&quarantine, 40).await;
    place
        .edge_says(&["the disk limit cannot be kept", "is too small by"])
        .await;
    let ready = probe::http_get(http, "/readyz").await.unwrap();
    assert!(ready.starts_with("ok\n[!]disk: the limit of"), "{ready}");
    let metrics = probe::http_get(http, "/metrics").await.unwrap();
    assert!(
        probe::metric(&metrics, "ledge_disk_short_bytes", &[]) > 1.0,
        "{metrics}"
    );
    fs::remove_dir_all(&quarantine).unwrap();
    place.edge_says(&["the disk limit can be kept again"]).await;
    assert_eq!(probe::http_get(http, "/readyz").await.unwrap(), "ok\n");

    let most = watched.most();
    assert!(most <= limit, "{most} of {limit}\n{}", place.edge_said());
    edge.stop().await.unwrap();
    place.assert_sound();
    let gaps = sql(&place, &edge_dir, "SELECT DISTINCT reason, told_by FROM gaps");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["reason"], "DiskLimit");
    // State never goes.
    let state = sql(
        &place,
        &edge_dir,
        "SELECT count(*) AS n FROM twins WHERE device LIKE '%tank-%'",
    );
    assert_eq!(state[0]["n"], 120, "{state:?}");
}
