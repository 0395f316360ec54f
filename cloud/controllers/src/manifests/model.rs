//! `DeviceModel`, both shapes.

use std::collections::BTreeMap;

use ledge_proto::v1::DataType;
use ledge_yaml::Node;

use super::device::{check_property_name, check_protocol};
use super::fields::{Faults, Fields, finite_number};
use super::modbus::{Connection, Visitor};
use super::object::{DeviceModel, ModelProperty, Source};

const TYPES: [(&str, DataType); 7] = [
    ("INT", DataType::Int),
    ("FLOAT", DataType::Float),
    ("DOUBLE", DataType::Double),
    ("STRING", DataType::String),
    ("BOOLEAN", DataType::Boolean),
    ("BYTES", DataType::Bytes),
    ("STREAM", DataType::Stream),
];

/// Decodes the `spec` of a DeviceModel.
pub(super) fn decode(mut object: Fields<'_>, source: Source, faults: &mut Faults) -> DeviceModel {
    let mut model = DeviceModel {
        source,
        connection: Connection::default(),
        properties: BTreeMap::new(),
    };
    if let Some(mut spec) = object.map("spec", faults) {
        let protocol = spec.text("protocol", faults);
        if let Some(protocol) = protocol {
            check_protocol(protocol, spec.line, &spec.path_of("protocol"), faults);
        }
        if let Some(fields) = spec.map("protocolConfigData", faults) {
            model.connection.decode(fields, faults);
        }
        for (path, item) in spec.list("properties", faults) {
            let Some((name, property)) = property(item, &path, faults) else {
                continue;
            };
            if model.properties.insert(name.clone(), property).is_some() {
                faults.error(item.line, &path, format!("the property `{name}` is there twice"));
            }
        }
        spec.finish(faults);
    } else {
        faults.error(object.line, "spec", "missing");
    }
    object.skip(&["status"]);
    object.finish(faults);
    model
}

fn property(node: &Node, path: &str, faults: &mut Faults) -> Option<(String, ModelProperty)> {
    let mut fields = Fields::of(node, path, faults);
    let name = fields.required_text("name", faults);
    if let Some(name) = name {
        check_property_name(name, fields.line, &fields.path_of("name"), faults);
    }
    fields.skip(&["description"]);
    let mut property = ModelProperty {
        data_type: DataType::Unspecified,
        writable: false,
        minimum: None,
        maximum: None,
        unit: String::new(),
        visitor: Visitor::default(),
    };
    match fields.take("type") {
        None => faults.error(fields.line, &fields.path_of("type"), "missing"),
        // v1alpha2: the type is the name of a map.
        Some(node) if node.map().is_some() => {
            older_type(node, &fields.path_of("type"), &mut property, faults)
        }
        Some(node) => {
            let text = node.text().unwrap_or_default();
            match TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
                Some((_, data_type)) => property.data_type = *data_type,
                None => unknown_type(text, node.line, &fields.path_of("type"), faults),
            }
        }
    }
    access_and_range(&mut fields, false, &mut property, faults);
    if let Some(mut visitors) = fields.map("visitors", faults) {
        if let Some(protocol) = visitors.text("protocolName", faults) {
            check_protocol(protocol, visitors.line, &visitors.path_of("protocolName"), faults);
        }
        if let Some(config) = visitors.map("configData", faults) {
            property.visitor.decode(config, faults);
        }
        visitors.finish(faults);
    }
    fields.finish(faults);
    name.map(|name| (name.to_owned(), property))
}

fn older_type(node: &Node, path: &str, property: &mut ModelProperty, faults: &mut Faults) {
    let [(name, inner)] = node.map().unwrap_or_default() else {
        faults.error(node.line, path, "expected exactly one type");
        return;
    };
    match TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((_, data_type)) => property.data_type = *data_type,
        None => unknown_type(name, inner.line, path, faults),
    }
    let mut fields = Fields::of(inner, format!("{path}.{name}"), faults);
    access_and_range(&mut fields, true, property, faults);
    fields.without_effect(&["defaultValue"], faults);
    fields.finish(faults);
}

/// `accessMode`, `minimum`, `maximum`, `unit`: in the property itself, or in its type.
fn access_and_range(fields: &mut Fields<'_>, older: bool, property: &mut ModelProperty, faults: &mut Faults) {
    if let Some(mode) = fields.text("accessMode", faults) {
        match mode {
            "ReadWrite" => property.writable = true,
            "ReadOnly" => property.writable = false,
            _ => {
                let hint = ledge_yaml::names::hint(mode, ["ReadWrite", "ReadOnly"]).unwrap_or_default();
                let message = format!("unknown access mode `{}`", ledge_yaml::units::shown(mode));
                faults.error_with_hint(fields.line, &fields.path_of("accessMode"), message, hint);
            }
        }
    }
    let line = fields.line;
    let mut bound = |name: &'static str| {
        let text = fields.text(name, faults)?;
        let value = finite_number(text);
        if value.is_none() {
            let message = format!("`{}` is not a number", ledge_yaml::units::shown(text));
            faults.error(line, &fields.path_of(name), message);
        }
        value
    };
    let (mut minimum, mut maximum) = (bound("minimum"), bound("maximum"));
    // The older API has no "unset": both at 0 is how it writes a property without a range.
    if older && minimum.unwrap_or(0.0) == 0.0 && maximum == Some(0.0) {
        (minimum, maximum) = (None, None);
    }
    if let (Some(low), Some(high)) = (minimum, maximum)
        && low > high
    {
        faults.error(
            line,
            &fields.path_of("minimum"),
            format!("{low} is above the maximum, {high}"),
        );
    }
    property.minimum = property.minimum.or(minimum);
    property.maximum = property.maximum.or(maximum);
    if let Some(unit) = fields.text("unit", faults) {
        property.unit = unit.to_owned();
    }
}

fn unknown_type(text: &str, line: u32, path: &str, faults: &mut Faults) {
    let hint = ledge_yaml::names::hint(text, TYPES.map(|(name, _)| name)).unwrap_or_default();
    let message = format!("unknown type `{}`", ledge_yaml::units::shown(text));
    faults.error_with_hint(line, path, message, hint);
}
