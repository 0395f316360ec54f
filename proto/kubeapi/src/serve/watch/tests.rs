use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use serde_json::{Value, json};

use super::*;
use crate::memory::MemoryStore;
use crate::object::ObjectKey;
use crate::objects::Limits;
use crate::resource::{GroupResource, Registry};
use crate::serve::request::{Method, Request, User};
use crate::serve::{AllowAll, Api, NoExtension};
use crate::store::{Change, Store};

/// A clock that is moved by hand.
#[derive(Default)]
struct Timers(Mutex<Vec<(u64, oneshot::Sender<()>)>>);

impl Timers {
    /// Ends the timers that were set to so many milliseconds.
    fn fire(&self, ms: u64) {
        let mut timers = self.0.lock().unwrap();
        let (due, others) = std::mem::take(&mut *timers)
            .into_iter()
            .partition(|(after_ms, _)| *after_ms == ms);
        *timers = others;
        let due: Vec<_> = due;
        assert!(!due.is_empty(), "no timer of {ms} ms");
        for (_, timer) in due {
            timer.send(()).ok();
        }
    }
}

struct Clock(Arc<Timers>);

impl crate::Environment for Clock {
    fn now_us(&self) -> i64 {
        0
    }

    fn uid(&self) -> String {
        "uid".to_owned()
    }

    fn timer(&self, after_ms: u64) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        self.0.0.lock().unwrap().push((after_ms, sender));
        receiver.map(|_| ()).boxed()
    }

    fn name_suffix(&self) -> String {
        "abcde".to_owned()
    }
}

struct Place {
    api: Api,
    store: Arc<MemoryStore>,
    timers: Arc<Timers>,
}

impl Place {
    fn new() -> Place {
        let mut registry = Registry::default();
        registry.insert(crate::resource::tests::widgets());
        let store = Arc::new(MemoryStore::new(registry, Limits::default()));
        let timers = Arc::new(Timers::default());
        let env = Arc::new(Clock(Arc::clone(&timers)));
        Place {
            api: Api::new(store.clone(), env, Arc::new(AllowAll), Arc::new(NoExtension)),
            store,
            timers,
        }
    }

    fn create(&self, resource: &str, name: &str) {
        let key = ObjectKey {
            resource: GroupResource {
                group: "example.com".to_owned(),
                resource: resource.to_owned(),
            },
            namespace: "a".to_owned(),
            name: name.to_owned(),
        };
        let value = json!({"metadata": {"name": name}});
        let created = self.store.commit(Change::Create { key, value });
        created.now_or_never().unwrap().unwrap();
    }

    fn watch(&self, query: &str) -> BoxStream<'static, Bytes> {
        let request = Request {
            method: Method::Get,
            path: "/apis/example.com/v1/namespaces/a/widgets".to_owned(),
            query: format!("watch=1&{query}"),
            headers: Vec::new(),
            body: Bytes::new(),
            user: User::default(),
        };
        let response = self.api.serve(request).now_or_never().unwrap();
        match response.body {
            Body::Stream(lines) => lines,
            Body::Whole(bytes) => panic!("{}", String::from_utf8_lossy(&bytes)),
        }
    }
}

/// What has come, in short.
fn seen(lines: &mut BoxStream<'static, Bytes>) -> Vec<String> {
    let mut out = Vec::new();
    while let Some(line) = lines.next().now_or_never() {
        let Some(line) = line else {
            out.push("end".to_owned());
            break;
        };
        let line: Value = serde_json::from_slice(&line).unwrap();
        let metadata = &line["object"]["metadata"];
        let version = metadata["resourceVersion"].as_str().unwrap();
        let mark = if metadata["annotations"]["k8s.io/initial-events-end"] == "true" {
            " initial"
        } else {
            ""
        };
        out.push(format!("{} {version}{mark}", line["type"].as_str().unwrap()));
    }
    out
}

#[test]
fn a_bookmark_tells_how_far_the_watch_is() {
    let place = Place::new();
    place.create("widgets", "one");
    let mut lines = place.watch("allowWatchBookmarks=true&resourceVersion=1");
    assert_eq!(seen(&mut lines), Vec::<String>::new());
    place.timers.fire(60_000);
    assert_eq!(seen(&mut lines), ["BOOKMARK 1"]);
    // What others do moves it too; what the watch is about comes before it.
    place.create("gadgets", "other");
    place.create("widgets", "two");
    place.create("gadgets", "another");
    place.timers.fire(60_000);
    assert_eq!(seen(&mut lines), ["ADDED 3", "BOOKMARK 4"]);
    place.timers.fire(60_000);
    assert_eq!(seen(&mut lines), ["BOOKMARK 4"]);
    place.timers.fire(45 * 60_000);
    assert_eq!(seen(&mut lines), ["end"]);
}

/// The changes that the store has told before the bookmark's version are in front of the bookmark, whatever the order in
/// which the watch hears of them.
#[test]
fn no_change_is_behind_the_bookmark_that_covers_it() {
    let place = Place::new();
    let mut watch = {
        let selection = crate::store::Selection {
            resource: crate::resource::tests::widgets().group_resource(),
            namespace: None,
        };
        let resource = Arc::new(crate::resource::tests::widgets());
        let options = Options::parse("watch=1&allowWatchBookmarks=true").unwrap();
        Watch {
            registry: place.store.registry(),
            filter: Filter::parse(&options, &resource).unwrap(),
            resource,
            format: Format::Object,
            options,
            env: Arc::new(Clock(Arc::clone(&place.timers))),
            store: place.store.clone(),
            events: place.store.watch(&selection, Version(0)).unwrap(),
            ready: VecDeque::new(),
            over: futures::future::pending().boxed().shared(),
            bookmark: futures::future::pending().boxed().shared(),
            told_columns: false,
            ended: false,
        }
    };
    place.create("widgets", "one");
    place.create("widgets", "two");
    watch.take_bookmark();
    let mut lines = stream::iter(watch.ready).boxed();
    assert_eq!(seen(&mut lines), ["ADDED 1", "ADDED 2", "BOOKMARK 2", "end"]);
}

#[test]
fn bookmarks_are_for_those_who_ask() {
    let place = Place::new();
    let mut lines = place.watch("resourceVersion=0&timeoutSeconds=7");
    place.timers.fire(60_000);
    assert_eq!(seen(&mut lines), Vec::<String>::new());
    place.timers.fire(60_000);
    place.timers.fire(7_000);
    assert_eq!(seen(&mut lines), ["end"]);
}

#[test]
fn the_end_of_what_is_there_is_marked() {
    let place = Place::new();
    place.create("widgets", "one");
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = place.watch(initial);
    assert_eq!(seen(&mut lines), ["ADDED 1", "BOOKMARK 1 initial"]);
}

#[test]
fn no_watch_lasts_longer_than_a_day() {
    let place = Place::new();
    let mut lines = place.watch(&format!("timeoutSeconds={}", u64::MAX));
    place.timers.fire(24 * 60 * 60 * 1000);
    assert_eq!(seen(&mut lines), ["end"]);
}
