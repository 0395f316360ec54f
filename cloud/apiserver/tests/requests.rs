//! Requests of all shapes to the whole API (in memory): each is answered with a status or an object, and none makes it panic.
//! What is sent are requests that make sense, with some of their parts replaced. The numbers are drawn from a fixed seed:
//! a failure repeats. `LEDGE_REQUESTS` and `LEDGE_SEED` choose others.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::sync::Arc;

use futures::StreamExt;
use ledge_apiserver::access::Access;
use ledge_apiserver::accounts::Accounts;
use ledge_apiserver::admission::Admission;
use ledge_apiserver::bootstrap;
use ledge_apiserver::environment::SystemEnvironment;
use ledge_apiserver::reviews::Reviews;
use ledge_apiserver::tokens::Tokens;
use ledge_kubeapi::memory::MemoryStore;
use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::serve::Api;
use ledge_kubeapi::serve::request::{Method, Request, User};
use ledge_kubeapi::serve::respond::Body;
use ledge_kubeapi::{Registry, Store, builtin, crd};
use serde_json::{Value, json};

#[path = "requests/samples.rs"]
mod samples;

use samples::{definition, objects, others};

/// As many as take a few seconds without optimization.
const REQUESTS: u64 = 3000;
/// A store is thrown away after so many.
const REQUESTS_PER_STORE: u64 = 100;

/// A small generator (xorshift): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What is put in place of a part.
fn strange(random: &mut Random) -> Value {
    let strange = [
        json!("x"),
        json!(""),
        json!("system:masters"),
        json!("2026-01-01T00:00:00Z"),
        json!("a\u{0}b/../*\u{fffd}"),
        json!(0),
        json!(-1),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(1.5),
        json!(true),
        Value::Null,
        json!([]),
        json!({}),
        json!(["x", null, 1, {}, []]),
        json!([{}]),
        json!({"": {"": ""}}),
        json!({"name": "c"}),
        json!([[[[[[[[]]]]]]]]),
    ];
    random.of(&strange).clone()
}

/// Replaces, removes or doubles a part of `value` that is chosen by going down at random.
fn change(value: &mut Value, random: &mut Random) {
    let stop = random.one_in(4);
    match value {
        Value::Object(fields) if !fields.is_empty() && !stop => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = random.of(&names);
            if random.one_in(12) {
                let removed = fields.remove(name);
                if random.one_in(2) {
                    fields.insert(format!("{name}x"), removed.unwrap_or_default());
                }
            } else {
                change(&mut fields[name.as_str()], random);
            }
        }
        Value::Array(elements) if !elements.is_empty() && !stop => {
            let at = random.below(elements.len());
            if random.one_in(6) {
                let twice = elements[at].clone();
                elements.push(twice);
            } else {
                change(&mut elements[at], random);
            }
        }
        other => *other = strange(random),
    }
}

fn query(random: &mut Random) -> String {
    const PARTS: &[&str] = &[
        "watch=1",
        "timeoutSeconds=18446744073709551615",
        "timeoutSeconds=0",
        "allowWatchBookmarks=true",
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        "resourceVersion=0",
        "resourceVersion=1",
        "resourceVersion=3&resourceVersionMatch=Exact",
        "resourceVersion=18446744073709551615",
        "limit=1",
        "limit=18446744073709551615",
        "continue=5b312c22222c22225d",
        "continue=5b31383434363734343037333730393535313631352c2261222c2262225d",
        "continue=zz",
        "labelSelector=a%3Db",
        "labelSelector=a+in+(",
        "labelSelector=%21a,b>1,%C3%A9",
        "fieldSelector=metadata.name%3Da",
        "fieldSelector=spec.color!=red,metadata.namespace=default",
        "fieldSelector=,=,",
        "dryRun=All",
        "fieldManager=m",
        "fieldManager=%00",
        "fieldValidation=Strict",
        "fieldValidation=Ignore",
        "force=true",
        "gracePeriodSeconds=9223372036854775807",
        "gracePeriodSeconds=-9223372036854775808",
        "propagationPolicy=Orphan",
        "propagationPolicy=x",
        "orphanDependents=true",
        "includeObject=Object",
        "pretty=1",
        "%=&%zz",
    ];
    let count = random.below(4);
    let parts: Vec<&str> = (0..count).map(|_| *random.of(PARTS)).collect();
    parts.join("&")
}

fn path(base: &str, random: &mut Random) -> String {
    const NAMES: &[&str] = &[
        "a",
        "a",
        "a",
        "widgets.fuzz.example.com",
        "default",
        "n",
        "%2e%2e",
        "%00",
        "é",
    ];
    const BELOW: &[&str] = &[
        "status", "scale", "binding", "eviction", "finalize", "approval", "token", "log", "x/y/z", "", "%zz",
    ];
    const ELSEWHERE: &[&str] = &[
        "/",
        "/api",
        "/apis",
        "/apis/apps",
        "/apis/apps/v1",
        "/version",
        "/openapi/v3",
        "/openapi/v3/api/v1",
        "/openapi/v2",
        "/healthz",
        "/api/v1/namespaces/default/status",
        "/api/v1/namespaces//pods",
        "//",
        "/api/v9/x",
        "/apis/a/b/c/d/e/f/g",
    ];
    if random.one_in(20) {
        return (*random.of(ELSEWHERE)).to_owned();
    }
    let mut path = base.to_owned();
    if !random.one_in(3) {
        path = format!("{path}/{}", random.of(NAMES));
        if random.one_in(3) {
            path = format!("{path}/{}", random.of(BELOW));
        }
    }
    path
}

fn request(bases: &[(&'static str, Value)], others: &[Value], random: &mut Random) -> Request {
    const METHODS: &[Method] = &[
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Post,
        Method::Put,
        Method::Put,
        Method::Patch,
        Method::Patch,
        Method::Delete,
    ];
    const MEDIA: &[&str] = &[
        "application/json",
        "application/json",
        "application/json",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "text/plain;;",
    ];
    const ACCEPT: &[&str] = &[
        "application/json",
        "*/*",
        "application/json;as=Table;g=meta.k8s.io;v=v1",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        ";=,;as",
    ];
    let (base, fits) = random.of(bases);
    let mut method = *random.of(METHODS);
    let mut media = *random.of(MEDIA);
    let mut body = if random.one_in(4) {
        random.of(others).clone()
    } else {
        fits.clone()
    };
    let mut path = path(base, random);
    if random.one_in(3) {
        // What would be stored, were it not for the changes.
        (method, media) = (Method::Post, "application/json");
        (path, body) = ((*base).to_owned(), fits.clone());
    }
    if random.one_in(4) && body["metadata"].is_object() {
        // To what is there; a custom kind must name a version.
        body["metadata"]["resourceVersion"] = random.below(60).to_string().into();
    }
    for _ in 0..random.below(4) {
        change(&mut body, random);
    }
    let mut text = body.to_string().into_bytes();
    if random.one_in(30) {
        text.truncate(random.below(text.len()));
    }
    const USERS: &[(&str, &str)] = &[
        ("admin", "system:masters"),
        ("admin", "system:masters"),
        ("admin", "system:masters"),
        ("admin", "system:masters"),
        ("admin", "system:masters"),
        ("admin", "system:masters"),
        ("admin", "system:masters"),
        ("admin", "system:masters"),
        ("bob", "system:authenticated"),
        ("system:node:n", "system:nodes"),
    ];
    let (name, group) = *random.of(USERS);
    let accept = if random.one_in(4) {
        random.of(ACCEPT)
    } else {
        "*/*"
    };
    let mut headers = vec![
        ("content-type".to_owned(), media.to_owned()),
        ("accept".to_owned(), accept.to_owned()),
    ];
    if random.one_in(20) {
        headers.push(("impersonate-user".to_owned(), "bob".to_owned()));
    }
    Request {
        method,
        path,
        query: query(random),
        headers,
        body: text.into(),
        user: User::new(name, [group]),
    }
}

/// Built-in kinds and one of users: definitions do not take effect here, so that what is served stays the same.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let custom = crd::resources(&definition()).unwrap();
    for resource in builtin::resources().into_iter().chain(custom) {
        registry.insert(resource);
    }
    registry
}

async fn api(registry: &Registry) -> Api {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(registry.clone(), Limits::default()));
    let key = rcgen::KeyPair::generate().unwrap();
    let tokens = Arc::new(Tokens::new(key.serialized_der()).unwrap());
    let accounts = Accounts::new(Arc::clone(&store), tokens);
    let reviews = Reviews::new(Access::new(Arc::clone(&store)), accounts);
    let api = Api::new(
        Arc::clone(&store),
        Arc::new(SystemEnvironment),
        Arc::new(Access::new(Arc::clone(&store))),
        Arc::new(Admission::new(store, reviews)),
    );
    bootstrap::run(&api, &[]).await.unwrap();
    api
}

/// Reads the answer; of a watch, what it begins with.
async fn read(api: &Api, request: Request) -> (u16, Vec<u8>) {
    let response = api.serve(request).await;
    let body = match response.body {
        Body::Whole(bytes) => bytes.to_vec(),
        Body::Stream(mut lines) => {
            let mut all = Vec::new();
            while let Some(Some(line)) = futures::FutureExt::now_or_never(lines.next()) {
                all.extend_from_slice(&line);
            }
            all
        }
    };
    (response.status, body)
}

#[tokio::test]
async fn every_request_is_answered() {
    let number = |name: &str, usual: u64| -> u64 {
        let chosen = std::env::var(name).ok();
        chosen.map_or(usual, |text| text.parse().unwrap())
    };
    let (count, seed) = (number("LEDGE_REQUESTS", REQUESTS), number("LEDGE_SEED", 1));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (bases, others, registry) = (objects(), others(), registry());
    let mut codes = std::collections::BTreeMap::<u16, u64>::new();
    let mut place = api(&registry).await;
    for n in 0..count {
        if n % REQUESTS_PER_STORE == 0 {
            place = api(&registry).await;
            for (path, fits) in &bases {
                let first = Request {
                    method: Method::Post,
                    path: (*path).to_owned(),
                    query: String::new(),
                    headers: Vec::new(),
                    body: fits.to_string().into(),
                    user: User::new("admin", ["system:masters"]),
                };
                let (status, body) = read(&place, first).await;
                let told = String::from_utf8_lossy(&body);
                assert!(matches!(status, 200 | 201 | 409), "{path}: {status} {told}");
            }
        }
        let request = request(&bases, &others, &mut random);
        let sent = format!(
            "request {n} of seed {seed}: {:?} {}?{} {:?} {}",
            request.method,
            request.path,
            request.query,
            request.headers,
            String::from_utf8_lossy(&request.body)
        );
        let (status, body) = read(&place, request).await;
        *codes.entry(status).or_default() += 1;
        let told = String::from_utf8_lossy(&body);
        assert!(!told.contains("made the server panic"), "{sent}\n{told}");
        if status >= 400 {
            let plain = told.starts_with("Internal Server Error");
            let value: Value = serde_json::from_slice(&body).unwrap_or_default();
            assert!(plain || value["kind"] == "Status", "{sent}\n{status} {told}");
            assert!(plain || value["code"] == status, "{sent}\n{told}");
        } else {
            for line in told.lines().filter(|_| told != "ok") {
                let value: Result<Value, _> = serde_json::from_str(line);
                assert!(value.is_ok_and(|value| value.is_object()), "{sent}\n{told}");
            }
        }
    }
    println!("{codes:?}");
    // It is about all of it, and not about being refused at the door.
    for code in [200, 201, 400, 403, 404, 405, 409, 415, 422] {
        assert!(
            codes.get(&code).is_some_and(|count| *count > 0),
            "{code}: {codes:?}"
        );
    }
}
