//! What must hold after the story, read from the two stopped data directories and the device's own journal.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use ledge_log::{DiskStorage, LogView};
use ledge_proto::fold::State;
use ledge_proto::ids::{Lane, Mark, Scope, Seq, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;
use serde::Serialize;
use tokio::process::Command;

use crate::sim::modbus::Entry;

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// In plain words.
    pub claim: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was seen.
    pub seen: String,
}

impl Claim {
    /// A claim with what was seen.
    pub fn new(claim: &str, holds: bool, seen: impl Into<String>) -> Self {
        Claim {
            claim: claim.to_owned(),
            holds,
            seen: seen.into(),
        }
    }
}

/// Why a data directory could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct LookError {
    what: String,
    reason: String,
}

fn look_error(what: impl std::fmt::Display) -> impl FnOnce(String) -> LookError {
    let what = what.to_string();
    move |reason| LookError { what, reason }
}

/// The streams of one node as one side holds them, folded from the first record.
#[derive(Debug)]
pub struct Side {
    /// Where each of the node's streams ends, and its number of records.
    pub ends: BTreeMap<Lane, (Mark, u64)>,
    /// What they fold to.
    pub state: State,
    /// Values of the read counter, in the order of the log.
    pub counter: Vec<i64>,
}

impl Side {
    /// Reads the log in the data directory `dir` for the node `scope`, whose property `counter_key` counts reads.
    ///
    /// # Errors
    /// When the log cannot be read or folded.
    pub fn read(dir: &Path, scope: &Scope, counter_key: &str) -> Result<Side, LookError> {
        let failed = |err: String| look_error(dir.display())(err);
        let view =
            LogView::open(Arc::new(DiskStorage), &dir.join("log")).map_err(|err| failed(err.to_string()))?;
        let mut side = Side {
            ends: BTreeMap::new(),
            state: State::new(),
            counter: Vec::new(),
        };
        for stream in view.streams() {
            let StreamKey { id, .. } = &stream.key;
            if id.scope != *scope {
                continue;
            }
            let mut records = 0;
            let mut reader = view.read_stream(&stream.key, Seq::ZERO);
            while let Some(frame) = reader.next().map_err(|err| failed(err.to_string()))? {
                side.state
                    .apply_frame(&frame)
                    .map_err(|err| failed(err.to_string()))?;
                records += u64::from(frame.count());
                if id.lane == Lane::UpData {
                    for item in frame.records().map_err(|err| failed(err.to_string()))? {
                        let (_, record) = item.map_err(|err| failed(err.to_string()))?;
                        side.counter.extend(counter_of(&record, counter_key));
                    }
                }
            }
            side.ends.insert(id.lane, (stream.durable, records));
        }
        Ok(side)
    }
}

fn counter_of(record: &v1::Record, key: &str) -> Option<i64> {
    if record.kind != RecordKind::Sample.as_wire() || record.key != key {
        return None;
    }
    match Payload::decode(record).ok()? {
        Payload::Sample(v1::Sample {
            value: Some(v1::Value { value: Some(value) }),
        }) => match value {
            v1::value::Value::Int(v) => Some(v),
            #[allow(clippy::cast_possible_truncation, reason = "a counter of reads")]
            v1::value::Value::Double(v) => Some(v as i64),
            _ => None,
        },
        _ => None,
    }
}

/// Both sides hold the same records: same end, same chain, in every stream of the node.
pub fn nothing_lost_or_doubled(edge: &Side, cloud: &Side) -> Claim {
    let mut seen = Vec::new();
    let mut holds = true;
    for lane in Lane::REPLICATED {
        let (Some((edge_end, edge_records)), Some((cloud_end, cloud_records))) =
            (edge.ends.get(&lane), cloud.ends.get(&lane))
        else {
            holds = false;
            seen.push(format!("{lane}: missing on one side"));
            continue;
        };
        holds &= edge_end == cloud_end
            && edge_records == cloud_records
            && *edge_records == edge_end.position.seq.0;
        if edge_records == cloud_records {
            seen.push(format!("{lane} {edge_records}"));
        } else {
            seen.push(format!(
                "{lane} {edge_records} on the edge, {cloud_records} in the cloud"
            ));
        }
    }
    let chains = if holds {
        "hash chains equal"
    } else {
        "HASH CHAINS DIFFER"
    };
    Claim::new(
        "Nothing lost, nothing doubled: both logs hold the same records in the same order",
        holds,
        format!("records: {}; {chains}", seen.join(", ")),
    )
}

/// Folding both logs from the first record gives the same state.
pub fn same_hash(edge: &Side, cloud: &Side, scope: &Scope) -> Claim {
    let (one, other) = (
        hex::encode(edge.state.hash(scope)),
        hex::encode(cloud.state.hash(scope)),
    );
    let seen = if one == other {
        format!("{}…", &one[..16])
    } else {
        format!("edge {one}, cloud {other}")
    };
    Claim::new(
        "Same state hash on both sides, folded from the first record",
        one == other,
        seen,
    )
}

/// What the device handed out, it handed out once, and what the log holds of it, it holds once. A value the device
/// handed out can only be missing when edgecore died (or was stopped) with the answer in its hands: at most
/// `interruptions` of them.
pub fn device_agrees(handed_out: &[i64], cloud: &Side, interruptions: usize) -> Claim {
    let mut times: BTreeMap<i64, usize> = BTreeMap::new();
    for value in &cloud.counter {
        *times.entry(*value).or_default() += 1;
    }
    let doubled = times.values().filter(|n| **n > 1).count();
    let missing = handed_out
        .iter()
        .filter(|value| !times.contains_key(value))
        .count();
    let invented = times.keys().filter(|value| !handed_out.contains(value)).count();
    let ordered = cloud.counter.is_sorted();
    Claim::new(
        "The device's own journal agrees: every answer it gave is in the cloud once, in order",
        doubled == 0 && invented == 0 && missing <= interruptions && ordered,
        format!(
            "{} answers; doubled {doubled}, invented {invented}, out of order {}, in flight when edgecore died {missing}",
            handed_out.len(),
            usize::from(!ordered),
        ),
    )
}

/// The numbers the simulated device handed out, from its journal.
///
/// # Errors
/// When the journal cannot be read.
pub fn handed_out(journal: &Path) -> Result<Vec<i64>, LookError> {
    let text =
        std::fs::read_to_string(journal).map_err(|err| look_error(journal.display())(err.to_string()))?;
    Ok(text
        .lines()
        .filter_map(|line| match serde_json::from_str(line) {
            Ok(Entry::Counter { value, .. }) => Some(i64::from(value)),
            _ => None,
        })
        .collect())
}

/// Runs this program's own command on both data directories and compares what it prints.
///
/// # Errors
/// When it cannot be run.
pub async fn same_answer(
    ledge: &Path,
    edge_dir: &Path,
    cloud_dir: &Path,
    arguments: impl Fn(&Path) -> Vec<String>,
) -> Result<(bool, String), LookError> {
    let edge = run(ledge, &arguments(edge_dir)).await?;
    let cloud = run(ledge, &arguments(cloud_dir)).await?;
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    if !edge.status.success() || !cloud.status.success() {
        let told = [&edge, &cloud]
            .map(|o| String::from_utf8_lossy(&o.stderr).into_owned())
            .concat();
        return Ok((false, told));
    }
    let same = edge.stdout == cloud.stdout && !edge.stdout.is_empty();
    Ok((
        same,
        if same {
            text(&edge)
        } else {
            format!("edge:\n{}cloud:\n{}", text(&edge), text(&cloud))
        },
    ))
}

/// `ledge log verify` of a data directory.
///
/// # Errors
/// When it cannot be run.
pub async fn verify_clean(ledge: &Path, dir: &Path) -> Result<(bool, String), LookError> {
    let output = run(ledge, &["log".into(), "verify".into(), dir.display().to_string()]).await?;
    let told = [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat();
    Ok((output.status.success(), told))
}

async fn run(ledge: &Path, arguments: &[String]) -> Result<Output, LookError> {
    Command::new(ledge)
        .args(arguments)
        .output()
        .await
        .map_err(|err| look_error(ledge.display())(err.to_string()))
}

/// Number of records of the node's own streams in the log of the data directory `dir`, running or stopped.
///
/// # Errors
/// When the log cannot be read.
pub fn records_up(dir: &Path, scope: &Scope) -> Result<u64, LookError> {
    let view = LogView::open(Arc::new(DiskStorage), &dir.join("log"))
        .map_err(|err| look_error(dir.display())(err.to_string()))?;
    let streams = view.streams();
    let own = streams
        .iter()
        .filter(|s| s.key.id.scope == *scope && matches!(s.key.id.lane, Lane::UpState | Lane::UpData));
    Ok(own.map(|stream| stream.durable.position.seq.0).sum())
}
