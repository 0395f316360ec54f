use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::respond::Body;
use super::*;
use crate::memory::MemoryStore;
use crate::object::{Object, ObjectKey, Version};
use crate::objects::Limits;
use crate::resource::GroupResource;
use crate::store::{Change, Event, Page, Resume, Selection};

struct Still;

impl Environment for Still {
    fn now_us(&self) -> i64 {
        0
    }

    fn uid(&self) -> String {
        "uid".to_owned()
    }

    fn timer(&self, _: u64) -> BoxFuture<'static, ()> {
        futures::future::pending().boxed()
    }

    fn name_suffix(&self) -> String {
        "abcde".to_owned()
    }
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.insert(crate::resource::tests::widgets());
    registry
}

fn request(method: Method, path: &str, query: &str, body: &Value) -> Request {
    Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: Vec::new(),
        body: body.to_string().into(),
        user: User::default(),
    }
}

async fn answer(api: &Api, request: Request) -> (u16, Value) {
    let response = api.serve(request).await;
    match response.body {
        Body::Whole(bytes) => (response.status, serde_json::from_slice(&bytes).unwrap()),
        Body::Stream(_) => (response.status, Value::Null),
    }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // Work that only gives way goes on at once.
    for _ in 0..100 {
        if let std::task::Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
    }
    panic!("it waits for something");
}

struct Mistaken;

#[async_trait]
impl Extension for Mistaken {
    async fn call(&self, _: &Request, _: &ResourcePath) -> Option<Response> {
        None
    }

    async fn admit(&self, _: &Write<'_>, _: &mut Value) -> Result<(), ApiError> {
        panic!("a mistake, made for a test");
    }
}

#[test]
fn a_panic_costs_one_request() {
    let store = Arc::new(MemoryStore::new(registry(), Limits::default()));
    let api = Api::new(store, Arc::new(Still), Arc::new(AllowAll), Arc::new(Mistaken));
    let path = "/apis/example.com/v1/namespaces/a/widgets";
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
    let (status, told) = now(answer(&api, request(Method::Post, path, "", &widget)));
    assert_eq!((status, &told["reason"]), (500, &json!("InternalError")));
    let (status, _) = now(answer(&api, request(Method::Get, path, "", &Value::Null)));
    assert_eq!(status, 200);
}

/// Counts how many objects it was asked for.
struct Counting {
    store: MemoryStore,
    lists: std::sync::Mutex<Vec<Option<usize>>>,
}

#[async_trait]
impl Store for Counting {
    fn registry(&self) -> Arc<Registry> {
        self.store.registry()
    }

    fn version(&self) -> Version {
        self.store.version()
    }

    async fn get(&self, key: &ObjectKey) -> Result<Object, ApiError> {
        self.store.get(key).await
    }

    async fn list(
        &self,
        selection: &Selection,
        limit: Option<usize>,
        resume: Option<&Resume>,
    ) -> Result<Page, ApiError> {
        self.lists.lock().unwrap().push(limit);
        self.store.list(selection, limit, resume).await
    }

    async fn commit(&self, change: Change) -> Result<Object, ApiError> {
        self.store.commit(change).await
    }

    fn watch(
        &self,
        selection: &Selection,
        from: Version,
    ) -> Result<futures::stream::BoxStream<'static, Result<Event, ApiError>>, ApiError> {
        self.store.watch(selection, from)
    }
}

#[test]
fn a_small_part_of_a_list_that_little_gets_into_takes_few_looks() {
    let store = Arc::new(Counting {
        store: MemoryStore::new(registry(), Limits::default()),
        lists: std::sync::Mutex::default(),
    });
    for n in 0..5000 {
        let key = ObjectKey {
            resource: GroupResource {
                group: "example.com".to_owned(),
                resource: "widgets".to_owned(),
            },
            namespace: "a".to_owned(),
            name: format!("w{n:05}"),
        };
        let chosen = if n % 1000 == 999 { "yes" } else { "no" };
        let value = json!({"metadata": {"name": key.name, "labels": {"chosen": chosen}}});
        now(store.commit(Change::Create { key, value })).unwrap();
    }
    let api = Api::new(
        store.clone(),
        Arc::new(Still),
        Arc::new(AllowAll),
        Arc::new(NoExtension),
    );
    let path = "/apis/example.com/v1/widgets";
    let mut names = Vec::new();
    let mut query = "limit=2&labelSelector=chosen%3Dyes".to_owned();
    loop {
        let (status, list) = now(answer(&api, request(Method::Get, path, &query, &Value::Null)));
        assert_eq!(status, 200, "{list}");
        for item in list["items"].as_array().unwrap() {
            names.push(item["metadata"]["name"].as_str().unwrap().to_owned());
        }
        let Some(token) = list["metadata"]["continue"].as_str() else {
            break;
        };
        query = format!("limit=2&labelSelector=chosen%3Dyes&continue={token}");
    }
    assert_eq!(names, ["w00999", "w01999", "w02999", "w03999", "w04999"]);
    let looks = store.lists.lock().unwrap().clone();
    assert!(looks.len() < 12, "{looks:?}");
    assert!(looks.iter().all(|limit| limit.is_some_and(|limit| limit >= 512)));
}
