//! `Device`: `propertyVisitors`, protocols by the name of a member, a selector that names one node, desired values in the
//! status.

use serde_json::{Map, Value, json};

use super::{Leftover, Shaped, annotate, take, take_map};

/// Protocols that are members of `protocol` and of a visitor in the older shape.
const PROTOCOLS: [&str; 4] = ["modbus", "opcua", "bluetooth", "mqtt"];
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The device in the shape that is stored.
pub(crate) fn device(given: &Value) -> Shaped {
    let mut object = given.clone();
    let mut leftover = Leftover::default();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        protocol(spec, &mut leftover);
        node(spec);
        visitors(spec, &mut leftover);
        if let Some(data) = take(spec, "data") {
            leftover.keep(&["spec", "data"], data);
        }
    }
    desired(&mut object, &mut leftover);
    if !annotate(&mut object, leftover) {
        return Shaped {
            object: given.clone(),
            changed: false,
        };
    }
    let changed = object != *given;
    Shaped { object, changed }
}

/// `protocol.modbus` and `protocol.common` become `protocolName` and a flat `configData`.
fn protocol(spec: &mut Map<String, Value>, leftover: &mut Leftover) {
    let Some(protocol) = spec.get_mut("protocol").and_then(Value::as_object_mut) else {
        return;
    };
    let mut found = None;
    if let Some(mut custom) = take_map(protocol, "customizedProtocol") {
        let name = take(&mut custom, "protocolName");
        let config = take_map(&mut custom, "configData");
        if let Some(Value::String(name)) = name {
            found = Some((name, config.unwrap_or_default()));
        }
        for (field, value) in custom {
            leftover.keep(&["spec", "protocol", "customizedProtocol", &field], value);
        }
    }
    for name in PROTOCOLS {
        let Some(config) = take_map(protocol, name) else {
            continue;
        };
        if found.is_none() {
            found = Some((name.to_owned(), config));
        } else {
            leftover.keep(&["spec", "protocol", name], Value::Object(config));
        }
    }
    let common = take_map(protocol, "common");
    let (name, mut config) = match (found, &common) {
        (Some(found), _) => found,
        // `common` alone adds to what is stored.
        (None, Some(_)) => {
            let Some(name) = protocol.get("protocolName").and_then(Value::as_str) else {
                // Nobody says what it is common to.
                protocol.extend(common.map(|common| ("common".to_owned(), Value::Object(common))));
                return;
            };
            let name = name.to_owned();
            (name, take_map(protocol, "configData").unwrap_or_default())
        }
        (None, None) => return,
    };
    add_common(&mut config, common.unwrap_or_default());
    let before = protocol.insert("protocolName".to_owned(), json!(name));
    let old = protocol.insert("configData".to_owned(), Value::Object(config));
    if let (Some(before), Some(old)) = (before, old)
        && before != json!(name)
    {
        leftover.keep(
            &["spec", "protocol", "replaced"],
            json!({"protocolName": before, "configData": old}),
        );
    }
}

/// How a line is reached: in the older shape beside the protocol, one level deeper.
fn add_common(config: &mut Map<String, Value>, mut common: Map<String, Value>) {
    for (name, mode) in [("com", "RTU"), ("tcp", "TCP")] {
        // With both there is no telling which of them counts: they stay where they are.
        let other = if name == "com" { "tcp" } else { "com" };
        if common.contains_key(other) {
            continue;
        }
        let Some(inner) = take_map(&mut common, name) else {
            continue;
        };
        if !config.contains_key("communicateMode") && !common.contains_key("communicateMode") {
            config.insert("communicateMode".to_owned(), json!(mode));
        }
        add(config, inner);
    }
    add(config, common);
}

/// Adds what is not there; what is there and differs stays in a map of its own.
fn add(config: &mut Map<String, Value>, more: Map<String, Value>) {
    let mut differing = Map::new();
    for (name, value) in more {
        match config.get(&name) {
            None => {
                config.insert(name, value);
            }
            Some(there) if *there == value => {}
            Some(_) => {
                differing.insert(name, value);
            }
        }
    }
    if differing.is_empty() {
        return;
    }
    if let Some(common) = config
        .entry("common")
        .or_insert_with(|| json!({}))
        .as_object_mut()
    {
        common.extend(differing);
    }
}

/// A selector that names one node is its name. Other selectors are part of Ledge's own shape.
fn node(spec: &mut Map<String, Value>) {
    let Some(name) = spec.get("nodeSelector").and_then(one_node) else {
        return;
    };
    spec.remove("nodeSelector");
    spec.insert("nodeName".to_owned(), json!(name));
}

fn one_node(selector: &Value) -> Option<String> {
    let [term] = selector["nodeSelectorTerms"].as_array()?.as_slice() else {
        return None;
    };
    let of = |name: &str| term[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let (requirement, key) = match (of("matchExpressions"), of("matchFields")) {
        ([requirement], []) => (requirement, HOSTNAME),
        ([], [requirement]) => (requirement, "metadata.name"),
        _ => return None,
    };
    let one = requirement["values"].as_array()?.as_slice();
    match one {
        [Value::String(name)] if requirement["key"] == key && requirement["operator"] == "In" => {
            Some(name.clone())
        }
        _ => None,
    }
}

/// `propertyVisitors` become `properties`.
fn visitors(spec: &mut Map<String, Value>, leftover: &mut Leftover) {
    if !spec.get("propertyVisitors").is_some_and(Value::is_array) {
        return;
    }
    let Some(Value::Array(visitors)) = spec.remove("propertyVisitors") else {
        return;
    };
    let mut kept = Vec::new();
    for visitor in visitors {
        let name = visitor["propertyName"].as_str().unwrap_or_default().to_owned();
        let Value::Object(mut visitor) = visitor else {
            kept.push(visitor);
            continue;
        };
        if name.is_empty() {
            kept.push(Value::Object(visitor));
            continue;
        }
        visitor.remove("propertyName");
        let property = property(spec, &name);
        for cycle in ["collectCycle", "reportCycle"] {
            match take(&mut visitor, cycle) {
                Some(value) => property.insert(cycle.to_owned(), value),
                None => property.remove(cycle),
            };
        }
        if let Some((protocol, config)) = of_visitor(&mut visitor) {
            let visitors = json!({"protocolName": protocol, "configData": config});
            property.insert("visitors".to_owned(), visitors);
        }
        visitor.retain(|_, value| !value.is_null());
        if !visitor.is_empty() {
            leftover.keep(&["spec", "propertyVisitors", &name], Value::Object(visitor));
        }
    }
    if !kept.is_empty() {
        leftover.keep(&["spec", "propertyVisitors", ""], Value::Array(kept));
    }
}

/// The property of this name, made when there is none.
fn property<'a>(spec: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let list = spec.entry("properties").or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    let Value::Array(list) = list else {
        unreachable!("it was just made a list");
    };
    let found = list.iter().position(|one| one["name"] == name && one.is_object());
    let place = found.unwrap_or_else(|| {
        list.push(json!({"name": name}));
        list.len() - 1
    });
    match &mut list[place] {
        Value::Object(property) => property,
        _ => unreachable!("it was found, or made, as an object"),
    }
}

fn of_visitor(visitor: &mut Map<String, Value>) -> Option<(String, Map<String, Value>)> {
    if let Some(name) = visitor
        .get("customizedProtocol")
        .and_then(|custom| custom["protocolName"].as_str())
    {
        let name = name.to_owned();
        let mut custom = take_map(visitor, "customizedProtocol")?;
        let config = take_map(&mut custom, "configData").unwrap_or_default();
        custom.remove("protocolName");
        if !custom.is_empty() {
            visitor.insert("customizedProtocol".to_owned(), Value::Object(custom));
        }
        return Some((name, config));
    }
    let name = PROTOCOLS
        .into_iter()
        .find(|name| visitor.get(*name).is_some_and(Value::is_object))?;
    Some((name.to_owned(), take_map(visitor, name)?))
}

/// Desired values of the status become part of the properties; the rest of the twins has no place in the status.
fn desired(object: &mut Value, leftover: &mut Leftover) {
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else {
        return;
    };
    if !status.get("twins").is_some_and(Value::is_array) {
        return;
    }
    let Some(Value::Array(twins)) = status.remove("twins") else {
        return;
    };
    if status.is_empty()
        && let Some(object) = object.as_object_mut()
    {
        object.remove("status");
    }
    let mut kept = Vec::new();
    for mut twin in twins {
        let name = twin["propertyName"].as_str().unwrap_or_default().to_owned();
        let wish = twin["desired"]["value"]
            .as_str()
            .is_some_and(|text| !text.is_empty());
        let spec = object.get_mut("spec").and_then(Value::as_object_mut);
        if let (true, Some(spec)) = (wish && !name.is_empty(), spec)
            && let Some(twin) = twin.as_object_mut()
            && let Some(wish) = twin.remove("desired")
        {
            property(spec, &name).insert("desired".to_owned(), wish);
        }
        if twin
            .as_object()
            .is_some_and(|twin| twin.keys().any(|key| key != "propertyName"))
        {
            kept.push(twin);
        }
    }
    if !kept.is_empty() {
        leftover.keep(&["status", "twins"], Value::Array(kept));
    }
}
