//! `ledge at`.

use std::sync::Arc;

use clap::Args;
use ledge_history::clocks::notes_of_node;
use ledge_history::source::LogSource;
use ledge_history::{FrameSource, payload};
use ledge_proto::fold::view::{self, Device, Latest, Twin};
use ledge_proto::ids::{Position, Scope, StreamKey};
use ledge_proto::retime::ClockNotes;
use ledge_proto::v1;
use serde_json::{Map, Value as Json, json};

use super::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::facts::damaged;
use crate::fold::{Folded, fold};
use crate::human;
use crate::moment::{Moment, When};
use crate::open::Dir;
use crate::out::Out;
use crate::position::{Place, Until};
use crate::progress::Progress;
use crate::select::{Glob, StreamPattern};
use crate::show;
use crate::table::{text, whole};

const EXAMPLES: &str = "\
Examples:
  ledge at /var/lib/ledge/edge                                        as the log ends
  ledge at /var/lib/ledge/edge --time -5m                             five minutes ago
  ledge at /var/lib/ledge/edge --seq 1200 --stream edge-1/up.data     right after that sample
  ledge at /var/lib/ledge/cloud --seq 88 --node edge-1 -o json        after block 88

See `ledge help positions` for what exactly these mean.";

/// Show nodes, devices and twins as they were at a moment or a place in the log.
///
/// The state is folded from the log's records alone, by the code the daemons use, never read from a projection.
/// Without a place it is the state at the log's end.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct At {
    #[command(flatten)]
    dir: Dir,
    /// After this record of --stream; without --stream, after this block of the physical log.
    #[arg(long, value_name = "N", conflicts_with = "time")]
    seq: Option<u64>,
    /// Stream that --seq counts in, for example edge-1/up.data.
    #[arg(long, value_name = "STREAM", requires = "seq")]
    stream: Option<StreamPattern>,
    /// Only records whose wall clock, corrected where that became possible, is not later than this: RFC 3339, or relative such as -5m.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    time: Option<When>,
    /// Show only this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Show only devices whose namespace/name matches.
    #[arg(long, value_name = "GLOB")]
    device: Option<Glob>,
}

impl At {
    fn place(&self) -> Place {
        match (self.seq, &self.stream, self.time) {
            (Some(seq), Some(stream), _) => Place::Record(stream.clone(), seq),
            (Some(block), None, _) => Place::Block(block),
            (None, _, Some(when)) => Place::Time(when),
            (None, _, None) => Place::End,
        }
    }

    fn wants(&self, device: &str) -> bool {
        self.device.as_ref().is_none_or(|glob| glob.matches(device))
    }
}

pub(crate) fn run(args: &At, context: &mut Context) -> Result<Code, Quit> {
    let view = Arc::new(args.dir.open()?);
    let until = args.place().resolve(&view, context.now)?;
    let total = view.streams().iter().map(|info| info.records).sum();
    let folded = fold(&view, &until, &mut Progress::new("records", Some(total)))?;
    let sources: [Arc<dyn FrameSource>; 1] = [Arc::new(LogSource::new(view.clone()))];
    let mut nodes = Vec::new();
    for scope in folded.state.scopes() {
        if args
            .node
            .as_ref()
            .is_none_or(|node| scope.node_name() == Some(node))
        {
            nodes.push(NodeAt::of(&folded, scope, args, &sources)?);
        }
    }
    if let Some(node) = args.node.as_ref().filter(|_| nodes.is_empty()) {
        return Err(Failure::new(format!("nothing is known about node {node} at that moment")).into());
    }
    if !context.out.document(&document(&folded, &until, &nodes))? {
        print(&folded, &until, &nodes, &mut context.out)?;
    }
    Ok(Code::Yes)
}

struct NodeAt {
    scope: Scope,
    said: Option<Latest<v1::NodeState>>,
    devices: Vec<(String, Device)>,
}

impl NodeAt {
    fn of(
        folded: &Folded,
        scope: Scope,
        args: &At,
        sources: &[Arc<dyn FrameSource>],
    ) -> Result<Self, Failure> {
        let said = view::node(&folded.state, &scope).map_err(|err| damaged(&err))?;
        let devices = view::devices(&folded.state, &scope).map_err(|err| damaged(&err))?;
        let devices = devices.into_iter().filter(|(name, _)| args.wants(name)).collect();
        let mut node = NodeAt { scope, said, devices };
        if node.is_doubtful() {
            let notes = notes_of_node(sources, &node.scope).map_err(|err| damaged(&err))?;
            node.retime(&notes);
        }
        Ok(node)
    }

    /// Whether something was written before the node's clock was set.
    fn is_doubtful(&self) -> bool {
        self.said.as_ref().is_some_and(Latest::is_doubtful)
            || self.devices.iter().any(|(_, device)| device.is_doubtful())
    }

    fn retime(&mut self, notes: &ClockNotes) {
        if let Some(said) = &mut self.said {
            said.retime(notes);
        }
        for (_, device) in &mut self.devices {
            device.retime(notes);
        }
    }
}

fn until_text(until: &Until, folded: &Folded) -> String {
    match until {
        Until::End => format!("the log's end, block {}", folded.block),
        Until::Block(no) => format!("block {no}"),
        Until::Record(key, seq) => format!("record {seq} of {}, in block {}", key.id, folded.block),
        Until::Time(moment) => moment.to_string(),
    }
}

fn document(folded: &Folded, until: &Until, nodes: &[NodeAt]) -> Json {
    let stream = |(key, (position, time, _)): (&StreamKey, &(Position, Moment, u64))| {
        json!({
            "stream": key.id.to_string(), "incarnation": key.incarnation.to_string(),
            "epoch": position.epoch.0, "seq": position.seq.0, "time": time.to_string(),
        })
    };
    let node = |node: &NodeAt| {
        let devices: Map<String, Json> = node
            .devices
            .iter()
            .map(|(name, device)| (name.clone(), device_json(device)))
            .collect();
        json!({
            "node": node.scope.to_string(),
            "state": node.said.as_ref().map(|said| latest_json(said, payload::json(&payload_of(&said.content)))),
            "devices": devices,
        })
    };
    json!({
        "as_of": until_text(until, folded),
        "block": folded.block,
        "records": folded.records,
        "streams": folded.streams.iter().map(stream).collect::<Vec<_>>(),
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

fn payload_of(state: &v1::NodeState) -> ledge_proto::record::Payload {
    ledge_proto::record::Payload::NodeState(state.clone())
}

/// `content` with when and where it was said.
fn latest_json<T>(latest: &Latest<T>, mut content: Json) -> Json {
    content["time"] = json!(Moment::from_us(latest.wall_us).to_string());
    content["clock"] = json!(match latest.retimed {
        true => "retimed",
        false => payload::clock_name(latest.clock),
    });
    content["epoch"] = json!(latest.position.epoch.0);
    content["seq"] = json!(latest.position.seq.0);
    content["cause"] = json!(latest.cause.as_ref().map(payload::cause_text));
    content
}

fn device_json(device: &Device) -> Json {
    use ledge_proto::record::Payload as P;
    let twin = |twin: &Twin| {
        json!({
            "desired": twin.desired.as_ref().map(|it| latest_json(it, payload::json(&P::TwinDesired(it.content.clone())))),
            "reported": twin.reported.as_ref().map(|it| latest_json(it, payload::json(&P::TwinReported(it.content.clone())))),
            "write": twin.write_result.as_ref().map(|it| latest_json(it, payload::json(&P::WriteResult(it.content.clone())))),
            "sample": twin.sample.as_ref().map(|it| latest_json(it, payload::json(&P::Sample(it.content.clone())))),
        })
    };
    let twins: Map<String, Json> = device
        .twins
        .iter()
        .map(|(name, it)| (name.clone(), twin(it)))
        .collect();
    json!({
        "spec": device.spec.as_ref().map(|it| {
            latest_json(it, payload::json(&P::DeviceSpec(Box::new(it.content.clone()))))
        }),
        "state": device.state.as_ref().map(|it| latest_json(it, payload::json(&P::DeviceState(it.content.clone())))),
        "twins": twins,
    })
}

fn print(folded: &Folded, until: &Until, nodes: &[NodeAt], out: &mut Out) -> Result<(), Quit> {
    out.text(&format!(
        "As of {}: {}\n\n",
        until_text(until, folded),
        human::plural(folded.records, "record")
    ))?;
    let mut table = out.table(&[
        text("NODE"),
        text("VERSION"),
        text("BOOT"),
        whole("SINCE (UTC)"),
        text("DEVICES"),
    ]);
    for node in nodes {
        let (version, boot, since) = match &node.said {
            Some(said) => {
                let since = show::time(Moment::from_us(said.wall_us));
                (said.content.version.clone(), said.content.boot_id.clone(), since)
            }
            None => (show::dash(), show::dash(), show::dash()),
        };
        table.row(
            out,
            vec![
                node.scope.to_string(),
                version,
                boot,
                since,
                node.devices.len().to_string(),
            ],
        )?;
    }
    table.flush(out)?;
    let mut devices = out.table(&[
        text("NODE"),
        text("DEVICE"),
        text("STATE"),
        whole("SINCE (UTC)"),
        text("MESSAGE"),
    ]);
    let mut twins = out.table(&[
        text("NODE"),
        text("DEVICE"),
        text("PROPERTY"),
        text("DESIRED"),
        text("REPORTED"),
        text("WRITE"),
        text("SAMPLE"),
        whole("SAMPLED (UTC)"),
    ]);
    let time = if out.is_narrow() {
        show::time_of_day
    } else {
        show::time
    };
    let any_device = each(nodes).next().is_some();
    let any_twin = each(nodes).any(|(_, _, device)| !device.twins.is_empty());
    if any_device {
        out.text("\n")?;
        for (node, name, device) in each(nodes) {
            devices.row(out, device_cells(node, name, device))?;
        }
        devices.flush(out)?;
    }
    if any_twin {
        out.text("\n")?;
        for (node, name, device) in each(nodes) {
            for (property, twin) in &device.twins {
                twins.row(out, twin_cells(node, name, property, twin, time))?;
            }
        }
        twins.flush(out)?;
    }
    Ok(())
}

fn each(nodes: &[NodeAt]) -> impl Iterator<Item = (&NodeAt, &str, &Device)> {
    nodes.iter().flat_map(|node| {
        node.devices
            .iter()
            .map(move |(name, device)| (node, name.as_str(), device))
    })
}

fn device_cells(node: &NodeAt, name: &str, device: &Device) -> Vec<String> {
    let mut cells = vec![node.scope.to_string(), name.to_owned()];
    match &device.state {
        Some(state) => cells.extend([
            state.content.state.clone(),
            show::time(Moment::from_us(state.wall_us)),
            state.content.message.clone(),
        ]),
        None => cells.extend([show::dash(), show::dash(), String::new()]),
    }
    if device.spec.is_none() {
        cells[2].push_str(" (removed)");
    }
    cells
}

fn twin_cells(
    node: &NodeAt,
    name: &str,
    property: &str,
    twin: &Twin,
    time: fn(Moment) -> String,
) -> Vec<String> {
    vec![
        node.scope.to_string(),
        name.to_owned(),
        property.to_owned(),
        show::value(twin.desired.as_ref().and_then(|it| it.content.value.as_ref())),
        show::value(twin.reported.as_ref().and_then(|it| it.content.value.as_ref())),
        twin.write_result.as_ref().map_or_else(show::dash, |it| {
            payload::outcome_name(it.content.outcome()).to_owned()
        }),
        show::value(twin.sample.as_ref().and_then(|it| it.content.value.as_ref())),
        twin.sample
            .as_ref()
            .map_or_else(show::dash, |it| time(Moment::from_us(it.wall_us))),
    ]
}
