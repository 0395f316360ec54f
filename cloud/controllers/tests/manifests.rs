//! Manifests as people have them: every file under `tests/manifests` is taken from a guide to KubeEdge.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;

use ledge_controllers::manifests::{KnownNodes, Objects, Severity, SourceFile, load, resolve};
use ledge_proto::v1;
use ledge_proto::v1::modbus_device::Transport;
use proptest::prelude::*;

fn fixtures() -> Vec<SourceFile> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let mut files: Vec<SourceFile> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            SourceFile {
                name,
                content: Ok(std::fs::read_to_string(path).unwrap()),
            }
        })
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

#[test]
fn the_directory_as_a_whole_loads() {
    let loaded = load(&Objects::default(), &fixtures());
    let keys: Vec<String> = loaded
        .objects
        .devices
        .keys()
        .chain(loaded.objects.models.keys())
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        keys,
        [
            "Device default/beta1-device",
            "Device default/modbustcp-device",
            "Device default/sensor-01",
            "Device default/temperature-sensor-01",
            "DeviceModel default/beta1-model",
            "DeviceModel default/modbus-sample-model",
            "DeviceModel default/modbus-temperature-model",
            "DeviceModel default/temperature-model",
        ]
    );
    let errors: Vec<String> = loaded
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        errors,
        [
            "device-mqtt-device-01.yaml:9: Device default/mqtt-device-01: spec.protocol.mqtt: \
             the protocol `mqtt` is not handled by this version (modbus is)",
            "device-mqtt-device-01.yaml:16: Device default/mqtt-device-01: spec.propertyVisitors[0].mqtt: \
             the protocol `mqtt` is not handled by this version (modbus is)",
        ]
    );
    let others = loaded
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Info && p.message.starts_with("not handled"));
    assert_eq!(
        others.count(),
        11,
        "one line for each file with objects for somebody else"
    );
}

#[test]
fn the_devices_reach_their_node() {
    let loaded = load(&Objects::default(), &fixtures());
    let assignments = resolve(&loaded.objects, &KnownNodes::default());
    assert_eq!(assignments.problems, []);
    let node = &assignments.nodes["edge-node-1"];
    assert_eq!(
        node.keys().collect::<Vec<_>>(),
        ["default/sensor-01", "default/temperature-sensor-01"]
    );

    let spec = &node["default/sensor-01"].spec;
    let modbus = spec.modbus.as_ref().unwrap();
    let rtu = v1::ModbusRtu {
        path: "/dev/ttyUSB0".into(),
        baud_rate: 9600,
        data_bits: 8,
        parity: "none".into(),
        stop_bits: 1,
    };
    assert_eq!(
        (modbus.unit_id, &modbus.transport),
        (1, &Some(Transport::Rtu(rtu)))
    );
    let threshold = &spec.properties[2];
    assert_eq!(
        (threshold.name.as_str(), threshold.writable),
        ("alarm_threshold", true)
    );
    assert_eq!(
        (threshold.minimum, threshold.maximum, threshold.unit.as_str()),
        (Some(0.0), Some(100.0), "Celsius")
    );
    assert_eq!(
        (threshold.collect_cycle_ms, threshold.report_cycle_ms),
        (60_000, 10_000)
    );
    let visitor = threshold.modbus.as_ref().unwrap();
    assert_eq!((visitor.offset, visitor.limit, visitor.scale), (10, 1, 0.1));
    assert!(
        node["default/temperature-sensor-01"].desired.is_empty(),
        "an empty desired value wishes nothing"
    );

    let older = &assignments.nodes["test"]["default/modbustcp-device"];
    let tcp = v1::ModbusTcp {
        host: "192.168.33.1".into(),
        port: 502,
    };
    assert_eq!(
        older.spec.modbus.as_ref().unwrap().transport,
        Some(Transport::Tcp(tcp))
    );
    let enable = v1::Value {
        value: Some(v1::value::Value::Int(0)),
    };
    assert_eq!(
        older.desired,
        BTreeMap::from([("temperature-enable".to_owned(), enable)])
    );

    let beta1 = &assignments.nodes["worker-node1"]["default/beta1-device"];
    let temp = v1::Value {
        value: Some(v1::value::Value::Int(30)),
    };
    assert_eq!(beta1.desired, BTreeMap::from([("temp".to_owned(), temp)]));
}

/// A manifest with one of its pieces replaced.
fn broken_manifest() -> impl Strategy<Value = String> {
    let text = fixtures()
        .into_iter()
        .filter(|file| file.name.contains("device"))
        .filter_map(|file| file.content.ok())
        .collect::<Vec<_>>()
        .join("\n---\n");
    let replacement = prop_oneof![
        Just("[".to_owned()),
        Just("{}".to_owned()),
        Just("-1".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("&a [*a]".to_owned()),
        Just("\n---\n".to_owned()),
        "\\PC{0,12}",
    ];
    (0..text.len(), 0usize..40, replacement).prop_map(move |(at, length, replacement)| {
        let floor = |mut i: usize| {
            i = i.min(text.len());
            while !text.is_char_boundary(i) {
                i -= 1;
            }
            i
        };
        let (start, end) = (floor(at), floor(at + length));
        format!("{}{replacement}{}", &text[..start], &text[end..])
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,300}") {
        let file = SourceFile { name: "f.yaml".into(), content: Ok(text) };
        let loaded = load(&Objects::default(), &[file]);
        resolve(&loaded.objects, &KnownNodes::default());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let file = SourceFile { name: "f.yaml".into(), content: Ok(String::from_utf8_lossy(&bytes).into_owned()) };
        let loaded = load(&Objects::default(), &[file]);
        resolve(&loaded.objects, &KnownNodes::default());
    }

    #[test]
    fn a_broken_manifest_never_takes_away_what_was_accepted(text in broken_manifest()) {
        let good = fixtures();
        let before = load(&Objects::default(), &good).objects;
        // The same directory, with one more file that repeats it all, broken somewhere.
        let mut files = good;
        files.push(SourceFile { name: "zz.yaml".into(), content: Ok(text.clone()) });
        let after = load(&before, &files).objects;
        for key in before.devices.keys() {
            prop_assert_eq!(after.devices.get(key), before.devices.get(key));
        }
        // Alone, it is whatever it is, without a panic, and everything it still mentions stays.
        let alone = load(&before, &[SourceFile { name: "a.yaml".into(), content: Ok(text) }]);
        resolve(&alone.objects, &KnownNodes::default());
    }
}
