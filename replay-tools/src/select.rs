//! Choosing streams and records on the command line.

use std::str::FromStr;

use clap::Args;
use ledge_log::LogView;
use ledge_proto::ids::{Lane, Scope, StreamKey};
use ledge_proto::record::RecordKind;
use ledge_proto::v1;

use crate::error::Failure;

/// Streams by name: `edge-1`, `edge-1/up.data`, `cluster/down`, or `edge-1/up.data@3f2a` for one incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamPattern {
    scope: Scope,
    lane: Option<Lane>,
    /// First hexadecimal digits.
    incarnation: String,
}

impl FromStr for StreamPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, incarnation) = text.split_once('@').unwrap_or((text, ""));
        if !incarnation.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("what follows @ are the first hexadecimal digits of an incarnation".to_owned());
        }
        let (scope, lane) = match name.rsplit_once('/') {
            None => (name, None),
            Some((scope, lane)) => {
                let found = Lane::ALL.into_iter().find(|known| known.name() == lane);
                (
                    scope,
                    Some(found.ok_or("write NODE/LANE with lane down, up.state or up.data")?),
                )
            }
        };
        let scope = match scope {
            "cluster" => Scope::cluster(),
            node => Scope::node(node).map_err(|err| err.to_string())?,
        };
        Ok(StreamPattern {
            scope,
            lane,
            incarnation: incarnation.to_ascii_lowercase(),
        })
    }
}

impl StreamPattern {
    pub(crate) fn matches(&self, key: &StreamKey) -> bool {
        self.scope == key.id.scope
            && self.lane.is_none_or(|lane| lane == key.id.lane)
            && key.incarnation.to_string().starts_with(&self.incarnation)
    }

    /// The one stream of `view` it stands for.
    pub(crate) fn only(&self, view: &LogView) -> Result<StreamKey, Failure> {
        let mut found: Vec<StreamKey> = view
            .streams()
            .into_iter()
            .map(|info| info.key)
            .filter(|key| self.matches(key))
            .collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(no_stream(view)),
            _ => {
                let names: Vec<String> = found.iter().map(ToString::to_string).collect();
                Err(Failure::usage("several streams have that name")
                    .hint(format!("choose one of {}", names.join(", "))))
            }
        }
    }
}

/// There is no such stream, but there are others.
pub(crate) fn no_stream(view: &LogView) -> Failure {
    let names: Vec<String> = view
        .streams()
        .iter()
        .take(12)
        .map(|info| info.key.id.to_string())
        .collect();
    let hint = if names.is_empty() {
        "the log is empty".to_owned()
    } else {
        format!("it has {}", names.join(", "))
    };
    Failure::new("the log has no such stream").hint(hint)
}

/// A pattern with `*` for any text and `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(String);

impl FromStr for Glob {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Glob(text.to_owned()))
    }
}

impl Glob {
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (pattern, text): (Vec<char>, Vec<char>) = (self.0.chars().collect(), text.chars().collect());
        let (mut p, mut t) = (0, 0);
        // Where the last star was, and how much of the text it has taken.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
                _ => match &mut star {
                    Some((at, taken)) => {
                        *taken += 1;
                        (p, t) = (*at + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

/// A kind of record by its name in any case.
pub(crate) fn parse_kind(text: &str) -> Result<RecordKind, String> {
    RecordKind::ALL
        .into_iter()
        .find(|kind| kind.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| {
            let names: Vec<&str> = RecordKind::ALL.iter().map(|kind| kind.name()).collect();
            format!("kinds are {}", names.join(", "))
        })
}

/// Which records are shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecordFilter {
    /// Only this stream: NODE, NODE/LANE or NODE/LANE@INCARNATION; `cluster` stands for what every node shares.
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<StreamPattern>,
    /// Only records whose key matches; `*` stands for any text. Keys look like namespace/device/property.
    #[arg(long, value_name = "GLOB")]
    key: Option<Glob>,
    /// Only records of these kinds, for example Sample or TwinDesired,TwinReported.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = parse_kind)]
    kind: Vec<RecordKind>,
}

impl RecordFilter {
    pub(crate) fn admits_stream(&self, key: &StreamKey) -> bool {
        self.stream.as_ref().is_none_or(|pattern| pattern.matches(key))
    }

    pub(crate) fn admits(&self, record: &v1::Record) -> bool {
        (self.kind.is_empty() || self.kind.iter().any(|kind| kind.as_wire() == record.kind))
            && self.key.as_ref().is_none_or(|glob| glob.matches(&record.key))
    }
}

#[cfg(test)]
mod tests {
    use ledge_proto::ids::{Incarnation, StreamId};

    use super::*;

    #[test]
    fn patterns_name_a_node_a_stream_or_one_life_of_it() {
        let key = StreamKey {
            id: "edge-1/up.data".parse::<StreamId>().unwrap(),
            incarnation: Incarnation([0xab; 16]),
        };
        for (pattern, matches) in [
            ("edge-1", true),
            ("edge-1/up.data", true),
            ("edge-1/up.data@ABAB", true),
            ("edge-1@ab", true),
            ("edge-1/up.data@ac", false),
            ("edge-1/down", false),
            ("cluster", false),
        ] {
            assert_eq!(
                pattern.parse::<StreamPattern>().unwrap().matches(&key),
                matches,
                "{pattern}"
            );
        }
        for bad in ["", "edge-1/up", "Edge/down", "edge-1/down@xyz"] {
            assert!(bad.parse::<StreamPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn globs_match_any_text_at_a_star() {
        for (glob, text, matches) in [
            ("*", "", true),
            ("plant/*/speed", "plant/pump-1/speed", true),
            ("*speed", "plant/speed/speed", true),
            ("p?mp", "pump", true),
            ("a*b*c", "aXbXbYc", true),
            ("a*b*c", "aXbXbY", false),
            ("", "x", false),
            ("pump", "pump-1", false),
        ] {
            assert_eq!(Glob(glob.to_owned()).matches(text), matches, "{glob} on {text}");
        }
    }
}
