//! Records, times and states as the commands show them.

use ledge_history::payload;
use ledge_proto::ids::{Position, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;
use serde_json::{Value as Json, json};

use crate::error::Failure;
use crate::moment::Moment;

/// A record and where it stands.
pub(crate) struct Shown {
    /// Known when the whole log is read, not when one stream is.
    pub(crate) block: Option<u64>,
    pub(crate) key: StreamKey,
    pub(crate) position: Position,
    pub(crate) record: v1::Record,
}

impl Shown {
    fn payload(&self) -> Result<Payload, Failure> {
        Payload::decode(&self.record).map_err(|err| {
            Failure::unreadable(format!(
                "the payload of record {} of {}: {err}",
                self.position.seq, self.key.id
            ))
        })
    }

    fn kind(&self) -> String {
        RecordKind::from_wire(self.record.kind)
            .map_or_else(|| self.record.kind.to_string(), |kind| kind.name().into())
    }

    /// The cells of a row: seq, time, kind, key, value.
    pub(crate) fn cells(&self, date: bool) -> Result<Vec<String>, Failure> {
        Ok(vec![
            self.position.seq.to_string(),
            time_of(&self.record, date),
            self.kind(),
            self.record.key.clone(),
            payload::line(&self.payload()?),
        ])
    }

    pub(crate) fn json(&self) -> Result<Json, Failure> {
        let record = &self.record;
        Ok(json!({
            "block": self.block,
            "stream": self.key.id.to_string(),
            "incarnation": self.key.incarnation.to_string(),
            "epoch": self.position.epoch.0,
            "seq": self.position.seq.0,
            "time": Moment::from_us(record.wall_us).to_string(),
            "clock": payload::clock_name(record.clock()),
            "mono_us": record.mono_us,
            "boot": record.boot,
            "kind": self.kind(),
            "key": record.key,
            "cause": record.cause.as_ref().map(payload::cause_text),
            "payload": payload::json(&self.payload()?),
        }))
    }
}

/// A record's wall clock for a table, with a mark behind it when it cannot be trusted.
fn time_of(record: &v1::Record, date: bool) -> String {
    let mark = match record.clock() {
        v1::ClockQuality::ClockSynced | v1::ClockQuality::ClockUnknown => "",
        v1::ClockQuality::ClockUnsynced => "?",
        v1::ClockQuality::ClockBeforeBuild => "!",
    };
    let moment = Moment::from_us(record.wall_us);
    format!("{}{mark}", if date { time(moment) } else { time_of_day(moment) })
}

/// A moment for a table: shorter than RFC 3339, to the millisecond, UTC.
pub(crate) fn time(moment: Moment) -> String {
    let text = moment.to_string();
    // 2026-11-23T15:00:00.123456Z; other lengths are years beyond four digits.
    if text.len() == 27 {
        text[..23].replace('T', " ")
    } else {
        text
    }
}

/// As [`time`], without the date, for narrow terminals.
pub(crate) fn time_of_day(moment: Moment) -> String {
    let text = time(moment);
    text.split_once(' ')
        .map_or_else(|| text.clone(), |(_, time)| time.to_owned())
}

/// A value for a table; a dash when there is none.
pub(crate) fn value(value: Option<&v1::Value>) -> String {
    payload::inner(value).map_or_else(dash, payload::text)
}

/// Stands for nothing in a table.
pub(crate) fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_tables_are_short_and_wild_ones_stay_whole() {
        assert_eq!(
            time(Moment::from_us(1_795_446_000_123_456)),
            "2026-11-23 15:00:00.123"
        );
        assert_eq!(time(Moment::from_us(i64::MAX)), format!("{}us", i64::MAX));
        assert_eq!(
            time_of_day(Moment::from_us(1_795_446_000_123_456)),
            "15:00:00.123"
        );
        assert_eq!(time(Moment::from_us(0)), "1970-01-01 00:00:00.000");
    }
}
