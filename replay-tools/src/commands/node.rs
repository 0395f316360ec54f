//! `ledge node`: the nodes of a running cloudcore, and decisions about them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Context, http};
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::table;

const EXAMPLES: &str = "\
Examples:
  ledge node list                                     every node, its link, and whether it is in quarantine
  ledge node show edge-1
  ledge node resolve edge-1 --accept this-disk        the disk that was turned away is the right one
  ledge node resolve edge-1 --accept new-incarnation  whichever disk connects next is the right one

A node is put in quarantine when two disks claim to be it, or when its history and the cloud's have gone different ways.
Nothing is lost by waiting: the node goes on working alone. Stop the copies that are not to go on before you decide.";

/// Nodes of a running cloudcore: list, show, resolve.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Node {
    /// Where cloudcore serves HTTP. Decisions are taken on its own machine only.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9091",
        env = "LEDGE_CLOUD_HTTP"
    )]
    address: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List every node the cloud knows.
    List,
    /// Show one node with its disk, its link and its devices.
    Show {
        /// The node's name.
        node: String,
    },
    /// End a quarantine. Exit code 1 when the node is not in one.
    Resolve {
        /// The node's name.
        node: String,
        /// Which disk is let in.
        #[arg(long, value_enum)]
        accept: Accept,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Accept {
    /// The one that was turned away when the quarantine began.
    ThisDisk,
    /// Whichever connects next; it goes on from where the cloud's copy ends.
    NewIncarnation,
}

impl Accept {
    fn name(self) -> &'static str {
        match self {
            Accept::ThisDisk => "this-disk",
            Accept::NewIncarnation => "new-incarnation",
        }
    }
}

pub(crate) fn run(args: &Node, context: &mut Context) -> Result<Code, Quit> {
    match &args.what {
        What::List => list(args, context),
        What::Show { node } => show(args, node, context),
        What::Resolve { node, accept } => {
            let body = json!({"accept": accept.name()}).to_string();
            let told = answer(
                http::post(
                    &args.address,
                    &format!("/v1/nodes/{}/resolve", name(node)?),
                    &body,
                ),
                args,
            )?;
            if !context
                .out
                .document(&json!({"node": node, "accept": accept.name()}))?
            {
                context.out.text(&told)?;
            }
            Ok(Code::Yes)
        }
    }
}

fn list(args: &Node, context: &mut Context) -> Result<Code, Quit> {
    let nodes = get(args, "/v1/nodes")?;
    if context.out.document(&nodes)? {
        return Ok(Code::Yes);
    }
    let columns = [
        table::text("NODE"),
        table::text("LINK"),
        table::number("LAG"),
        table::number("SESSIONS"),
        table::text("DISK"),
        table::text("DAMAGED"),
        table::text("QUARANTINE"),
    ];
    let mut rows = context.out.table(&columns);
    for node in nodes.as_array().into_iter().flatten() {
        let cells = vec![
            text(&node["name"]),
            link(&node["link"]),
            node["link"]["lagRecords"]
                .as_u64()
                .map_or_else(String::new, |lag| lag.to_string()),
            text(&node["disk"]["sessions"]),
            text(&node["disk"]["incarnation"]).chars().take(8).collect(),
            damaged(node),
            quarantine(&node["disk"]),
        ];
        rows.row(&mut context.out, cells)?;
    }
    rows.flush(&mut context.out)?;
    Ok(Code::Yes)
}

fn show(args: &Node, node: &str, context: &mut Context) -> Result<Code, Quit> {
    let shown = get(args, &format!("/v1/nodes/{}", name(node)?))?;
    if context.out.document(&shown)? {
        return Ok(Code::Yes);
    }
    let disk = &shown["disk"];
    let mut lines = vec![
        ("node", text(&shown["name"])),
        ("link", link(&shown["link"])),
        ("disk", text(&disk["incarnation"])),
        ("sessions", text(&disk["sessions"])),
        ("epoch", text(&disk["epoch"])),
        ("replaced disks", text(&disk["closedIncarnations"])),
        ("state hash", text(&shown["stateHash"])),
        ("values ahead", text(&shown["valuesAhead"])),
        (
            "devices",
            shown["devices"]
                .as_object()
                .map_or(0, serde_json::Map::len)
                .to_string(),
        ),
        ("damaged", damaged(&shown)),
        ("quarantine", quarantine(disk)),
    ];
    if let Some(message) = disk["quarantine"]["message"].as_str() {
        lines.push(("because", message.to_owned()));
    }
    for (what, value) in lines {
        let value = crate::human::plain(&value);
        context.out.text(&format!("{what:<15} {value}\n"))?;
    }
    Ok(Code::Yes)
}

fn link(link: &Value) -> String {
    let age = Duration::from_secs_f64(link["ageSeconds"].as_f64().unwrap_or(0.0).max(0.0)).as_secs();
    match link["connected"].as_bool() {
        Some(true) => format!("up ({age}s ago)"),
        Some(false) => format!("down ({age}s ago)"),
        None => "unknown".to_owned(),
    }
}

/// Records that cannot be read, and on which side.
fn damaged(node: &Value) -> String {
    let sides = [
        ("node", &node["link"]["unreadableRecords"]),
        ("cloud", &node["unreadableRecords"]),
    ];
    let some = sides.map(|(side, count)| (side, count.as_u64().unwrap_or(0)));
    let said: Vec<String> = some
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(side, count)| format!("{side} {count}"))
        .collect();
    if said.is_empty() {
        "no".to_owned()
    } else {
        said.join(", ")
    }
}

fn quarantine(disk: &Value) -> String {
    match disk["quarantine"]["reason"].as_str() {
        Some(reason) => reason.to_owned(),
        None if disk["awaited"] == true => "decided, awaited".to_owned(),
        None => "no".to_owned(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A node's name, safe in a path.
fn name(node: &str) -> Result<&str, Failure> {
    match ledge_proto::ids::Scope::node(node) {
        Ok(_) => Ok(node),
        Err(err) => Err(Failure::usage(err.to_string())),
    }
}

fn get(args: &Node, path: &str) -> Result<Value, Quit> {
    let body = answer(http::get(&args.address, path), args)?;
    serde_json::from_str(&body)
        .map_err(|err| Failure::new(format!("{} answered with something else: {err}", args.address)).into())
}

fn answer(answered: Result<String, http::HttpError>, args: &Node) -> Result<String, Failure> {
    answered.map_err(|err| match err {
        http::HttpError::Status(_, message) => Failure::new(message.trim().to_owned()),
        http::HttpError::Io(err) => {
            Failure::unreachable(format!("no cloudcore answers on {}: {err}", args.address))
                .hint("name its HTTP address with --address")
        }
    })
}
