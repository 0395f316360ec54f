//! Payloads about Kubernetes objects. What a Secret holds is not shown.

use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value as Json, json};

use super::{hex, position_json, words};

/// Fields of a payload that is about Kubernetes; of others, nothing.
pub(super) fn json(payload: &Payload) -> Json {
    match payload {
        Payload::ApiObject(object) => json!({ "object": shown(&object.json) }),
        Payload::ApiObjectDeleted(object) => json!({ "object": shown(&object.json), "deleted": true }),
        Payload::KubeObject(object) => json!({
            "uid": object.uid, "resource_version": object.resource_version, "object": shown(&object.json),
        }),
        Payload::KubeObjectRemoved(gone) => json!({
            "uid": gone.uid, "resource_version": gone.resource_version,
        }),
        Payload::KubeStatus(status) => json!({ "uid": status.uid, "status": shown(&status.json) }),
        Payload::KubeEvent(event) => json!({ "event": shown(&event.json) }),
        Payload::Interest(interest) => json!({
            "group": interest.group, "version": interest.version, "resource": interest.resource,
            "namespace": interest.namespace, "name": interest.name,
            "label_selector": interest.label_selector, "field_selector": interest.field_selector,
        }),
        Payload::InterestState(state) => json!({
            "code": state.code, "reason": state.reason, "message": state.message,
            "resource_version": state.resource_version,
        }),
        Payload::KubeWrite(write) => json!({
            "method": write.method, "path": write.path, "query": write.query, "content_type": write.content_type,
            "body": body(write), "user": write.user, "based_on": write.based_on, "object": write.object,
        }),
        Payload::KubeWriteResult(result) => json!({ "code": result.code, "object": shown(&result.json) }),
        Payload::DownApplied(applied) => json!({
            "node": position_json(applied.node.as_ref()), "cluster": position_json(applied.cluster.as_ref()),
            "node_hash": hex(&applied.node_hash), "cluster_hash": hex(&applied.cluster_hash),
        }),
        Payload::Repair(repair) => {
            json!({ "found": position_json(repair.found.as_ref()), "reason": repair.reason })
        }
        Payload::EventCursor(cursor) => json!({ "position": position_json(cursor.position.as_ref()) }),
        _ => json!({}),
    }
}

/// A payload that is about Kubernetes on one line; of others, nothing.
pub(super) fn line(payload: &Payload) -> String {
    match payload {
        Payload::ApiObject(object) => format!("{} bytes", object.json.len()),
        Payload::ApiObjectDeleted(_) => "deleted".to_owned(),
        Payload::KubeObject(object) => {
            format!(
                "version {} of {} bytes",
                object.resource_version,
                object.json.len()
            )
        }
        Payload::KubeStatus(status) => format!("{} bytes", status.json.len()),
        Payload::KubeEvent(event) => {
            let event = shown(&event.json);
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            words(&text("reason"), &text("message"))
        }
        Payload::KubeObjectRemoved(_)
        | Payload::KubeStatusRemoved
        | Payload::InterestRemoved
        | Payload::InterestStateRemoved
        | Payload::KubeWriteRemoved
        | Payload::KubeWriteResultRemoved => "removed".to_owned(),
        Payload::Interest(interest) => selected(interest),
        Payload::InterestState(state) => words(&state.code.to_string(), &state.message),
        Payload::KubeWrite(write) => format!("{} {}", write.method, write.path),
        Payload::KubeWriteResult(result) => result.code.to_string(),
        Payload::Repair(repair) => repair.reason.clone(),
        Payload::DownApplied(_) => "hash of what the node was told".to_owned(),
        _ => String::new(),
    }
}

fn selected(interest: &v1::Interest) -> String {
    let parts = [
        &interest.group,
        &interest.resource,
        &interest.namespace,
        &interest.name,
    ];
    let named = parts.map(String::as_str).join("/");
    words(&named, &interest.label_selector)
}

/// A patch of a Secret does not say that it is one; its path does.
fn body(write: &v1::KubeWrite) -> Json {
    if write.path.split('/').any(|segment| segment == "secrets") {
        return json!(format!("({} bytes)", write.body.len()));
    }
    shown(&write.body)
}

fn shown(json: &[u8]) -> Json {
    let mut shown: Json = serde_json::from_slice(json).unwrap_or_default();
    if shown["kind"] == "Secret" {
        for field in ["data", "stringData"] {
            for value in shown[field]
                .as_object_mut()
                .into_iter()
                .flat_map(|map| map.values_mut())
            {
                *value = json!(format!("({} characters)", value.as_str().map_or(0, str::len)));
            }
        }
        // It may hold the whole object once more.
        if let Some(annotations) = shown["metadata"]["annotations"].as_object_mut() {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    shown
}
