use proptest::prelude::*;
use serde_json::{Value, json};

use super::{UNCONVERTED, device, model, unconverted};

fn kept(object: &Value) -> Value {
    serde_json::from_str(object["metadata"]["annotations"][UNCONVERTED].as_str().unwrap()).unwrap()
}

#[test]
fn an_older_device_is_stored_as_a_newer_one() {
    let older = json!({
        "metadata": {"name": "d"},
        "spec": {
            "deviceModelRef": {"name": "m"},
            "protocol": {
                "modbus": {"slaveID": 1},
                "common": {"com": {"serialPort": "/dev/ttyUSB0", "baudRate": 9600}, "collectType": "sync"},
            },
            "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["edge-1"]},
            ]}]},
            "propertyVisitors": [
                {"propertyName": "t", "modbus": {"register": "holding", "offset": 2}, "collectCycle": 5000, "reportCycle": 9000},
                {"propertyName": "u", "customizedProtocol": {"protocolName": "x", "configData": {"a": 1}}, "customizedValues": {"b": 2}},
            ],
            "data": {"dataTopic": "x"},
        },
        "status": {"twins": [
            {"propertyName": "t", "desired": {"value": "21", "metadata": {"timestamp": "1"}}, "reported": {"value": "20"}},
            {"propertyName": "u", "desired": {"value": ""}},
        ]},
    });
    let stored = device(&older).object;
    let expected = json!({
        "deviceModelRef": {"name": "m"},
        "nodeName": "edge-1",
        "protocol": {
            "protocolName": "modbus",
            "configData": {
                "slaveID": 1, "communicateMode": "RTU", "serialPort": "/dev/ttyUSB0", "baudRate": 9600, "collectType": "sync",
            },
        },
        "properties": [
            {
                "name": "t",
                "visitors": {"protocolName": "modbus", "configData": {"register": "holding", "offset": 2}},
                "collectCycle": 5000,
                "reportCycle": 9000,
                "desired": {"value": "21", "metadata": {"timestamp": "1"}},
            },
            {"name": "u", "visitors": {"protocolName": "x", "configData": {"a": 1}}},
        ],
    });
    assert_eq!(stored["spec"], expected);
    assert_eq!(stored.get("status"), None);
    assert_eq!(
        kept(&stored),
        json!({
            "spec": {"data": {"dataTopic": "x"}, "propertyVisitors": {"u": {"customizedValues": {"b": 2}}}},
            "status": {"twins": [
                {"propertyName": "t", "reported": {"value": "20"}},
                {"propertyName": "u", "desired": {"value": ""}},
            ]},
        })
    );
    assert_eq!(
        unconverted(&stored),
        ["spec.data", "spec.propertyVisitors", "status.twins"]
    );
    assert!(!device(&stored).changed);
    // The manifest is applied again, over what is stored; somebody had wished for another value meanwhile.
    let mut again = stored.clone();
    for field in ["propertyVisitors", "nodeSelector", "data"] {
        again["spec"][field] = older["spec"][field].clone();
    }
    for field in ["modbus", "common"] {
        again["spec"]["protocol"][field] = older["spec"]["protocol"][field].clone();
    }
    assert_eq!(device(&again).object, stored);
}

#[test]
fn what_is_stored_already_stays_as_it_is() {
    let newer = json!({"metadata": {"name": "d"}, "spec": {
        "protocol": {"protocolName": "modbus", "configData": {"modbus": {"slaveID": 1}}},
        "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]},
        "properties": [{"name": "t", "visitors": {"configData": {"register": "holding"}}}],
    }, "status": {"state": "online"}});
    assert!(!device(&newer).changed);
}

#[test]
fn a_second_protocol_is_kept_aside_and_a_new_one_takes_the_place() {
    let two = json!({"spec": {"protocol": {"modbus": {"a": 1}, "mqtt": {"b": 2}}}});
    let stored = device(&two).object;
    assert_eq!(
        stored["spec"]["protocol"],
        json!({"protocolName": "modbus", "configData": {"a": 1}})
    );
    assert_eq!(kept(&stored), json!({"spec": {"protocol": {"mqtt": {"b": 2}}}}));
    let mut changed = stored;
    changed["spec"]["protocol"]["opcua"] = json!({"url": "u"});
    let stored = device(&changed).object;
    assert_eq!(
        stored["spec"]["protocol"],
        json!({"protocolName": "opcua", "configData": {"url": "u"}})
    );
    assert_eq!(
        kept(&stored)["spec"]["protocol"]["replaced"],
        json!({"protocolName": "modbus", "configData": {"a": 1}})
    );
}

#[test]
fn an_older_model_is_stored_as_a_newer_one() {
    let older = json!({"spec": {"properties": [
        {"name": "t", "description": "d", "type": {"double": {
            "accessMode": "ReadOnly", "minimum": -50, "maximum": 99.5, "unit": "C", "defaultValue": 1.5,
        }}},
        {"name": "u", "type": {"int": {"accessMode": "ReadWrite", "minimum": 0, "maximum": 0}}},
        {"name": "v", "type": "STRING"},
    ]}});
    let stored = model(&older).object;
    assert_eq!(
        stored["spec"]["properties"],
        json!([
            {"name": "t", "description": "d", "type": "DOUBLE", "accessMode": "ReadOnly", "minimum": "-50", "maximum": "99.5", "unit": "C"},
            {"name": "u", "type": "INT", "accessMode": "ReadWrite"},
            {"name": "v", "type": "STRING"},
        ])
    );
    assert_eq!(
        kept(&stored),
        json!({"spec": {"properties": {"t": {"defaultValue": 1.5}}}})
    );
    assert!(!model(&stored).changed);
}

/// Anything at all, made of the names that the shapes have.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..9).prop_map(Value::from),
        prop_oneof![
            Just("In"),
            Just("modbus"),
            Just("t"),
            Just(""),
            Just("kubernetes.io/hostname")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let name = prop_oneof![
            Just("spec"),
            Just("status"),
            Just("protocol"),
            Just("protocolName"),
            Just("configData"),
            Just("modbus"),
            Just("mqtt"),
            Just("common"),
            Just("com"),
            Just("tcp"),
            Just("customizedProtocol"),
            Just("properties"),
            Just("propertyVisitors"),
            Just("propertyName"),
            Just("name"),
            Just("twins"),
            Just("desired"),
            Just("value"),
            Just("nodeSelector"),
            Just("nodeSelectorTerms"),
            Just("matchExpressions"),
            Just("values"),
            Just("data"),
            Just("type"),
            Just("double"),
            Just("minimum"),
            Just("maximum"),
            Just("metadata"),
            Just("annotations"),
            Just(UNCONVERTED),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6).prop_map(|map| {
                map.into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_second_time_changes_nothing(spec in anything(), status in anything()) {
        let object = json!({"metadata": {"name": "d"}, "spec": spec, "status": status});
        for shaped in [device, model] {
            let once = shaped(&object).object;
            let twice = shaped(&once);
            prop_assert!(!twice.changed, "{} became {}", once, twice.object);
        }
    }
}
