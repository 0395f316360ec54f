//! What is known of a device, as its objects in the API show it. Functions of their arguments: no clock, no client.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use ledge_proto::fold::view;
use ledge_proto::ids::Scope;
use ledge_proto::v1;
use ledge_proto::v1::value::Value as Kind;
use serde_json::{Map, Value, json};

use super::{Behind, shape};
use crate::manifests::{Problem, Severity};

/// Longest message of a condition: the API takes 32 KiB.
const MESSAGE_MAX_CHARS: usize = 4096;

/// What is known of one device.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// Its object in the API.
    pub(super) object: &'a Value,
    /// The node it is at, if it has one.
    pub(super) node: Option<&'a Scope>,
    /// Whether it is resolved: it is at `node` because of what is written now.
    pub(super) resolved: bool,
    /// What is wrong with it.
    pub(super) problems: &'a [Problem],
    /// What the node was told and says of it.
    pub(super) device: &'a view::Device,
    /// How far the cloud is behind the node.
    pub(super) behind: Behind,
    /// Wall clock.
    pub(super) now: SystemTime,
}

/// A condition before it is known when it became so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
    now: SystemTime,
}

/// What has to be patched of the status of a `Device`; empty when it is right.
pub(super) fn of_device(known: &Known<'_>) -> Map<String, Value> {
    let current = &known.object["status"];
    let text = |name: &str| current[name].as_str().map(str::to_owned);
    let mut patch = Map::new();
    let mut put = |name: &str, wanted: Option<Value>| {
        if current.get(name).filter(|value| !value.is_null()) != wanted.as_ref() {
            patch.insert(name.to_owned(), wanted.unwrap_or(Value::Null));
        }
    };
    put(
        "node",
        known.node.and_then(Scope::node_name).map(|name| json!(name)),
    );
    let state = known
        .device
        .state
        .as_ref()
        .map(|state| state.content.state.clone());
    put("state", state.map(Value::from));
    let online = last_online(known.device, current["lastOnlineTime"].as_str());
    put("lastOnlineTime", online.map(Value::from));
    let behind = match known.behind {
        Behind::No => None,
        // It goes on since it was noticed.
        Behind::Lagging(since) | Behind::Lost(since) => {
            Some(text("behindSince").unwrap_or_else(|| time(since)))
        }
        Behind::NotKnown => text("behindSince"),
    };
    put("behindSince", behind.map(Value::from));
    let reported = latest_report(known.device).map(|at| time_us(at).into());
    put(
        "reportedAt",
        reported.or_else(|| text("reportedAt").map(Value::from)),
    );
    let mut conditions = conditions_of(known.object);
    let mut changed = set_condition(&mut conditions, resolved(known));
    if let Some(ready) = ready(known) {
        changed |= set_condition(&mut conditions, ready);
    }
    changed |= match warning(known) {
        Some(warning) => set_condition(&mut conditions, warning),
        None => remove_condition(&mut conditions, "Warning"),
    };
    if changed {
        patch.insert("conditions".to_owned(), Value::Array(conditions));
    }
    patch
}

/// The whole status of a `DeviceStatus`, given what it is now. Members of others stay.
pub(super) fn report(device: &view::Device, current: &Value) -> Map<String, Value> {
    let mut status = current.as_object().cloned().unwrap_or_default();
    let properties = device
        .spec
        .as_ref()
        .map(|spec| spec.content.properties.as_slice());
    let mut twins = Vec::new();
    for property in properties.unwrap_or_default() {
        let Some(known) = device.twins.get(&property.name) else {
            continue;
        };
        let mut twin = Map::new();
        let reported = known.reported.as_ref().and_then(|reported| {
            let value = reported.content.value.as_ref()?;
            Some(twin_property(value, property, reported.wall_us))
        });
        let desired = known.desired.as_ref().and_then(|desired| {
            let value = desired.content.value.as_ref()?;
            Some(twin_property(value, property, desired.wall_us))
        });
        twin.extend(reported.map(|reported| ("reported".to_owned(), reported)));
        twin.extend(desired.map(|desired| ("observedDesired".to_owned(), desired)));
        if !twin.is_empty() {
            twin.insert("propertyName".to_owned(), json!(property.name));
            twins.push(Value::Object(twin));
        }
    }
    status.insert("twins".to_owned(), Value::Array(twins));
    if let Some(state) = &device.state {
        status.insert("state".to_owned(), json!(state.content.state));
    }
    if let Some(online) = last_online(device, current["lastOnlineTime"].as_str()) {
        status.insert("lastOnlineTime".to_owned(), json!(online));
    }
    status
}

/// The status without the times that every report moves on.
pub(super) fn substance(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(status) = status.as_object_mut() {
        status.remove("lastOnlineTime");
        status.remove("reportedAt");
    }
    let twins = status.get_mut("twins").and_then(Value::as_array_mut);
    for twin in twins.into_iter().flatten() {
        for part in ["reported", "observedDesired"] {
            if let Some(metadata) = twin.get_mut(part).and_then(|part| part.get_mut("metadata"))
                && let Some(metadata) = metadata.as_object_mut()
            {
                metadata.remove("timestamp");
            }
        }
    }
    status
}

fn twin_property(value: &v1::Value, property: &v1::DeviceProperty, wall_us: i64) -> Value {
    json!({
        "value": text_of(value),
        "metadata": {
            "timestamp": (wall_us / 1000).to_string(),
            "type": property.data_type().as_str_name().to_ascii_lowercase(),
        },
    })
}

/// The value as KubeEdge's API has it: a text.
fn text_of(value: &v1::Value) -> String {
    match &value.value {
        None => String::new(),
        Some(Kind::Double(number)) => number.to_string(),
        Some(Kind::Int(number)) => number.to_string(),
        Some(Kind::Bool(yes)) => yes.to_string(),
        Some(Kind::String(text)) => text.clone(),
        // A wish for bytes is written as text: so are bytes that are one.
        Some(Kind::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => text.to_owned(),
            _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
    }
}

/// Time of the latest value, microseconds since 1970.
fn latest_report(device: &view::Device) -> Option<i64> {
    let reported = device.twins.values().filter_map(|twin| twin.reported.as_ref());
    reported.map(|reported| reported.wall_us).max()
}

/// When the device answered last, given when it was known to.
fn last_online(device: &view::Device, before: Option<&str>) -> Option<String> {
    let state = device.state.as_ref();
    let online = state
        .filter(|state| state.content.state == "online")
        .map(|state| state.wall_us);
    let answered = online.max(latest_report(device)).map(time_us);
    let before = before.and_then(|text| text.parse::<Timestamp>().ok());
    let answered = answered.and_then(|text| text.parse::<Timestamp>().ok());
    answered.max(before).map(|at| at.to_string())
}

fn resolved(known: &Known<'_>) -> Condition {
    let condition = |status, reason, message| Condition {
        kind: "Resolved",
        status,
        reason,
        message,
        now: known.now,
    };
    if known.resolved {
        let node = known.node.and_then(Scope::node_name).unwrap_or_default();
        return condition("True", "Resolved", format!("the device is at node {node}"));
    }
    let wrong: Vec<&Problem> = known
        .problems
        .iter()
        .filter(|problem| problem.severity != Severity::Info)
        .collect();
    let about = |field: &str| wrong.iter().any(|problem| problem.field.starts_with(field));
    let reason = if about("spec.deviceModelRef") {
        "NoModel"
    } else if about("spec.nodeName") || about("spec.nodeSelector") {
        "NoNode"
    } else {
        "Invalid"
    };
    condition("False", reason, messages(wrong.into_iter()))
}

/// `None`: nothing is known that could have changed it.
fn ready(known: &Known<'_>) -> Option<Condition> {
    let condition = |status, reason, message: String| {
        Some(Condition {
            kind: "Ready",
            status,
            reason,
            message,
            now: known.now,
        })
    };
    let state = known.device.state.as_ref();
    let said = state.map(|state| state.content.state.as_str());
    if known.behind == Behind::NotKnown && said.is_some() {
        return None;
    }
    if let Behind::Lost(_) = known.behind {
        let said = said.unwrap_or("nothing");
        return condition(
            "Unknown",
            "NodeUnreachable",
            format!("the node has no link to the cloud; it said last: {said}"),
        );
    }
    let message = state
        .map(|state| state.content.message.clone())
        .unwrap_or_default();
    match said {
        Some("online") => condition("True", "Online", message),
        Some("offline") => condition("False", "Offline", message),
        Some("unhealthy") => condition("False", "Unhealthy", message),
        Some(_) => condition("Unknown", "Unknown", message),
        None => condition(
            "Unknown",
            "NotReported",
            "the node has not said anything of it".to_owned(),
        ),
    }
}

/// What is wrong with a device that is told to its node all the same.
fn warning(known: &Known<'_>) -> Option<Condition> {
    let places = shape::unconverted(known.object);
    let wrong = known
        .problems
        .iter()
        .filter(|problem| known.resolved && problem.severity != Severity::Info);
    let wrong = messages(wrong);
    let mut condition = unconverted(&places);
    condition.now = known.now;
    match (places.is_empty(), wrong.is_empty()) {
        (true, true) => None,
        (false, true) => Some(condition),
        (true, false) => Some(Condition {
            reason: "Mistakes",
            message: wrong,
            ..condition
        }),
        (false, false) => Some(Condition {
            reason: "Mistakes",
            message: format!("{wrong}; {}", condition.message),
            ..condition
        }),
    }
}

/// That these places of an object have no effect.
pub(super) fn unconverted(places: &[String]) -> Condition {
    let places = places.join(", ");
    Condition {
        kind: "Warning",
        status: "True",
        reason: "NotConverted",
        message: format!(
            "no place in {}, kept in the annotation {}: {places}",
            ledge_crds::devices::VERSION,
            shape::UNCONVERTED
        ),
        now: SystemTime::now(),
    }
}

fn messages<'a>(problems: impl Iterator<Item = &'a Problem>) -> String {
    let mut all = problems.map(Problem::what).collect::<Vec<_>>().join("; ");
    if let Some((end, _)) = all.char_indices().nth(MESSAGE_MAX_CHARS) {
        all.truncate(end);
        all.push('…');
    }
    all
}

/// The conditions of an object.
pub(super) fn conditions_of(object: &Value) -> Vec<Value> {
    object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Puts the condition in; whether it was another one.
pub(super) fn set_condition(conditions: &mut Vec<Value>, wanted: Condition) -> bool {
    let Condition {
        kind,
        status,
        reason,
        message,
        now,
    } = wanted;
    let place = conditions.iter().position(|condition| condition["type"] == kind);
    let before = place.map(|place| &conditions[place]);
    let same = before.is_some_and(|before| {
        before["status"] == status && before["reason"] == reason && before["message"] == message.as_str()
    });
    if same {
        return false;
    }
    let since = before
        .filter(|before| before["status"] == status)
        .and_then(|before| before["lastTransitionTime"].as_str())
        .map_or_else(|| time(now), str::to_owned);
    let condition = json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    match place {
        Some(place) => conditions[place] = condition,
        None => conditions.push(condition),
    }
    true
}

fn remove_condition(conditions: &mut Vec<Value>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition["type"] != kind);
    conditions.len() != before
}

/// RFC 3339, in seconds.
pub(super) fn time(at: SystemTime) -> String {
    let us = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    time_us(us)
}

fn time_us(us: i64) -> String {
    // A clock beyond what the calendar can say is as wrong as one at its beginning.
    let at = Timestamp::from_second(us.div_euclid(1_000_000)).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_string()
}
