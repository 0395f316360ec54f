use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::{Method, Request, StatusCode};
use ledge_kubeapi::memory::MemoryStore;
use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::serve::request::UNAUTHENTICATED;
use ledge_kubeapi::{Registry, Store, builtin};
use serde_json::{Value, json};

use super::*;
use crate::access::Access;
use crate::admission::Admission;
use crate::bootstrap;
use crate::environment::SystemEnvironment;
use crate::reviews::Reviews;
use crate::tokens::Tokens;

/// The API in memory, with everything that decides who may what.
async fn served() -> Served {
    let mut registry = Registry::default();
    for resource in builtin::resources() {
        registry.insert(resource);
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(registry, Limits::default()));
    let key = rcgen::KeyPair::generate().unwrap();
    let tokens = Tokens::new(key.serialized_der()).unwrap();
    let accounts = Accounts::new(Arc::clone(&store), Arc::new(tokens));
    let reviews = Reviews::new(Access::new(Arc::clone(&store)), accounts.clone());
    let api = Api::new(
        Arc::clone(&store),
        Arc::new(SystemEnvironment),
        Arc::new(Access::new(Arc::clone(&store))),
        Arc::new(Admission::new(store, reviews)),
    );
    bootstrap::run(&api, &[]).await.unwrap();
    Served { api, accounts }
}

fn admin() -> Option<User> {
    Some(User::new("admin", ["system:masters", AUTHENTICATED]))
}

fn bob() -> Option<User> {
    Some(User::new("bob", [AUTHENTICATED]))
}

async fn ask(
    served: &Served,
    user: Option<User>,
    method: Method,
    path: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", "application/json");
    read(served, user, request.body(Full::<Bytes>::from(text)).unwrap()).await
}

async fn read<B>(served: &Served, user: Option<User>, request: Request<B>) -> (StatusCode, Value)
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bodies = Bodies::new(bodies::ALL_BYTES);
    let response = answer(served, &bodies, user, request, &CancellationToken::new()).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn create(served: &Served, path: &str, object: &Value) {
    let (status, told) = ask(served, admin(), Method::POST, path, object).await;
    assert_eq!(status, 201, "{told}");
}

/// Bob may do `verbs` with everything in the namespace `dev`.
async fn with_a_role_in_dev(verbs: &[&str]) -> Served {
    let served = served().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/dev";
    for name in ["dev", "prod"] {
        let namespace = json!({"metadata": {"name": name}});
        create(&served, "/api/v1/namespaces", &namespace).await;
    }
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps", "namespaces"], "verbs": verbs}]);
    let role = json!({"metadata": {"name": "r"}, "rules": rules});
    create(&served, &format!("{rbac}/roles"), &role).await;
    let binding = json!({
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}],
    });
    create(&served, &format!("{rbac}/rolebindings"), &binding).await;
    served
}

fn token(parts: &Value) -> String {
    let hex = parts.to_string().into_bytes();
    hex.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_forged_continue_shows_nothing_of_other_namespaces() {
    let served = with_a_role_in_dev(&["list"]).await;
    for name in ["dev", "prod"] {
        let map = json!({"metadata": {"name": "map"}, "data": {"secret": name}});
        create(&served, &format!("/api/v1/namespaces/{name}/configmaps"), &map).await;
    }
    let maps = "/api/v1/namespaces/dev/configmaps";
    let (status, list) = ask(&served, bob(), Method::GET, maps, &Value::Null).await;
    assert_eq!(status, 200);
    let version: u64 = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    for (version, namespace, expected) in [
        (version, "dev", 200),
        (version, "", 400),
        (version, "a", 400),
        (version, "default", 400),
        (version, "prod", 400),
        (version - 1, "default", 400),
        (version - 1, "prod", 400),
        (version + 1000, "dev", 410),
    ] {
        let path = format!("{maps}?continue={}", token(&json!([version, namespace, ""])));
        let (status, list) = ask(&served, bob(), Method::GET, &path, &Value::Null).await;
        assert_eq!(status, expected, "{version} {namespace}: {list}");
        let items = list["items"].as_array().into_iter().flatten();
        for item in items {
            assert_eq!(item["metadata"]["namespace"], "dev");
        }
    }
}

#[tokio::test]
async fn a_role_in_a_namespace_may_be_about_the_namespace() {
    let served = with_a_role_in_dev(&["get"]).await;
    let get = async |name: &str| {
        let path = format!("/api/v1/namespaces/{name}");
        ask(&served, bob(), Method::GET, &path, &Value::Null).await
    };
    assert_eq!(get("dev").await.0, 200);
    let (status, told) = get("prod").await;
    assert_eq!(status, 403);
    assert_eq!(
        told["message"],
        "namespaces \"prod\" is forbidden: User \"bob\" cannot get resource \"namespaces\" in API group \"\" in the namespace \"prod\""
    );
    let (status, told) = ask(
        &served,
        bob(),
        Method::DELETE,
        "/api/v1/namespaces/dev",
        &Value::Null,
    )
    .await;
    assert_eq!(status, 403, "{told}");
    let (status, told) = ask(&served, bob(), Method::GET, "/api/v1/namespaces", &Value::Null).await;
    assert_eq!(status, 403);
    assert!(
        told["message"]
            .as_str()
            .unwrap()
            .ends_with("at the cluster scope")
    );
}

/// A body that tells whether anybody asked for it.
fn watched(asked: Arc<AtomicBool>) -> impl Body<Data = Bytes, Error = Infallible> {
    StreamBody::new(stream::once(async move {
        asked.store(true, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from_static(
            b"{\"metadata\": {\"name\": \"a\"}}",
        )))
    }))
}

#[tokio::test]
async fn a_body_is_read_of_those_only_who_may_send_it() {
    let served = served().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for (user, path, expected, is_read) in [
        (None, maps, 403, false),
        (None, "/version", 403, false),
        (None, "/nothing/here", 403, false),
        (None, "/api/v1/namespaces/default/nothings", 404, false),
        (bob(), maps, 403, false),
        (admin(), maps, 201, true),
    ] {
        let asked = Arc::new(AtomicBool::new(false));
        let request = Request::post(path).body(watched(Arc::clone(&asked))).unwrap();
        let (status, told) = read(&served, user.clone(), request).await;
        assert_eq!(status, expected, "{user:?} {path}: {told}");
        assert_eq!(asked.load(Ordering::Relaxed), is_read, "{user:?} {path}");
    }
}

#[tokio::test]
async fn who_cannot_be_read_is_not_somebody_else() {
    let served = served().await;
    let with = |name: &'static str, value: &'static [u8]| {
        let value = hyper::header::HeaderValue::from_bytes(value).unwrap();
        let request = Request::get("/api/v1/namespaces/default/configmaps").header(name, value);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    for (name, value, user, expected) in [
        ("authorization", &b"Bearer \xff"[..], None, 401),
        ("impersonate-user", b"j\xfcrgen", admin(), 400),
        ("impersonate-group", b"\xff", admin(), 400),
        ("impersonate-everything", b"x", admin(), 400),
        ("impersonate-user", "jürgen".as_bytes(), admin(), 403),
        ("impersonate-user", b"jurgen", admin(), 403),
        ("user-agent", b"j\xfcrgen", admin(), 200),
    ] {
        let (status, told) = read(&served, user, with(name, value)).await;
        assert_eq!(status, expected, "{name}: {told}");
    }
    // Nobody is in no group but that of nobodies.
    assert_eq!(transport::anonymous().groups, [UNAUTHENTICATED]);
}

#[tokio::test]
async fn what_is_of_another_type_is_refused_before_it_is_changed() {
    let served = served().await;
    for namespace in [
        json!({"metadata": {"name": "n", "labels": "x"}}),
        json!({"metadata": {"name": "n"}, "spec": "x"}),
        json!({"metadata": "x"}),
    ] {
        let (status, told) = ask(&served, admin(), Method::POST, "/api/v1/namespaces", &namespace).await;
        assert_eq!((status.as_u16(), &told["reason"]), (400, &json!("BadRequest")));
    }
}

#[tokio::test]
async fn a_binding_gives_a_pod_no_annotations_that_it_could_not_have() {
    let served = served().await;
    let pods = "/api/v1/namespaces/default/pods";
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    create(&served, pods, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let binding = format!("{pods}/p/binding");
    let bind = async |annotations: Value| {
        let body = json!({"metadata": {"name": "p", "annotations": annotations}, "target": {"kind": "Node", "name": "n"}});
        ask(&served, admin(), Method::POST, &binding, &body).await
    };
    for (annotations, expected) in [
        (json!({"a": 1}), 400),
        (json!("x"), 400),
        (json!({"a b": "c"}), 422),
        (json!({"a": "x".repeat(256 * 1024)}), 422),
        (json!({"a": "b"}), 201),
    ] {
        let (status, told) = bind(annotations).await;
        assert_eq!(status, expected, "{told}");
    }
    let (_, pod) = ask(&served, admin(), Method::GET, &format!("{pods}/p"), &Value::Null).await;
    assert_eq!(pod["spec"]["nodeName"], "n");
    assert_eq!(pod["metadata"]["annotations"], json!({"a": "b"}));
}
