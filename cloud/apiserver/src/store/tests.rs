//! Watches from any version the log holds.

use std::path::Path;

use futures::StreamExt;
use ledge_kubeapi::store::EventKind;
use ledge_kubeapi::{builtin, selector};
use ledge_log::{Options, SimDisk, Storage};
use ledge_projection::Follower;
use ledge_proto::ids::ClusterId;
use ledge_proto::v1::snapshot::Purpose;
use serde_json::json;

use super::*;

fn maps() -> Selection {
    Selection {
        resource: GroupResource {
            group: String::new(),
            resource: "configmaps".to_owned(),
        },
        namespace: Some("a".to_owned()),
    }
}

struct Place {
    dir: tempfile::TempDir,
    disk: SimDisk,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
            disk: SimDisk::new(),
        }
    }

    /// A store that keeps `window_bytes` of changes in memory.
    fn open(&self, window_bytes: usize) -> LogStore {
        let storage: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let mut options = Options::new(ClusterId([7; 16]), "cloud".to_owned());
        options.segment_bytes = ledge_log::SEGMENT_MIN_BYTES;
        let (log, _) = Log::open(storage, Path::new("/log"), options).unwrap();
        let cloud = ledge_projection::Options::cloud();
        let (projection, _) = Projection::open(&self.dir.path().join("projection"), &log, &cloud).unwrap();
        Follower::catch_up(&log, &projection, || false).unwrap();
        let limits = Limits {
            window_bytes,
            watcher_backlog: 10_000,
        };
        let registry = |_: &[Object]| {
            let mut registry = Registry::default();
            builtin::resources()
                .into_iter()
                .for_each(|resource| registry.insert(resource));
            registry
        };
        LogStore::load(log, &projection, limits, Box::new(registry)).unwrap()
    }
}

/// Makes, changes and removes objects here and there; which, `seed` decides.
async fn churn(store: &LogStore, changes: u64, mut seed: u64) {
    for n in 0..changes {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pick = seed >> 33;
        let key = ObjectKey {
            resource: maps().resource,
            namespace: if pick.is_multiple_of(2) { "a" } else { "b" }.to_owned(),
            name: format!("m{}", pick / 2 % 5),
        };
        let color = if (pick / 10).is_multiple_of(2) {
            "red"
        } else {
            "blue"
        };
        let labels = json!({ "color": color });
        let value = json!({"metadata": {"name": key.name, "namespace": key.namespace, "labels": labels}, "data": {"n": n}});
        let change = match store.get(&key).await {
            Err(_) => Change::Create { key, value },
            Ok(old) if (pick / 20).is_multiple_of(3) => Change::Delete {
                key,
                expected: old.version(),
            },
            Ok(old) => Change::Update {
                key,
                expected: old.version(),
                value,
            },
        };
        store.commit(change).await.unwrap();
    }
}

/// What a watch says of a change: with `previous`, as a selector of labels sees it.
fn told(event: &Event) -> String {
    let red = selector::LabelSelector::parse("color=red").unwrap();
    let before = event.previous.as_ref();
    format!(
        "{:?} {} red before {:?} now {}: {}",
        event.kind,
        event.object.key().name,
        before.map(|object| (object.key().name.clone(), red.matches(object.labels()))),
        red.matches(event.object.labels()),
        String::from_utf8_lossy(event.object.json()),
    )
}

async fn some(store: &LogStore, from: Version, count: usize) -> Vec<String> {
    let watch = store.watch(&maps(), from).unwrap();
    let events = watch.take(count).map(|event| told(&event.unwrap()));
    events.collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_tells_what_a_watch_that_was_there_told() {
    let place = Place::new();
    let all = {
        let store = place.open(usize::MAX);
        let watch = store.watch(&maps(), Version(0)).unwrap();
        churn(&store, 300, 11).await;
        let end = store.version();
        let mut all = Vec::new();
        let mut watch = watch;
        while all.last().is_none_or(|(version, _)| *version < end) {
            let Some(Some(event)) = futures::FutureExt::now_or_never(watch.next()) else {
                break;
            };
            let event = event.unwrap();
            all.push((event.version(), told(&event)));
        }
        store.shared.log.clone().close().unwrap();
        all
    };
    assert!(all.len() > 100, "{}", all.len());
    // Memory holds nothing of the past after a restart, and next to nothing later.
    let store = place.open(2000);
    for from in [0, 1, 17, 150, 299, 300] {
        let expected: Vec<String> = all
            .iter()
            .filter(|(version, _)| version.0 > from)
            .map(|(_, told)| told.clone())
            .collect();
        let found = some(&store, Version(from), expected.len()).await;
        assert_eq!(found, expected, "from {from}");
    }
    // A replay goes on with what happens while it reads, and after.
    let watch = store.watch(&maps(), Version(0)).unwrap();
    churn(&store, 100, 12).await;
    let key = ObjectKey {
        resource: maps().resource,
        namespace: "a".to_owned(),
        name: "last".to_owned(),
    };
    let value = json!({"metadata": {"name": "last", "namespace": "a"}});
    store.commit(Change::Create { key, value }).await.unwrap();
    let events: Vec<Event> = watch
        .map(Result::unwrap)
        .take_while(|event| std::future::ready(event.object.key().name != "last"))
        .collect()
        .await;
    let versions: Vec<u64> = events.iter().map(|event| event.version().0).collect();
    assert!(versions.is_sorted() && events.len() > all.len());
    assert_eq!(events[0].kind, EventKind::Added);
    let now = some(&store, Version(300), 1).await;
    assert_eq!(now.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_gave_up_is_expired() {
    let place = Place::new();
    let store = place.open(2000);
    churn(&store, 600, 13).await;
    let log = &store.shared.log;
    let waiting = store.watch(&maps(), Version(0)).unwrap();
    let until = log.durable_block();
    let mut gone = 0;
    while let Some(oldest) = log
        .oldest_segment()
        .unwrap()
        .filter(|oldest| oldest.last_block < until)
    {
        for (key, _, mark) in oldest.streams {
            let base = v1::Snapshot {
                scope: key.id.scope.as_wire().to_owned(),
                lane: key.id.lane.as_wire(),
                incarnation: key.incarnation.0.to_vec(),
                epoch: mark.position.epoch.0,
                seq: mark.position.seq.0,
                chain: mark.chain.0.to_vec(),
                parts: 1,
                purpose: Purpose::Base.into(),
                entries: vec![0; 8].into(),
                raw_len: 8,
                ..Default::default()
            };
            log.append_snapshot_blocking(vec![base]).unwrap();
            gone = mark.position.seq.0;
        }
        log.recycle_before(oldest.last_block.next()).unwrap();
    }
    assert!(gone > 1, "{gone}");
    let error = store.watch(&maps(), Version(1)).map(drop).unwrap_err();
    assert_eq!(error.reason, Reason::Expired, "{error}");
    assert!(
        error.message.starts_with("too old resource version: 1 ("),
        "{error}"
    );
    // One that began before, and had not read it yet, is told the same.
    let last = waiting.map(Result::err).collect::<Vec<_>>().await;
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].as_ref().map(|error| error.reason), Some(Reason::Expired));
    assert!(store.watch(&maps(), Version(gone)).is_ok());
}
