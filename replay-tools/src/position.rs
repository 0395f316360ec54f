//! Places in a log, as the commands that look at a moment take them.

use std::str::FromStr;

use ledge_log::{BlockNo, LogView};
use ledge_proto::ids::{Seq, StreamKey};
use ledge_proto::stamp::BUILT_AFTER_US;

use crate::error::Failure;
use crate::moment::{Moment, When};
use crate::select::StreamPattern;

/// A place as written: a time, a block number, STREAM:SEQ, `start` or `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Start,
    End,
    Block(u64),
    Record(StreamPattern, u64),
    Time(When),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" => return Ok(Place::Start),
            "end" => return Ok(Place::End),
            _ => {}
        }
        if let Ok(block) = text.parse() {
            return Ok(Place::Block(block));
        }
        if let Some((stream, seq)) = text.rsplit_once(':')
            && stream.contains('/')
        {
            let seq = seq
                .parse()
                .map_err(|_| "what follows the last : is a sequence number".to_owned())?;
            return Ok(Place::Record(stream.parse()?, seq));
        }
        text.parse::<When>()
            .map(Place::Time)
            .map_err(|forms| format!("a block number, STREAM:SEQ, start, end or a time: {forms}"))
    }
}

/// Up to where a log is folded, the place itself included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Until {
    /// Everything.
    End,
    /// Every block up to this one.
    Block(BlockNo),
    /// Everything written before this record, and the record.
    Record(StreamKey, Seq),
    /// Every record whose wall clock is not later.
    Time(Moment),
}

impl Place {
    /// What it stands for in `view`. A place that `view` has not reached, or holds no longer, is an error: an
    /// answer about another moment would be a wrong one.
    pub(crate) fn resolve(&self, view: &LogView, now: Moment) -> Result<Until, Failure> {
        Ok(match self {
            Place::Start => Until::Block(view.first_block().previous()),
            Place::End => Until::End,
            Place::Time(when) => Until::Time(within(view, when.resolve(now))?),
            Place::Block(no) => {
                let (first, last) = (view.first_block().previous(), view.last_block());
                if !(first.0..=last.0).contains(no) {
                    return Err(Failure::new(format!("the log has no block {no}"))
                        .hint(format!("it holds blocks {} to {last}", first.next())));
                }
                Until::Block(BlockNo(*no))
            }
            Place::Record(pattern, seq) => {
                let key = pattern.only(view)?;
                let held = view.streams().into_iter().find(|info| info.key == key);
                let (first, last) =
                    held.map_or((0, 0), |info| (info.first_seq.0, info.durable.position.seq.0));
                if !(first..=last).contains(seq) {
                    return Err(Failure::new(format!("{} has no record {seq}", key.id))
                        .hint(format!("it holds records {first} to {last}")));
                }
                Until::Record(key, Seq(*seq))
            }
        })
    }
}

/// `moment`, unless it lies before what `view` still holds.
fn within(view: &LogView, moment: Moment) -> Result<Moment, Failure> {
    let segments = view.segments();
    // When nothing is gone, the beginning is the beginning; and a clock that was never set says nothing.
    let Some(first) = segments.first().filter(|first| {
        first.first_block > BlockNo(1) && first.created_ms >= BUILT_AFTER_US.unsigned_abs() / 1000
    }) else {
        return Ok(moment);
    };
    let earliest = Moment::from_us(
        i64::try_from(first.created_ms)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000),
    );
    if moment < earliest {
        return Err(
            Failure::new(format!("the log no longer holds what was at {moment}"))
                .hint(format!("the earliest moment that can be shown is {earliest}")),
        );
    }
    Ok(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_told_apart() {
        assert_eq!("120".parse(), Ok(Place::Block(120)));
        assert_eq!("start".parse(), Ok(Place::Start));
        assert_eq!("end".parse(), Ok(Place::End));
        assert!(matches!("edge-1/up.data:7".parse(), Ok(Place::Record(_, 7))));
        assert!(matches!("edge-1/up.data@0a:7".parse(), Ok(Place::Record(_, 7))));
        for time in [
            "2026-11-23T15:04:05Z",
            "2026-11-23 15:04",
            "2026-11-23",
            "-5m",
            "now",
        ] {
            assert!(matches!(time.parse(), Ok(Place::Time(_))), "{time}");
        }
        for bad in ["", "edge-1/up.data:", "edge-1/data:7", "edge-1:7", "x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
