//! Writes: through the log, once, with the API server's answer; and what is told when there is none.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use ledge_proto::fold::Table;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use support::{Asked, Edge, config_map, node, object, pod, record, removed};

const MERGE: [(&str, &str); 1] = [("content-type", "application/merge-patch+json")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const SETTINGS: &str = "/api/v1/namespaces/default/configmaps/settings";

fn result(id: &str, code: u32, json: &Value) -> v1::Record {
    let json = serde_json::to_vec(json).unwrap().into();
    record(id, &Payload::KubeWriteResult(v1::KubeWriteResult { code, json }))
}

/// The id in a refusal that says where the write stands.
fn id_of(told: &Value) -> String {
    assert_eq!(told["details"]["causes"][0]["reason"], "InLog", "{told}");
    told["details"]["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_write_is_carried_out_and_answered_by_the_api_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path()).await;
    edge.down(
        node(),
        vec![object("configmaps", &config_map("settings", 7, "one"))],
    )
    .await;
    // Seen by the node before it writes, and before there is anybody to be asked.
    while edge.get(SETTINGS).await.0 != 200 {
        tokio::task::yield_now().await;
    }
    let (seen, mut writes) = tokio::sync::mpsc::channel(8);
    edge.play(move |asked| {
        let Asked::Write(id, write) = asked else { return Vec::new() };
        seen.try_send(write.clone()).unwrap();
        if write.method == "DELETE" {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"});
            return vec![result(&id, 403, &status)];
        }
        let changed = config_map("settings", 8, "two");
        vec![object("configmaps", &changed), result(&id, 200, &changed)]
    });
    let (code, told) = edge
        .http(
            "PATCH",
            &format!("{SETTINGS}?fieldManager=x"),
            &MERGE,
            r#"{"data":{"key":"two"}}"#,
        )
        .await;
    assert_eq!(
        (code, &told["metadata"]["resourceVersion"]),
        (200, &json!("8")),
        "{told}"
    );
    assert_eq!(edge.get(SETTINGS).await.1["data"]["key"], "two");
    let write = writes.recv().await.unwrap();
    assert_eq!(
        (write.method.as_str(), write.path.as_str(), write.query.as_str()),
        ("PATCH", SETTINGS, "fieldManager=x")
    );
    assert_eq!(
        (write.content_type.as_str(), &write.body[..]),
        (MERGE[0].1, &br#"{"data":{"key":"two"}}"#[..])
    );
    assert_eq!(
        (write.based_on.as_str(), write.object.as_str()),
        ("7", "/configmaps/default/settings")
    );
    let (code, told) = edge.http("DELETE", SETTINGS, &[], "").await;
    assert_eq!((code, &told["message"]), (403, &json!("no")));
    // What was answered does not stand any longer.
    edge.until::<v1::KubeWrite>(Table::KubeWrites, <[_]>::is_empty)
        .await;
    edge.stop().await;
}

#[tokio::test]
async fn a_write_without_a_link_is_in_the_log_once_and_shown_until_after_it_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    edge.down(
        node(),
        vec![object("configmaps", &config_map("settings", 7, "one"))],
    )
    .await;
    let body = r#"{"data":{"key":"two"}}"#;
    let (code, told) = edge.http("PATCH", SETTINGS, &MERGE, body).await;
    assert_eq!(code, 503, "{told}");
    let id = id_of(&told);
    assert!(told["message"].as_str().unwrap().contains(&id), "{told}");
    let (_, again) = edge.http("PATCH", SETTINGS, &MERGE, body).await;
    assert_eq!(id_of(&again), id, "the same request is the same write");
    let (_, other) = edge.http("PATCH", SETTINGS, &MERGE, "{}").await;
    assert_ne!(id_of(&other), id);
    let generated = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"x-"}}"#;
    let all = "/api/v1/namespaces/default/configmaps";
    let (_, first) = edge.http("POST", all, &JSON, generated).await;
    let (_, second) = edge.http("POST", all, &JSON, generated).await;
    assert_ne!(id_of(&first), id_of(&second), "each makes an object of its own");
    let (code, _) = edge
        .http(
            "PATCH",
            &format!("{SETTINGS}?dryRun=All"),
            &MERGE,
            "{\"data\":{}}",
        )
        .await;
    assert_eq!(code, 503);
    let rows = edge
        .until::<v1::KubeWrite>(Table::KubeWrites, |rows| rows.len() >= 4)
        .await;
    assert_eq!(rows.len(), 4, "a question is not kept");
    // Reads show what the API server accepted.
    assert_eq!(edge.get(SETTINGS).await.1["data"]["key"], "one");
    edge.stop().await;

    let edge = Edge::start(dir.path()).await;
    let writes = "/apis/edge.ledge/v1alpha1/writes";
    let (_, list) = edge.get(writes).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 4);
    let (code, shown) = edge.get(&format!("{writes}/{id}")).await;
    assert_eq!((code, &shown["status"]["state"]), (200, &json!("Pending")));
    assert_eq!(shown["spec"]["path"], SETTINGS);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let refused = json!({"kind": "Status", "code": 409, "reason": "Conflict", "message": "it changed"});
    let done = vec![
        result(&id, 200, &config_map("settings", 8, "two")),
        result(&id_of(&other), 409, &refused),
    ];
    edge.down(node(), done).await;
    let watch = format!("{writes}?watch=1&resourceVersion={version}");
    let events = support::watched(&edge, &watch, 2).await;
    let mut states: Vec<_> = events
        .iter()
        .map(|event| event["object"]["status"]["state"].as_str().unwrap())
        .collect();
    states.sort_unstable();
    assert_eq!(states, ["Done", "Refused"]);
    let (_, shown) = edge.get(&format!("{writes}/{}", id_of(&other))).await;
    assert_eq!(
        shown["status"],
        json!({"state": "Refused", "code": 409, "reason": "Conflict", "message": "it changed"})
    );
    // Nobody writes these through the API.
    let (code, _) = edge.http("DELETE", &format!("{writes}/{id}"), &[], "").await;
    assert_eq!(code, 405);
    edge.stop().await;
}

#[tokio::test]
async fn the_result_of_a_write_is_given_to_whoever_asks_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path()).await;
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings"}}"#;
    let (code, told) = edge
        .http("POST", "/api/v1/namespaces/default/configmaps", &JSON, body)
        .await;
    assert_eq!(code, 503, "{told}");
    let first = id_of(&told);
    edge.play(move |asked| match asked {
        Asked::Write(id, _) => {
            assert_eq!(id, first);
            vec![result(&id, 201, &config_map("settings", 8, "x"))]
        }
        Asked::Interest(..) => Vec::new(),
    });
    // Either it still waits, or it was just done and is a new write: then the cloud would be asked twice.
    let writes = edge
        .until::<v1::KubeWriteResult>(Table::KubeWriteResults, |rows| rows.len() == 1)
        .await;
    assert_eq!(writes[0].1.code, 201);
    edge.stop().await;
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    let big = "x".repeat(ledge_metaserver::WRITE_MAX_BYTES - 100);
    let mut taken = 0;
    loop {
        let body = format!(r#"{{"data":{{"n":"{taken}","big":"{big}"}}}}"#);
        let (code, told) = edge.http("PATCH", SETTINGS, &MERGE, &body).await;
        if code != 503 {
            assert_eq!(
                (code, &told["reason"]),
                (429, &json!("TooManyRequests")),
                "{told}"
            );
            break;
        }
        taken += 1;
    }
    assert_eq!(
        taken,
        ledge_metaserver::PENDING_MAX_BYTES / ledge_metaserver::WRITE_MAX_BYTES
    );
    let (code, _) = edge
        .http(
            "PATCH",
            SETTINGS,
            &MERGE,
            &"x".repeat(ledge_metaserver::WRITE_MAX_BYTES + 1),
        )
        .await;
    assert_eq!(code, 413);
    let (code, _) = edge.http("PATCH", SETTINGS, &MERGE, &"x".repeat(4 << 20)).await;
    assert_eq!(code, 413);
    edge.stop().await;
}

#[tokio::test]
async fn what_the_node_runs_it_speaks_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path()).await;
    let pods = vec![object("pods", &pod("a", 10, &json!({})))];
    edge.down(node(), pods).await;
    let path = "/api/v1/namespaces/default/pods/a/status";
    while edge.get(path).await.0 != 200 {
        tokio::task::yield_now().await;
    }
    let (code, told) = edge
        .http("PATCH", path, &MERGE, r#"{"status":{"phase":"Running"}}"#)
        .await;
    assert_eq!(
        (code, &told["status"]["phase"]),
        (200, &json!("Running")),
        "{told}"
    );
    assert_eq!(
        edge.get("/api/v1/namespaces/default/pods/a").await.1["status"]["phase"],
        "Running"
    );
    let rows = edge
        .until::<v1::KubeStatus>(Table::KubeStatuses, |rows| rows.len() == 1)
        .await;
    assert_eq!(
        (rows[0].0.as_str(), rows[0].1.uid.as_str()),
        ("/pods/default/a", "uid-of-a")
    );
    // The cloud's copy comes back with another version and its old status: the node knows better.
    edge.down(
        node(),
        vec![object("pods", &pod("a", 11, &json!({"new": "label"})))],
    )
    .await;
    let (_, list) = loop {
        let found = edge.get("/api/v1/pods?labelSelector=new%3Dlabel").await;
        if found.1["items"].as_array().is_some_and(|items| !items.is_empty()) {
            break found;
        }
    };
    assert_eq!(list["items"][0]["status"]["phase"], "Running");
    for (body, code) in [
        (r#"{"metadata":{"resourceVersion":"10"},"status":{}}"#, 409),
        (r#"{"status":[]}"#, 400),
        (r#"{"status":{"phase":1}}"#, 422),
        ("[]", 400),
        ("{", 400),
    ] {
        let (found, told) = edge.http("PATCH", path, &MERGE, body).await;
        assert_eq!(found, code, "{body}: {told}");
    }
    let (code, event) = edge
        .http("POST", "/api/v1/namespaces/default/events", &JSON, r#"{"apiVersion":"v1","kind":"Event","metadata":{"generateName":"a."},"involvedObject":{"apiVersion":"v1","kind":"Pod","namespace":"default","name":"a"},"reason":"Started"}"#)
        .await;
    assert_eq!(code, 201, "{event}");
    let (code, _) = edge
        .http(
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge-1",
            &JSON,
            r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"edge-1"}}"#,
        )
        .await;
    assert_eq!(code, 200);
    let writes = edge.until::<v1::KubeWrite>(Table::KubeWrites, |_| true).await;
    assert!(writes.is_empty(), "nothing of this waits for the cloud");
    // Its status goes with it.
    edge.down(node(), vec![removed("/pods/default/a")]).await;
    edge.stop().await;
}
