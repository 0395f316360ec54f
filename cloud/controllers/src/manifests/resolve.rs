//! From objects and nodes to what each node is told.

use std::collections::{BTreeMap, BTreeSet};

use ledge_proto::v1;
use prost::Message;

use super::object::{
    Device, DeviceModel, DeviceProperty, Kind, ModelProperty, ObjectKey, Objects, Placement,
};
use super::problem::{Problem, Severity};
use super::value;

/// Largest description of a device, so that it fits a record with room to spare.
const SPEC_MAX_BYTES: usize = 1 << 20;

/// Enough said about one device.
const MAX_BAD_PROPERTIES: usize = 20;

/// Every node that has ever reported, with its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownNodes(pub BTreeMap<String, BTreeMap<String, String>>);

/// What every node is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignments {
    /// Per node, per device key (`namespace/name`).
    pub nodes: BTreeMap<String, BTreeMap<String, Assigned>>,
    /// Devices that are written down but cannot be resolved now: what was told about them stays.
    pub held: BTreeSet<String>,
    /// A file cannot be read: a device that is missing here may be in there.
    pub incomplete: bool,
    /// What there is to tell, besides what [`load`](super::load()) told.
    pub problems: Vec<Problem>,
}

/// A device as its node is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Assigned {
    /// The device with its model. Equal manifests give equal specs.
    pub spec: v1::DeviceSpec,
    /// Values wished for, by property.
    pub desired: BTreeMap<String, v1::Value>,
    /// Properties whose wish is there but wrong: what was told about them stays.
    pub held_desired: BTreeSet<String>,
}

impl Assignments {
    /// Whether a device that no node has here may be taken from the node that has it.
    pub fn may_remove(&self, device_key: &str) -> bool {
        !self.incomplete && !self.held.contains(device_key)
    }
}

/// Finds each device its node and its model. A device whose node is selected by labels goes to the first such node
/// by name; one that is assigned by name is assigned whether or not that node has ever been seen.
pub fn resolve(objects: &Objects, nodes: &KnownNodes) -> Assignments {
    let mut assignments = Assignments {
        incomplete: objects.incomplete,
        ..Assignments::default()
    };
    let devices = objects.refused.iter().filter(|key| key.kind == Kind::Device);
    assignments.held.extend(devices.map(ObjectKey::device_key));
    for (key, device) in &objects.devices {
        let mut told = Told {
            key,
            device,
            problems: &mut assignments.problems,
        };
        let Some(node) = place(device, nodes, &mut told) else {
            continue;
        };
        match specify(key, device, objects, &mut told) {
            Some(assigned) => {
                assignments
                    .nodes
                    .entry(node)
                    .or_default()
                    .insert(key.device_key(), assigned);
            }
            None => {
                assignments.held.insert(key.device_key());
            }
        }
    }
    assignments
}

/// Problems of one device.
struct Told<'a> {
    key: &'a ObjectKey,
    device: &'a Device,
    problems: &'a mut Vec<Problem>,
}

impl Told<'_> {
    fn tell(&mut self, severity: Severity, at: (&str, u32), message: String, hint: Option<String>) {
        let problem = Problem::of_object(self.key, &self.device.source, severity, message).at(at.0, at.1);
        self.problems.push(Problem {
            hint: hint.filter(|hint| !hint.is_empty()),
            ..problem
        });
    }

    fn error(&mut self, at: (&str, u32), message: String, hint: Option<String>) {
        self.tell(Severity::Error, at, message, hint);
    }
}

fn place(device: &Device, nodes: &KnownNodes, told: &mut Told<'_>) -> Option<String> {
    let line = device.source.line;
    match &device.placement {
        Placement::Node(name) => Some(name.clone()),
        Placement::Nowhere => {
            let message = "assigned to no node".to_owned();
            told.tell(
                Severity::Warning,
                ("spec.nodeName", line),
                message,
                Some("name one".to_owned()),
            );
            None
        }
        Placement::Select(selector) => {
            let none = BTreeMap::new();
            let named = selector
                .names()
                .filter(|name| selector.selects(name, nodes.0.get(*name).unwrap_or(&none)));
            let mut matching: BTreeSet<&str> = named.collect();
            if !selector.is_by_name() {
                let labelled = nodes
                    .0
                    .iter()
                    .filter(|(name, labels)| selector.selects(name, labels));
                matching.extend(labelled.map(|(name, _)| name.as_str()));
            }
            let at = ("spec.nodeSelector", line);
            let mut matching = matching.into_iter();
            let Some(first) = matching.next() else {
                let hint = "it waits for a node with such labels".to_owned();
                told.tell(
                    Severity::Warning,
                    at,
                    "no known node is selected".to_owned(),
                    Some(hint),
                );
                return None;
            };
            let others = matching.count();
            if others > 0 {
                let message = format!("{} nodes are selected: `{first}` has the device", others + 1);
                told.tell(
                    Severity::Warning,
                    at,
                    message,
                    Some("a device has one node".to_owned()),
                );
            }
            Some(first.to_owned())
        }
    }
}

/// `None` when something is wrong; it has been told.
fn specify(key: &ObjectKey, device: &Device, objects: &Objects, told: &mut Told<'_>) -> Option<Assigned> {
    let line = device.source.line;
    let model = find_model(key, device, objects, told)?;
    let modbus = match device.connection.complete(&model.connection) {
        Ok(modbus) => Some(modbus),
        Err((message, hint)) => {
            told.error(("spec.protocol", line), message, Some(hint));
            None
        }
    };
    let mut properties = Vec::with_capacity(device.properties.len());
    for (index, property) in device.properties.iter().enumerate() {
        properties.extend(specify_property(property, model, told));
        if properties.len() + MAX_BAD_PROPERTIES <= index {
            break;
        }
    }
    if properties.len() != device.properties.len() {
        return None;
    }
    let mut spec = v1::DeviceSpec {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        protocol: "modbus".to_owned(),
        modbus: Some(modbus?),
        properties,
        resource_version: String::new(),
    };
    if spec.encoded_len() > SPEC_MAX_BYTES {
        let message = format!(
            "its description has {} bytes, more than {SPEC_MAX_BYTES}",
            spec.encoded_len()
        );
        told.error(
            ("spec", line),
            message,
            Some("divide it into several devices".to_owned()),
        );
        return None;
    }
    spec.resource_version = content_version(&spec);
    let mut assigned = Assigned {
        spec,
        desired: BTreeMap::new(),
        held_desired: BTreeSet::new(),
    };
    wishes(device, &mut assigned, told);
    Some(assigned)
}

fn find_model<'a>(
    key: &ObjectKey,
    device: &Device,
    objects: &'a Objects,
    told: &mut Told<'_>,
) -> Option<&'a DeviceModel> {
    let wanted = ObjectKey {
        kind: Kind::DeviceModel,
        namespace: key.namespace.clone(),
        name: device.model.clone(),
    };
    let found = objects.models.get(&wanted);
    if found.is_none() {
        let at = ("spec.deviceModelRef.name", device.source.line);
        let (message, hint) = if objects.refused.contains(&wanted) {
            (format!("its model, {wanted}, has mistakes"), None)
        } else {
            let same = objects
                .models
                .keys()
                .filter(|model| model.namespace == key.namespace);
            let hint = ledge_yaml::names::hint(&device.model, same.map(|model| model.name.as_str()));
            (format!("its model, {wanted}, is missing"), hint)
        };
        told.error(at, message, hint);
    }
    found
}

fn specify_property(
    property: &DeviceProperty,
    model: &DeviceModel,
    told: &mut Told<'_>,
) -> Option<v1::DeviceProperty> {
    let Some(of_model) = model.properties.get(&property.name) else {
        let hint = ledge_yaml::names::hint(&property.name, model.properties.keys().map(String::as_str));
        let message = format!("the model has no property `{}`", property.name);
        told.error((&property.path, property.line), message, hint);
        return None;
    };
    let ModelProperty {
        data_type,
        writable,
        minimum,
        maximum,
        unit,
        visitor,
    } = of_model;
    let modbus = match property.visitor.complete(visitor, *data_type) {
        Ok(modbus) => modbus,
        Err((field, message, hint)) => {
            let path = format!("{} (property `{}`): {field}", property.path, property.name);
            told.error((&path, property.line), message, Some(hint));
            return None;
        }
    };
    Some(v1::DeviceProperty {
        name: property.name.clone(),
        data_type: (*data_type).into(),
        writable: *writable && super::modbus::is_writable(&modbus),
        minimum: *minimum,
        maximum: *maximum,
        unit: unit.clone(),
        collect_cycle_ms: property.collect_cycle_ms,
        report_cycle_ms: property.report_cycle_ms,
        modbus: Some(modbus),
        report_to_cloud: property.report_to_cloud,
    })
}

fn wishes(device: &Device, assigned: &mut Assigned, told: &mut Told<'_>) {
    for (property, specified) in device.properties.iter().zip(&assigned.spec.properties) {
        let Some(wish) = &property.desired else { continue };
        match value::desired(&wish.text, specified) {
            Ok(value) => {
                assigned.desired.insert(property.name.clone(), value);
            }
            Err((message, hint)) => {
                let message = format!("property `{}`: {message}", property.name);
                told.error((&wish.path, wish.line), message, hint);
                assigned.held_desired.insert(property.name.clone());
            }
        }
    }
}

/// Changes when, and only when, the content does.
fn content_version(spec: &v1::DeviceSpec) -> String {
    let hash = blake3::hash(&spec.encode_to_vec());
    hash.to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests;
