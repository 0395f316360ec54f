//! `ledge replay`.

use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use ledge_proto::fold::view;
use ledge_proto::ids::{Scope, StreamKey};
use serde_json::json;

use super::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::facts::damaged;
use crate::fold::{Folded, fold};
use crate::human;
use crate::open::Dir;
use crate::position::Place;
use crate::progress::Progress;
use crate::table::{number, text, whole};

const EXAMPLES: &str = "\
Examples:
  ledge replay /var/lib/ledge/edge
  ledge replay /var/lib/ledge/edge --until -1h
  ledge replay backup/ --expect-hash edge-1=$(ssh edge-1 ledge replay /var/lib/ledge/edge -o json \\
      | jq -r '.scopes[] | select(.scope == \"edge-1\") | .hash')";

/// Fold the log from scratch and print the hash of the state of every node.
///
/// The hash covers everything folded about a node, its stream positions included. Two logs that hold the same
/// records of a node, an edge's and its cloud's for example, give the same hash; a daemon's projection must, too.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Replay {
    #[command(flatten)]
    dir: Dir,
    /// Stop after this place: a time, a block number, STREAM:SEQ. See `ledge help positions`.
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true, default_value = "end")]
    until: Place,
    /// Exit with 1 unless the state of SCOPE (a node, or `cluster`) has this hash. May be repeated.
    #[arg(long, value_name = "SCOPE=HASH")]
    expect_hash: Vec<Expected>,
}

#[derive(Debug, Clone)]
struct Expected {
    scope: String,
    hash: String,
}

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scope, hash) = text
            .split_once('=')
            .ok_or("write SCOPE=HASH, for example edge-1=0f3a…")?;
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("a hash has 64 hexadecimal digits".to_owned());
        }
        Ok(Expected {
            scope: scope.to_owned(),
            hash: hash.to_ascii_lowercase(),
        })
    }
}

struct Line {
    scope: Scope,
    records: u64,
    devices: usize,
    hash: String,
}

pub(crate) fn run(args: &Replay, context: &mut Context) -> Result<Code, Quit> {
    let view = Arc::new(args.dir.open()?);
    let until = args.until.resolve(&view, context.now)?;
    let total = view.streams().iter().map(|info| info.records).sum();
    let mut progress = Progress::new("records", Some(total));
    let folded = fold(&view, &until, &mut progress)?;
    let (read, elapsed) = (progress.done(), progress.elapsed());
    let lines = folded
        .state
        .scopes()
        .into_iter()
        .map(|scope| line(&folded, scope))
        .collect::<Result<Vec<_>, _>>()?;
    let document = json!({
        "block": folded.block, "records": folded.records, "bytes": folded.bytes,
        "seconds": elapsed.as_secs_f64(), "records_per_second": human::rate(read, elapsed),
        "scopes": lines.iter().map(|line| json!({
            "scope": line.scope.to_string(), "records": line.records, "devices": line.devices, "hash": line.hash,
        })).collect::<Vec<_>>(),
    });
    if !context.out.document(&document)? {
        let out = &mut context.out;
        let mut table = out.table(&[text("SCOPE"), number("RECORDS"), number("DEVICES"), whole("HASH")]);
        for line in &lines {
            table.row(
                out,
                vec![
                    line.scope.to_string(),
                    human::count(line.records),
                    line.devices.to_string(),
                    line.hash.clone(),
                ],
            )?;
        }
        table.flush(out)?;
        out.text(&format!(
            "\n{} folded up to block {}, {} in {}\n",
            human::plural(folded.records, "record"),
            folded.block,
            human::bytes(folded.bytes),
            human::duration(elapsed)
        ))?;
    }
    Ok(if args.as_expected(&lines) {
        Code::Yes
    } else {
        Code::No
    })
}

impl Replay {
    fn as_expected(&self, lines: &[Line]) -> bool {
        let mut as_expected = true;
        for expected in &self.expect_hash {
            let found = lines.iter().find(|line| line.scope.to_string() == expected.scope);
            let found = found.map_or("nothing is known about it", |line| line.hash.as_str());
            if found != expected.hash {
                eprintln!(
                    "differs: {} expected {}, found {found}",
                    human::plain(&expected.scope),
                    expected.hash
                );
                as_expected = false;
            }
        }
        as_expected
    }
}

fn line(folded: &Folded, scope: Scope) -> Result<Line, Failure> {
    let devices = view::devices(&folded.state, &scope)
        .map_err(|err| damaged(&err))?
        .len();
    let of_scope = |(key, _): &(&StreamKey, _)| key.id.scope == scope;
    let records = folded
        .streams
        .iter()
        .filter(of_scope)
        .map(|(_, (_, _, records))| records)
        .sum();
    Ok(Line {
        records,
        devices,
        hash: hex::encode(folded.state.hash(&scope)),
        scope,
    })
}
