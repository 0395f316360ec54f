//! Reads: from what was told, without a link, after a restart; what was not told is asked for.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use ledge_proto::fold::Table;
use ledge_proto::ids::Scope;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use support::{Asked, Edge, config_map, namespace, node, object, pod, record, removed};

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

/// Waits until a list shows so many objects, by watching.
async fn until(edge: &Edge, path: &str, count: usize) -> Value {
    let shown = async {
        loop {
            let (code, list) = edge.get(path).await;
            if code == 200 && list["items"].as_array().unwrap().len() == count {
                return list;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::DEADLINE, shown).await.unwrap()
}

#[tokio::test]
async fn what_was_told_is_there_without_a_link_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    let (code, told) = edge.get("/api/v1/pods").await;
    assert_eq!(
        (code, told["reason"].as_str()),
        (503, Some("ServiceUnavailable")),
        "{told}"
    );
    edge.down(
        Scope::cluster(),
        vec![object("namespaces", &namespace("default", 4))],
    )
    .await;
    let two = vec![
        object("pods", &pod("a", 10, &json!({"app": "x"}))),
        object("pods", &pod("b", 12, &json!({}))),
    ];
    edge.down(node(), two).await;
    let list = until(&edge, "/api/v1/namespaces/default/pods", 2).await;
    assert_eq!(
        list["items"][0]["metadata"]["resourceVersion"], "10",
        "as the cloud has it"
    );
    let version: u64 = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    edge.stop().await;

    let edge = Edge::start(dir.path()).await;
    let (code, list) = edge.get("/api/v1/pods?labelSelector=app%3Dx").await;
    assert_eq!((code, names(&list)), (200, vec!["a"]));
    let (_, list) = edge.get("/api/v1/pods").await;
    assert_eq!(names(&list), ["a", "b"]);
    let later: u64 = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(later > version, "{later} {version}");
    // What came before the start is not held: the client lists again.
    for old in [version, 10] {
        let (code, event) = edge
            .get(&format!("/api/v1/pods?watch=1&resourceVersion={old}"))
            .await;
        assert_eq!((code, &event["object"]["code"]), (200, &json!(410)), "{event}");
    }
    // A version of a future that did not happen here.
    let (_, event) = edge
        .get(&format!("/api/v1/pods?watch=1&resourceVersion={}", u64::MAX))
        .await;
    assert_eq!(event["object"]["code"], 410, "{event}");
    let (code, found) = edge.get("/api/v1/namespaces/default").await;
    assert_eq!((code, &found["kind"]), (200, &json!("Namespace")));
    let (code, missing) = edge.get("/api/v1/namespaces/other").await;
    assert_eq!(
        (code, &missing["message"]),
        (404, &json!("namespaces \"other\" not found"))
    );
    edge.stop().await;
}

/// What a watch tells first, by kind and name.
async fn watched(edge: &Edge, path: &str, count: usize) -> Vec<(String, String)> {
    let events = support::watched(edge, path, count).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|event| (text(&event["type"]), text(&event["object"]["metadata"]["name"])))
        .collect()
}

#[tokio::test]
async fn a_watch_goes_on_from_a_list_and_from_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    edge.down(node(), vec![object("pods", &pod("a", 100, &json!({})))])
        .await;
    let list = until(&edge, "/api/v1/pods", 1).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    // One batch at a time, so that none is folded together with another.
    edge.down(node(), vec![object("pods", &pod("b", 90, &json!({})))])
        .await;
    until(&edge, "/api/v1/pods", 2).await;
    edge.down(node(), vec![object("pods", &pod("c", 95, &json!({})))])
        .await;
    until(&edge, "/api/v1/pods", 3).await;
    edge.down(node(), vec![removed("/pods/default/a")]).await;
    until(&edge, "/api/v1/pods", 2).await;
    let all = [("ADDED", "b"), ("ADDED", "c"), ("DELETED", "a")];
    let owned = |events: &[(&str, &str)]| -> Vec<(String, String)> {
        events
            .iter()
            .map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned()))
            .collect()
    };
    let seen = watched(
        &edge,
        &format!("/api/v1/pods?watch=1&resourceVersion={version}"),
        3,
    )
    .await;
    assert_eq!(seen, owned(&all));
    let seen = watched(&edge, "/api/v1/pods?watch=1&resourceVersion=90", 2).await;
    assert_eq!(seen, owned(&all[1..]), "after the change that showed 90");
    // Another object under the same name went and came.
    let mut other = pod("b", 120, &json!({}));
    other["metadata"]["uid"] = "another".into();
    let list = until(&edge, "/api/v1/pods", 2).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    edge.down(node(), vec![object("pods", &other)]).await;
    let seen = watched(
        &edge,
        &format!("/api/v1/pods?watch=1&resourceVersion={version}"),
        2,
    )
    .await;
    assert_eq!(seen, owned(&[("DELETED", "b"), ("ADDED", "b")]));
    edge.stop().await;
}

#[tokio::test]
async fn what_was_not_told_is_fetched_once_and_then_local() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path()).await;
    let path = "/api/v1/namespaces/default/configmaps/settings";
    let (code, told) = edge.get(path).await;
    assert_eq!(code, 503);
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("was never fetched") && message.contains("\"settings\""),
        "{message}"
    );
    edge.play(|asked| match asked {
        Asked::Interest(id, interest) => {
            let mut records = Vec::new();
            let mut state = v1::InterestState {
                code: 200,
                ..Default::default()
            };
            match interest.name.as_str() {
                "settings" => records.push(object("configmaps", &config_map("settings", 7, "one"))),
                "secret" => {
                    state.code = 403;
                    state.reason = "Forbidden".to_owned();
                    state.message = "no path from the node to this object".to_owned();
                }
                _ => {}
            }
            records.push(record(&id, &Payload::InterestState(state)));
            records
        }
        Asked::Write(..) => Vec::new(),
    });
    let (code, found) = edge.get(path).await;
    assert_eq!((code, &found["data"]["key"]), (200, &json!("one")), "{found}");
    let (code, missing) = edge.get("/api/v1/namespaces/default/configmaps/none").await;
    assert_eq!((code, &missing["reason"]), (404, &json!("NotFound")));
    let (code, refused) = edge.get("/api/v1/namespaces/default/configmaps/secret").await;
    assert_eq!(
        (code, &refused["reason"]),
        (403, &json!("Forbidden")),
        "{refused}"
    );
    // It is here now, with or without a link.
    edge.link.send_replace(false);
    assert_eq!(edge.get(path).await.0, 200);
    assert_eq!(
        edge.get("/api/v1/namespaces/default/configmaps/none").await.0,
        404
    );
    // One record for each, however often it was asked for.
    let rows = edge
        .until::<v1::Interest>(Table::Interests, |rows| rows.len() >= 3)
        .await;
    assert_eq!(rows.len(), 3);
    // A list of all is another question, and nobody can answer it now.
    let (code, told) = edge.get("/api/v1/namespaces/default/configmaps").await;
    assert_eq!(code, 503, "{told}");
    edge.stop().await;
}

#[tokio::test]
async fn the_link_going_down_ends_the_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    edge.link.send_replace(true);
    let asked = edge.get("/api/v1/namespaces/default/configmaps");
    let cut = async {
        edge.until::<v1::Interest>(Table::Interests, |rows| rows.len() == 1)
            .await;
        edge.link.send_replace(false);
    };
    let ((code, _), ()) = tokio::join!(asked, cut);
    assert_eq!(code, 503);
    edge.stop().await;
}

#[tokio::test]
async fn the_node_is_ready_here_and_its_lists_say_that_they_are_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    let mut this = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "edge-1", "uid": "n", "resourceVersion": "5"},
    });
    edge.down(node(), vec![object("nodes", &this)]).await;
    until(&edge, "/api/v1/nodes", 1).await;
    let ready = |node: &Value| {
        let all = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = all.into_iter().find(|condition| condition["type"] == "Ready");
        found.map(|condition| condition["status"].clone())
    };
    let path = "/api/v1/nodes/edge-1/status";
    let json = [("content-type", "application/json")];
    // What it says of itself leaves out that it works, until it says something else.
    this["status"] = json!({"conditions": [{"type": "DiskPressure", "status": "False"}]});
    edge.http("PUT", path, &json, &this.to_string()).await;
    let (_, shown) = edge.get("/api/v1/nodes/edge-1").await;
    assert_eq!(ready(&shown), Some("True".into()), "{shown:#}");
    this["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]});
    edge.http("PUT", path, &json, &this.to_string()).await;
    let (_, shown) = edge.get("/api/v1/nodes/edge-1").await;
    assert_eq!(ready(&shown), Some("False".into()), "{shown:#}");

    let warned = async |path: &str| {
        let answer = support::raw(edge.address, "GET", path, &[], "").await;
        answer
            .to_ascii_lowercase()
            .contains("\r\nwarning: 299 - \"node edge-1 shows")
    };
    assert!(warned("/api/v1/nodes").await);
    assert!(warned("/api/v1/pods").await);
    assert!(!warned("/api/v1/nodes/edge-1").await);
    assert!(!warned("/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1").await);
    edge.stop().await;
}
