//! Records for people: values as text, payloads as JSON. What is shown here is the same in `ledge log cat` and in
//! SQL.

mod kube;

use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Map, Value as Json, json};

/// The name of a value's type: `double`, `int`, `string`, `bool` or `bytes`.
pub fn type_name(value: &v1::value::Value) -> &'static str {
    use v1::value::Value as V;
    match value {
        V::Double(_) => "double",
        V::Int(_) => "int",
        V::String(_) => "string",
        V::Bool(_) => "bool",
        V::Bytes(_) => "bytes",
    }
}

/// A value as text: numbers in their shortest form that reads back the same, bytes in hexadecimal.
pub fn text(value: &v1::value::Value) -> String {
    use v1::value::Value as V;
    match value {
        V::Double(number) => double_text(*number),
        V::Int(number) => number.to_string(),
        V::String(text) => text.clone(),
        V::Bool(yes) => yes.to_string(),
        V::Bytes(bytes) => hex::encode(bytes),
    }
}

/// A value as a number, when it is one.
#[allow(
    clippy::cast_precision_loss,
    reason = "integers beyond 2^53 keep their exact form in `text`"
)]
pub fn number(value: &v1::value::Value) -> Option<f64> {
    match value {
        v1::value::Value::Double(number) => Some(*number),
        v1::value::Value::Int(number) => Some(*number as f64),
        _ => None,
    }
}

fn double_text(number: f64) -> String {
    // Plain digits for the magnitudes people meet, an exponent beyond: 1e300 has 301 of them.
    if number == 0.0 || !number.is_finite() || (1e-5..1e16).contains(&number.abs()) {
        number.to_string()
    } else {
        format!("{number:e}")
    }
}

/// The content of an optional value.
pub fn inner(value: Option<&v1::Value>) -> Option<&v1::value::Value> {
    value.and_then(|value| value.value.as_ref())
}

/// A value as JSON. NaN and the infinities, which JSON lacks, are strings.
pub fn value_json(value: Option<&v1::Value>) -> Json {
    use v1::value::Value as V;
    match inner(value) {
        None => Json::Null,
        Some(V::Double(number)) => {
            serde_json::Number::from_f64(*number).map_or_else(|| json!(double_text(*number)), Json::Number)
        }
        Some(V::Int(number)) => json!(number),
        Some(V::String(text)) => json!(text),
        Some(V::Bool(yes)) => json!(yes),
        Some(V::Bytes(bytes)) => json!({ "bytes": hex::encode(bytes) }),
    }
}

/// A clock's quality in a word.
pub fn clock_name(clock: v1::ClockQuality) -> &'static str {
    match clock {
        v1::ClockQuality::ClockUnknown => "unknown",
        v1::ClockQuality::ClockSynced => "synced",
        v1::ClockQuality::ClockUnsynced => "unsynced",
        v1::ClockQuality::ClockBeforeBuild => "before-build",
    }
}

/// What a write came to, in a word.
pub fn outcome_name(outcome: v1::write_result::Outcome) -> &'static str {
    match outcome {
        v1::write_result::Outcome::Unknown => "unknown",
        v1::write_result::Outcome::Applied => "applied",
        v1::write_result::Outcome::Failed => "failed",
    }
}

/// A scope and lane as written on a command line, whatever numbers a record holds.
pub fn stream_name(scope: &str, lane: u32) -> String {
    let scope = if scope.is_empty() { "cluster" } else { scope };
    match ledge_proto::ids::Lane::from_wire(lane) {
        Ok(lane) => format!("{scope}/{lane}"),
        Err(_) => format!("{scope}/lane-{lane}"),
    }
}

/// A cause as `stream:epoch:seq`.
pub fn cause_text(cause: &v1::Cause) -> String {
    format!(
        "{}:{}:{}",
        stream_name(&cause.scope, cause.lane),
        cause.epoch,
        cause.seq
    )
}

/// A payload as a JSON object with the fields of its message; a lone value where the message is one.
pub fn json(payload: &Payload) -> Json {
    match payload {
        Payload::Sample(v1::Sample { value })
        | Payload::TwinReported(v1::TwinReported { value })
        | Payload::TwinDesired(v1::TwinDesired { value }) => json!({ "value": value_json(value.as_ref()) }),
        Payload::DeviceEvent(event) | Payload::DaemonEvent(event) => {
            json!({ "reason": event.reason, "message": event.message })
        }
        Payload::Gap(gap) => json!({
            "stream": stream_name(&gap.scope, gap.lane), "epoch": gap.epoch,
            "first_seq": gap.first_seq, "last_seq": gap.last_seq, "reason": gap.reason,
            "count": gap.count, "replaced_by": replacement_name(gap.replaced_by()),
        }),
        Payload::WriteIntent(intent) => json!({
            "value": value_json(intent.value.as_ref()), "desired": position_json(intent.desired.as_ref()),
        }),
        Payload::SampleSummary(summary) => json!({
            "from_us": summary.from_us, "to_us": summary.to_us, "count": summary.count,
            "min": summary.min, "max": summary.max, "mean": summary.mean,
            "last": value_json(summary.last.as_ref()), "method": replacement_name(summary.method()),
        }),
        Payload::SampleRun(run) => json!({
            "value": value_json(run.value.as_ref()), "count": run.count, "span_us": run.span_us,
            "longest_us": run.longest_us,
        }),
        Payload::ClockSync(sync) => json!({
            "boot": sync.boot, "mono_us": sync.mono_us, "wall_us": sync.wall_us, "before_us": sync.before_us,
        }),
        // A token's nonce is for the two ends alone.
        Payload::NodeFence(fence) => json!({
            "incarnation": hex(&fence.incarnation), "session": counter(fence.current.as_ref()),
            "confirmed": fence.confirmed, "epoch": fence.epoch, "restore_generation": fence.restore_generation,
            "quarantine": fence.quarantine.as_ref().map(|why| json!({
                "reason": why.reason, "message": why.message, "since_us": why.since_us,
            })),
        }),
        Payload::EdgeFence(fence) => json!({
            "session": counter(fence.token.as_ref()), "cloud_epoch": fence.max_cloud_epoch_seen,
            "restore_generation": fence.restore_generation_seen,
        }),
        Payload::CloudFence(fence) => json!({
            "cloud_epoch": fence.cloud_epoch, "restore_generation": fence.restore_generation,
        }),
        Payload::WriteResult(result) => {
            let mut fields = json!({
                "value": value_json(result.value.as_ref()), "desired": position_json(result.desired.as_ref()),
                "outcome": outcome_name(result.outcome()),
            });
            if !result.error.is_empty() {
                fields["error"] = json!(result.error);
            }
            fields
        }
        Payload::DeviceState(state) => json!({ "state": state.state, "message": state.message }),
        Payload::NodeState(state) => {
            // A hash map's order is random; a JSON object's is not.
            let labels: Map<String, Json> = state.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            json!({ "version": state.version, "boot_id": state.boot_id, "labels": labels })
        }
        Payload::DeviceSpec(spec) => device_spec_json(spec),
        Payload::DeviceRemoved => json!({}),
        Payload::Unknown(kind) => json!({ "unknown_kind": kind }),
        kubernetes => kube::json(kubernetes),
    }
}

fn counter(token: Option<&v1::SessionToken>) -> u64 {
    token.map_or(0, |token| token.counter)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was kept of dropped samples, in words.
pub fn replacement_name(replacement: v1::Replacement) -> &'static str {
    match replacement {
        v1::Replacement::None => "nothing",
        v1::Replacement::MinuteAverages => "minute averages",
        v1::Replacement::LastValue => "last value",
    }
}

fn position_json(position: Option<&v1::StreamPosition>) -> Json {
    position.map_or(Json::Null, |at| json!({ "epoch": at.epoch, "seq": at.seq }))
}

fn device_spec_json(spec: &v1::DeviceSpec) -> Json {
    let properties: Vec<Json> = spec
        .properties
        .iter()
        .map(|property| {
            json!({
                "name": property.name,
                "type": property.data_type().as_str_name().to_lowercase(),
                "writable": property.writable,
                "unit": property.unit,
                "collect_cycle_ms": property.collect_cycle_ms,
                "report_cycle_ms": property.report_cycle_ms,
                "report_to_cloud": property.report_to_cloud,
            })
        })
        .collect();
    json!({
        "namespace": spec.namespace, "name": spec.name, "protocol": spec.protocol,
        "address": address(spec), "resource_version": spec.resource_version, "properties": properties,
    })
}

/// How a device is reached, on one line.
pub fn address(spec: &v1::DeviceSpec) -> Option<String> {
    use v1::modbus_device::Transport;
    let modbus = spec.modbus.as_ref()?;
    Some(match modbus.transport.as_ref()? {
        Transport::Tcp(tcp) => format!("tcp {}:{} unit {}", tcp.host, tcp.port, modbus.unit_id),
        Transport::Rtu(rtu) => format!("rtu {} {} baud unit {}", rtu.path, rtu.baud_rate, modbus.unit_id),
    })
}

/// A payload on one line for people: the value alone where there is nothing else.
pub fn line(payload: &Payload) -> String {
    let value = |value: &Option<v1::Value>| inner(value.as_ref()).map_or_else(|| "-".to_owned(), text);
    match payload {
        Payload::Sample(v1::Sample { value: it })
        | Payload::TwinReported(v1::TwinReported { value: it })
        | Payload::TwinDesired(v1::TwinDesired { value: it })
        | Payload::WriteIntent(v1::WriteIntent { value: it, .. }) => value(it),
        Payload::DeviceEvent(event) | Payload::DaemonEvent(event) => words(&event.reason, &event.message),
        Payload::Gap(gap) => format!(
            "{} records {} to {} dropped: {}",
            stream_name(&gap.scope, gap.lane),
            gap.first_seq,
            gap.last_seq,
            gap.reason
        ),
        Payload::SampleSummary(summary) => {
            format!("{} samples, the last {}", summary.count, value(&summary.last))
        }
        Payload::SampleRun(run) => format!("{} {} times", value(&run.value), run.count),
        Payload::ClockSync(sync) => format!("clock set from {} to {} µs", sync.before_us, sync.wall_us),
        Payload::NodeFence(fence) => {
            let session = format!("session {}", counter(fence.current.as_ref()));
            let why = fence
                .quarantine
                .as_ref()
                .map(|why| format!("quarantine: {} {}", why.reason, why.message));
            words(&session, &why.unwrap_or_default())
        }
        Payload::EdgeFence(fence) => {
            format!(
                "session {} with cloud epoch {}",
                counter(fence.token.as_ref()),
                fence.max_cloud_epoch_seen
            )
        }
        Payload::CloudFence(fence) => {
            format!(
                "cloud epoch {} restore generation {}",
                fence.cloud_epoch, fence.restore_generation
            )
        }
        Payload::WriteResult(result) => {
            let outcome = format!("{} {}", value(&result.value), outcome_name(result.outcome()));
            words(&outcome, &result.error)
        }
        Payload::DeviceState(state) => words(&state.state, &state.message),
        Payload::NodeState(state) => format!("version {} boot {}", state.version, state.boot_id),
        Payload::DeviceSpec(spec) => format!(
            "{} {} with {} properties",
            spec.protocol,
            address(spec).unwrap_or_default(),
            spec.properties.len()
        ),
        Payload::DeviceRemoved => "removed".to_owned(),
        Payload::Unknown(kind) => format!("kind {kind} of a later version"),
        kubernetes => kube::line(kubernetes),
    }
}

fn words(first: &str, rest: &str) -> String {
    if rest.is_empty() {
        first.to_owned()
    } else {
        format!("{first}: {rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_the_same_and_stay_short() {
        for (number, shown) in [
            (20.5, "20.5"),
            (20.0, "20"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e300, "1e300"),
            (-1e-9, "-1e-9"),
            (0.0, "0"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(double_text(number), shown);
            if !number.is_nan() {
                assert_eq!(shown.parse::<f64>().unwrap(), number);
            }
        }
    }

    #[test]
    fn every_kind_has_a_line_and_json() {
        for kind in ledge_proto::record::RecordKind::ALL {
            let record = v1::Record {
                kind: kind.as_wire(),
                ..Default::default()
            };
            let payload = Payload::decode(&record).unwrap();
            assert!(json(&payload).is_object(), "{}", kind.name());
            assert!(!line(&payload).contains('\n'));
        }
    }

    #[test]
    fn json_has_no_nan_so_it_becomes_text() {
        let value = v1::Value {
            value: Some(v1::value::Value::Double(f64::NAN)),
        };
        assert_eq!(value_json(Some(&value)), json!("NaN"));
    }
}
