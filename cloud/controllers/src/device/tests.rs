//! What devices look like in the API, from what is known of them.

use std::time::{Duration, SystemTime};

use ledge_proto::fold::view::{self, Latest};
use ledge_proto::ids::{Position, Scope};
use ledge_proto::v1;
use serde_json::{Value, json};

use super::Behind;
use super::status::{self, Known};

fn latest<T>(content: T, wall_s: i64) -> Latest<T> {
    Latest {
        content,
        position: Position::ZERO,
        wall_us: wall_s * 1_000_000,
        clock: v1::ClockQuality::ClockSynced,
        retimed: false,
        boot: 0,
        mono_us: 0,
        cause: None,
        count: 0,
    }
}

fn double(value: f64) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::Double(value)),
    })
}

fn pump() -> view::Device {
    let property = |name: &str| v1::DeviceProperty {
        name: name.to_owned(),
        data_type: v1::DataType::Double.into(),
        ..Default::default()
    };
    let twin = |reported: Option<(f64, i64)>, desired: Option<f64>| view::Twin {
        reported: reported.map(|(value, at)| latest(v1::TwinReported { value: double(value) }, at)),
        desired: desired.map(|value| latest(v1::TwinDesired { value: double(value) }, 50)),
        ..view::Twin::default()
    };
    view::Device {
        spec: Some(latest(
            v1::DeviceSpec {
                properties: vec![property("t"), property("u"), property("silent")],
                ..Default::default()
            },
            1,
        )),
        state: Some(latest(
            v1::DeviceState {
                state: "online".to_owned(),
                message: String::new(),
            },
            90,
        )),
        twins: [
            ("t".to_owned(), twin(Some((20.5, 100)), Some(21.0))),
            ("u".to_owned(), twin(None, Some(1.0))),
            ("of no property".to_owned(), twin(Some((1.0, 100)), None)),
        ]
        .into(),
    }
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

/// The device's status after what has to be patched was.
fn patched(object: &Value, known: impl FnOnce(&mut Known<'_>)) -> Value {
    let node = Scope::node("edge-1").unwrap();
    let device = pump();
    let mut of = Known {
        object,
        node: Some(&node),
        resolved: true,
        problems: &[],
        device: &device,
        behind: Behind::No,
        now: at(200),
    };
    known(&mut of);
    let patch = status::of_device(&of);
    let mut object = object.clone();
    for (name, value) in patch {
        object["status"][&name] = value;
    }
    object
}

#[test]
fn a_device_shows_where_it_is_and_how_it_is() {
    let first = patched(&json!({"metadata": {"name": "d"}}), |_| {});
    assert_eq!(
        first["status"],
        json!({
            "node": "edge-1",
            "state": "online",
            "lastOnlineTime": "1970-01-01T00:01:40Z",
            "reportedAt": "1970-01-01T00:01:40Z",
            "conditions": [
                {
                    "type": "Resolved", "status": "True", "reason": "Resolved", "message": "the device is at node edge-1",
                    "lastTransitionTime": "1970-01-01T00:03:20Z",
                },
                {
                    "type": "Ready", "status": "True", "reason": "Online", "message": "",
                    "lastTransitionTime": "1970-01-01T00:03:20Z",
                },
            ],
        })
    );
    // Later nothing is another: nothing is patched.
    assert_eq!(patched(&first, |known| known.now = at(999)), first);
    // The link is lost, and what is known of it does not move on by itself.
    let lost = patched(&first, |known| known.behind = Behind::Lost(at(300)));
    assert_eq!(lost["status"]["behindSince"], "1970-01-01T00:05:00Z");
    assert_eq!(lost["status"]["conditions"][1]["status"], "Unknown");
    assert_eq!(lost["status"]["conditions"][1]["reason"], "NodeUnreachable");
    assert_eq!(patched(&lost, |known| known.behind = Behind::Lost(at(301))), lost);
    // cloudcore starts again, and does not know yet.
    assert_eq!(patched(&lost, |known| known.behind = Behind::NotKnown), lost);
    let back = patched(&lost, |_| {});
    assert_eq!(back["status"]["behindSince"], Value::Null);
    assert_eq!(back["status"]["conditions"][1]["status"], "True");
}

#[test]
fn a_report_has_each_property_with_its_time_and_type() {
    let others = json!({"extensions": {"a": 1}, "twins": [{"propertyName": "gone"}]});
    let report = Value::Object(status::report(&pump(), &others));
    assert_eq!(
        report,
        json!({
            "twins": [
                {
                    "propertyName": "t",
                    "reported": {"value": "20.5", "metadata": {"timestamp": "100000", "type": "double"}},
                    "observedDesired": {"value": "21", "metadata": {"timestamp": "50000", "type": "double"}},
                },
                {
                    "propertyName": "u",
                    "observedDesired": {"value": "1", "metadata": {"timestamp": "50000", "type": "double"}},
                },
            ],
            "state": "online",
            "lastOnlineTime": "1970-01-01T00:01:40Z",
            "extensions": {"a": 1},
        })
    );
    let mut later = pump();
    later
        .twins
        .get_mut("t")
        .unwrap()
        .reported
        .as_mut()
        .unwrap()
        .wall_us += 60_000_000;
    let later = Value::Object(status::report(&later, &report));
    assert_ne!(later, report);
    assert_eq!(status::substance(&later), status::substance(&report));
}
