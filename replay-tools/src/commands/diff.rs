//! `ledge diff`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::Context;
use crate::error::Quit;
use crate::exit::Code;
use crate::facts::{Subject, facts};
use crate::fold::fold;
use crate::open::Dir;
use crate::out::Format;
use crate::position::Place;
use crate::progress::Progress;
use crate::select::Glob;
use crate::show;
use crate::table::text;

const EXAMPLES: &str = "\
Exit codes: 0 nothing changed, 1 something changed, 2 or more: there is no answer.

Examples:
  ledge diff /var/lib/ledge/edge --from -1h
  ledge diff /var/lib/ledge/cloud --from 2026-11-23T08:00:00Z --to 2026-11-23T09:00:00Z --node edge-1
  ledge diff /var/lib/ledge/edge --from edge-1/down:41 --to edge-1/down:42
  ledge diff /var/lib/ledge/edge --from -1m -o json && echo quiet

See `ledge help positions` for how places are written and what exactly they mean.";

/// Show what changed between two moments.
///
/// Compares the states at both: versions and labels of nodes, device specs and states, desired and reported values,
/// outcomes of writes. Something that changed and changed back is no difference.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Diff {
    #[command(flatten)]
    dir: Dir,
    /// The earlier place: a time, a block number, STREAM:SEQ, or `start`.
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Place,
    /// The later place.
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true, default_value = "end")]
    to: Place,
    /// Compare only this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Compare only devices whose namespace/name matches.
    #[arg(long, value_name = "GLOB")]
    device: Option<Glob>,
    /// Compare the latest samples, too.
    #[arg(long)]
    samples: bool,
}

pub(crate) fn run(args: &Diff, context: &mut Context) -> Result<Code, Quit> {
    let view = Arc::new(args.dir.open()?);
    let state_at = |place: &Place| -> Result<BTreeMap<Subject, String>, Quit> {
        let until = place.resolve(&view, context.now)?;
        let total = view.streams().iter().map(|info| info.records).sum();
        let folded = fold(&view, &until, &mut Progress::new("records", Some(total)))?;
        let mut facts = facts(&folded.state, args.samples)?;
        facts.retain(|subject, _| args.wants(subject));
        Ok(facts)
    };
    let (before, after) = (state_at(&args.from)?, state_at(&args.to)?);
    let changes = changes(&before, &after);
    let out = &mut context.out;
    let mut table = out.table(&[
        text(" "),
        text("NODE"),
        text("DEVICE"),
        text("PROPERTY"),
        text("FIELD"),
        text("FROM"),
        text("TO"),
    ]);
    for change in &changes {
        if out.format() == Format::Table {
            table.row(out, change.cells())?;
        } else {
            out.item(&change.json())?;
        }
    }
    if out.format() == Format::Table && !changes.is_empty() {
        table.flush(out)?;
    }
    Ok(if changes.is_empty() { Code::Yes } else { Code::No })
}

impl Diff {
    fn wants(&self, subject: &Subject) -> bool {
        self.node.as_ref().is_none_or(|node| *node == subject.node)
            && self
                .device
                .as_ref()
                .is_none_or(|glob| glob.matches(&subject.device))
    }
}

struct Change<'a> {
    subject: &'a Subject,
    from: Option<&'a str>,
    to: Option<&'a str>,
}

fn changes<'a>(
    before: &'a BTreeMap<Subject, String>,
    after: &'a BTreeMap<Subject, String>,
) -> Vec<Change<'a>> {
    let mut subjects: Vec<&Subject> = before.keys().chain(after.keys()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    subjects
        .into_iter()
        .map(|subject| Change {
            subject,
            from: before.get(subject).map(String::as_str),
            to: after.get(subject).map(String::as_str),
        })
        .filter(|change| change.from != change.to)
        .collect()
}

impl Change<'_> {
    fn sign(&self) -> &'static str {
        match (self.from, self.to) {
            (None, _) => "+",
            (_, None) => "-",
            _ => "~",
        }
    }

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: &str| {
            if text.is_empty() {
                show::dash()
            } else {
                text.to_owned()
            }
        };
        let value = |value: Option<&str>| value.map_or_else(show::dash, str::to_owned);
        vec![
            self.sign().to_owned(),
            self.subject.node.clone(),
            or_dash(&self.subject.device),
            or_dash(&self.subject.property),
            self.subject.field.to_owned(),
            value(self.from),
            value(self.to),
        ]
    }

    fn json(&self) -> serde_json::Value {
        let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        json!({
            "node": self.subject.node, "device": or_null(&self.subject.device),
            "property": or_null(&self.subject.property), "field": self.subject.field,
            "from": self.from, "to": self.to,
        })
    }
}
