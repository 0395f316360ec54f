//! What devices and operators do: records whose content says which they are.

use ledge_log::storage::sim::Rng;
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Lane, Seq};
use ledge_proto::record::Payload;
use ledge_proto::v1;

use super::violation::{Checked, Violation, ensure};

/// Different devices of one node.
const DEVICES: u64 = 3;
/// Most bytes of text that make a record longer.
const PADDING: u64 = 400;

/// When something happened, as a machine's clocks say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) wall_us: i64,
    pub(super) mono_us: u64,
    pub(super) boot: u32,
}

/// One record for `lane`. Its value is `id`.
pub(super) fn record(rng: &mut Rng, lane: Lane, id: u64, at: Moment) -> v1::Record {
    let value = Some(v1::Value {
        value: Some(v1::value::Value::Int(i64::try_from(id).unwrap_or(i64::MAX))),
    });
    let device = format!("default/device-{}", rng.below(DEVICES));
    let property = format!("{device}/property-{}", rng.below(DEVICES));
    let (key, payload) = match lane {
        Lane::Down => match rng.below(8) {
            0 => (
                device,
                Payload::DeviceSpec(Box::new(v1::DeviceSpec {
                    resource_version: id.to_string(),
                    ..Default::default()
                })),
            ),
            1 => (device, Payload::DeviceRemoved),
            _ => (property, Payload::TwinDesired(v1::TwinDesired { value })),
        },
        Lane::UpState => match rng.below(4) {
            0 => (
                device,
                Payload::DeviceState(v1::DeviceState {
                    state: "online".to_owned(),
                    message: id.to_string(),
                }),
            ),
            _ => (property, Payload::TwinReported(v1::TwinReported { value })),
        },
        Lane::UpData | Lane::Local | Lane::Api => match rng.below(8) {
            0 => (
                device,
                Payload::DeviceEvent(v1::Event {
                    reason: id.to_string(),
                    message: "x".repeat(usize::try_from(rng.below(PADDING)).unwrap_or(0)),
                }),
            ),
            _ => (property, Payload::Sample(v1::Sample { value })),
        },
    };
    let (kind, payload) = payload.encode();
    v1::Record {
        kind,
        key,
        wall_us: at.wall_us,
        clock: v1::ClockQuality::ClockUnsynced.into(),
        mono_us: at.mono_us,
        boot: at.boot,
        cause: None,
        payload: payload.into(),
        // Every record is told apart from every other, whatever its payload.
        schema: 0,
    }
}

/// What a frame of telemetry says in place of samples that were given up is true: values grow, so that the last one of
/// each stretch is the greatest.
pub(super) fn check_summaries(frame: &Frame) -> Checked {
    let bad =
        |err: &dyn std::fmt::Display| Violation::new("wire", format!("a frame cannot be decoded: {err}"));
    for item in frame.records().map_err(|err| bad(&err))? {
        let (position, record) = item.map_err(|err| bad(&err))?;
        let Payload::SampleSummary(summary) = Payload::decode(&record).map_err(|err| bad(&err))? else {
            continue;
        };
        let Some(v1::value::Value::Int(last)) = summary.last.and_then(|value| value.value) else {
            continue;
        };
        #[allow(
            clippy::cast_precision_loss,
            reason = "numbers of records stay far below 2^53"
        )]
        let greatest = summary.max.is_none_or(|max| max == last as f64);
        ensure(greatest, "summaries", || {
            format!(
                "{} {position}: the last of {} samples of {} is {last}, the greatest {:?}",
                frame.key(),
                summary.count,
                record.key,
                summary.max
            )
        })?;
    }
    Ok(())
}

/// Which records a frame of telemetry holds; what daemons note for themselves is not among them.
pub(super) fn ids(frame: &Frame) -> Checked<Vec<u64>> {
    Ok(places(frame)?.into_iter().map(|(id, _)| id).collect())
}

/// The same, and where in the stream each is.
pub(super) fn places(frame: &Frame) -> Checked<Vec<(u64, Seq)>> {
    let bad =
        |err: &dyn std::fmt::Display| Violation::new("wire", format!("a frame cannot be decoded: {err}"));
    let mut ids = Vec::new();
    for item in frame.records().map_err(|err| bad(&err))? {
        let (at, record) = item.map_err(|err| bad(&err))?;
        match Payload::decode(&record).map_err(|err| bad(&err))? {
            Payload::Sample(v1::Sample {
                value:
                    Some(v1::Value {
                        value: Some(v1::value::Value::Int(id)),
                    }),
            }) => ids.push((u64::try_from(id).unwrap_or(0), at.seq)),
            Payload::DeviceEvent(event) => ids.extend(event.reason.parse::<u64>().map(|id| (id, at.seq))),
            _ => {}
        }
    }
    Ok(ids)
}
