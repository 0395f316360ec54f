//! `Device`, both shapes: KubeEdge v1beta1 (`properties`, `protocol.configData`, `nodeName`), and v1alpha2
//! (`propertyVisitors`, `protocol.modbus`, `nodeSelector`, `status.twins`), which is also found under v1beta1.

use std::collections::{BTreeMap, BTreeSet};

use ledge_proto::ids::Scope;
use ledge_yaml::units::shown;
use ledge_yaml::{Node, names};

use super::fields::{Faults, Fields, MAX_HINTS};
use super::modbus::{Connection, Visitor};
use super::object::{Desired, Device, DeviceProperty, Placement, Source};
use super::selector::NodeSelector;

const DEFAULT_COLLECT_CYCLE_MS: u64 = 1_000;
const DEFAULT_REPORT_CYCLE_MS: u64 = 10_000;
const SHORTEST_CYCLE_MS: i64 = 10;
const LONGEST_CYCLE_MS: i64 = 24 * 60 * 60 * 1000;
/// KubeEdge's own limit on the name of a twin.
const PROPERTY_NAME_MAX_BYTES: usize = 128;

/// Decodes `spec` and the desired part of `status` of a Device.
pub(super) fn decode(mut object: Fields<'_>, source: Source, faults: &mut Faults) -> Device {
    let mut device = Device {
        source,
        model: String::new(),
        placement: Placement::Nowhere,
        connection: Connection::default(),
        properties: Vec::new(),
    };
    let mut wishes = object
        .map("status", faults)
        .map(|status| twins(status, faults))
        .unwrap_or_default();
    let Some(mut spec) = object.map("spec", faults) else {
        faults.error(object.line, "spec", "missing");
        object.finish(faults);
        return device;
    };
    if let Some(mut reference) = spec.map("deviceModelRef", faults) {
        device.model = reference
            .required_text("name", faults)
            .unwrap_or_default()
            .to_owned();
        reference.skip(&["namespace"]);
        reference.finish(faults);
    } else {
        faults.error_with_hint(
            spec.line,
            &spec.path_of("deviceModelRef"),
            "missing",
            "name the device's model",
        );
    }
    device.placement = placement(&mut spec, faults);
    match spec.map("protocol", faults) {
        Some(fields) => protocol(fields, &mut device.connection, faults),
        None => faults.error(spec.line, &spec.path_of("protocol"), "missing"),
    }
    for (path, item) in spec.list("properties", faults) {
        device.properties.extend(property(item, path, faults));
    }
    for (path, item) in spec.list("propertyVisitors", faults) {
        device.properties.extend(property_visitor(item, path, faults));
    }
    spec.without_effect(&["methods", "stateReport", "data"], faults);
    let mut seen = BTreeSet::new();
    for property in &mut device.properties {
        if !seen.insert(property.name.clone()) {
            let message = format!("the property `{}` is there twice", property.name);
            faults.error(property.line, &property.path, message);
        }
        let wish = wishes.remove(&property.name);
        property.desired = property.desired.take().or(wish);
    }
    for (name, wish) in wishes.into_iter().take(MAX_HINTS) {
        let message = format!("the device has no property `{}`", shown(&name));
        let hint = names::hint(&name, seen.iter().map(String::as_str)).unwrap_or_default();
        faults.error_with_hint(wish.line, &wish.path, message, hint);
    }
    spec.finish(faults);
    object.finish(faults);
    device
}

fn placement(spec: &mut Fields<'_>, faults: &mut Faults) -> Placement {
    let name = spec.text("nodeName", faults);
    let selector = spec
        .take("nodeSelector")
        .map(|node| NodeSelector::decode(node, spec.path_of("nodeSelector"), faults));
    match (name, selector) {
        (Some(name), _) => {
            if let Err(err) = Scope::node(name) {
                faults.error(
                    spec.line_of("nodeName"),
                    &spec.path_of("nodeName"),
                    err.to_string(),
                );
            }
            Placement::Node(name.to_owned())
        }
        (None, Some(selector)) => Placement::Select(selector),
        (None, None) => Placement::Nowhere,
    }
}

fn protocol(mut fields: Fields<'_>, connection: &mut Connection, faults: &mut Faults) {
    if let Some(name) = fields.text("protocolName", faults) {
        let line = fields.line_of("protocolName");
        check_protocol(name, line, &fields.path_of("protocolName"), faults);
        if let Some(config) = fields.map("configData", faults) {
            connection.decode(config, faults);
        }
        fields.finish(faults);
        return;
    }
    let mut named = false;
    if let Some(inner) = fields.map("modbus", faults) {
        named = true;
        connection.decode(inner, faults);
    }
    if let Some(inner) = fields.map("common", faults) {
        connection.decode(inner, faults);
    }
    if let Some(inner) = fields.map("customizedProtocol", faults) {
        named = true;
        protocol(inner, connection, faults);
    }
    for other in ["mqtt", "opcua", "bluetooth"] {
        if let Some(node) = fields.take(other) {
            named = true;
            check_protocol(other, node.line, &fields.path_of(other), faults);
        }
    }
    let (line, path) = (fields.line, fields.path.clone());
    if !named {
        faults.error_with_hint(
            line,
            &path,
            "the protocol has no name",
            "add protocolName: modbus",
        );
    }
    fields.finish(faults);
}

/// A property of v1beta1.
fn property(node: &Node, path: String, faults: &mut Faults) -> Option<DeviceProperty> {
    let mut fields = Fields::of(node, path, faults);
    let name = fields.required_text("name", faults);
    let mut visitor = Visitor::default();
    if let Some(mut visitors) = fields.map("visitors", faults) {
        if let Some(protocol) = visitors.text("protocolName", faults) {
            let line = visitors.line_of("protocolName");
            check_protocol(protocol, line, &visitors.path_of("protocolName"), faults);
        }
        if let Some(config) = visitors.map("configData", faults) {
            visitor.decode(config, faults);
        }
        visitors.finish(faults);
    }
    let desired = fields
        .map("desired", faults)
        .and_then(|desired| wish(desired, faults));
    // KubeEdge's API cannot tell an absent `reportToCloud` from a false one. Here a report is kept from the cloud
    // only where the manifest says so.
    let report_to_cloud = fields.boolean("reportToCloud", faults).unwrap_or(true);
    let property = rest_of_property(&mut fields, name, visitor, faults);
    fields.without_effect(&["pushMethod"], faults);
    fields.finish(faults);
    property.map(|property| DeviceProperty {
        desired,
        report_to_cloud,
        ..property
    })
}

/// A property of v1alpha2. Its desired value is in the object's status.
fn property_visitor(node: &Node, path: String, faults: &mut Faults) -> Option<DeviceProperty> {
    let mut fields = Fields::of(node, path, faults);
    let name = fields.required_text("propertyName", faults);
    let mut visitor = Visitor::default();
    let mut named = false;
    if let Some(inner) = fields.map("modbus", faults) {
        named = true;
        visitor.decode(inner, faults);
    }
    if let Some(mut custom) = fields.map("customizedProtocol", faults) {
        named = true;
        if let Some(protocol) = custom.text("protocolName", faults) {
            let line = custom.line_of("protocolName");
            check_protocol(protocol, line, &custom.path_of("protocolName"), faults);
        }
        if let Some(config) = custom.map("configData", faults) {
            visitor.decode(config, faults);
        }
        custom.finish(faults);
    }
    for other in ["mqtt", "opcua", "bluetooth"] {
        if let Some(node) = fields.take(other) {
            named = true;
            check_protocol(other, node.line, &fields.path_of(other), faults);
        }
    }
    if !named {
        faults.error_with_hint(
            fields.line,
            &fields.path,
            "the visitor has no protocol",
            "add modbus",
        );
    }
    let property = rest_of_property(&mut fields, name, visitor, faults);
    fields.without_effect(&["customizedValues"], faults);
    fields.finish(faults);
    property
}

/// What both shapes have: a name that was already read, and two cycles.
fn rest_of_property(
    fields: &mut Fields<'_>,
    name: Option<&str>,
    visitor: Visitor,
    faults: &mut Faults,
) -> Option<DeviceProperty> {
    let (path, line) = (fields.path.clone(), fields.line);
    let (collect_cycle_ms, report_cycle_ms) = cycles(fields, faults);
    let name = name?.to_owned();
    check_property_name(&name, line, &path, faults);
    Some(DeviceProperty {
        name,
        path,
        line,
        visitor,
        collect_cycle_ms,
        report_cycle_ms,
        report_to_cloud: true,
        desired: None,
    })
}

fn cycles(fields: &mut Fields<'_>, faults: &mut Faults) -> (u64, u64) {
    let mut cycle = |name: &'static str, default: u64| -> u64 {
        let Some(value) = fields.int(name, 0..=i64::MAX, faults) else {
            return default;
        };
        // KubeEdge's 0 means the default.
        if value == 0 {
            return default;
        }
        if !(SHORTEST_CYCLE_MS..=LONGEST_CYCLE_MS).contains(&value) {
            let message =
                format!("{value} ms is out of range: from {SHORTEST_CYCLE_MS} ms to {LONGEST_CYCLE_MS} ms");
            let path = fields.path_of(name);
            if value > LONGEST_CYCLE_MS && value % 1_000_000 == 0 {
                let hint = format!(
                    "if that was in nanoseconds, as before v1beta1, write {}",
                    value / 1_000_000
                );
                faults.error_with_hint(fields.line, &path, message, hint);
            } else {
                faults.error(fields.line, &path, message);
            }
        }
        value.unsigned_abs()
    };
    (
        cycle("collectCycle", DEFAULT_COLLECT_CYCLE_MS),
        cycle("reportCycle", DEFAULT_REPORT_CYCLE_MS),
    )
}

/// `{value, metadata}`; an empty value wishes nothing.
fn wish(mut fields: Fields<'_>, faults: &mut Faults) -> Option<Desired> {
    let node = fields.take("value");
    let path = fields.path_of("value");
    fields.skip(&["metadata"]);
    fields.finish(faults);
    let node = node?;
    let Some(text) = node.text() else {
        faults.error(
            node.line,
            &path,
            format!("expected a text, found {}", node.describe()),
        );
        return None;
    };
    (!text.is_empty()).then(|| Desired {
        text: text.to_owned(),
        path,
        line: node.line,
    })
}

/// Desired values of v1alpha2. Everything else in a status is what KubeEdge wrote there, and is passed over.
fn twins(mut status: Fields<'_>, faults: &mut Faults) -> BTreeMap<String, Desired> {
    let mut wishes = BTreeMap::new();
    for (path, item) in status.list("twins", faults) {
        let mut twin = Fields::of(item, path, faults);
        let name = twin.text("propertyName", faults);
        let desired = twin
            .map("desired", faults)
            .and_then(|desired| wish(desired, faults));
        if let (Some(name), Some(desired)) = (name, desired) {
            wishes.insert(name.to_owned(), desired);
        }
    }
    wishes
}

/// Only Modbus is handled by this version.
pub(super) fn check_protocol(name: &str, line: u32, path: &str, faults: &mut Faults) {
    if name.eq_ignore_ascii_case("modbus") {
        return;
    }
    match names::closest(name, ["modbus"]) {
        Some(meant) => {
            let message = format!("unknown protocol `{}`", shown(name));
            faults.error_with_hint(line, path, message, format!("did you mean `{meant}`?"));
        }
        None => {
            let message = format!("the protocol `{}` is not handled by this version", shown(name));
            faults.error_with_hint(line, path, message, "modbus is");
        }
    }
}

/// A property's name becomes part of a key, and of an MQTT payload with KubeEdge's rules.
pub(super) fn check_property_name(name: &str, line: u32, path: &str, faults: &mut Faults) {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.,:@#".contains(&b);
    if name.len() > PROPERTY_NAME_MAX_BYTES || !name.bytes().all(allowed) {
        let message = format!("`{}` cannot be a property's name", shown(name));
        faults.error_with_hint(line, path, message, "up to 128 letters, digits and -_.,:@#");
    }
}
