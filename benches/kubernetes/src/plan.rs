//! What is asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

/// The benchmarks.
const IDS: [&str; 7] = ["K1", "K2", "K3", "K4", "K5", "K6", "K7"];

/// How much of each is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    ids: Vec<String>,
    pub(crate) changes: u32,
    pub(crate) services: u32,
    pub(crate) nodes: u32,
    pub(crate) watchers: u32,
    pub(crate) rounds: u32,
    pub(crate) pods: u32,
    pub(crate) lists: u32,
    pub(crate) objects: u32,
    pub(crate) slice: Duration,
    pub(crate) settle: Duration,
}

/// What the program shall do.
#[derive(Debug)]
pub(crate) enum Asked {
    Help,
    Measure(Box<Plan>),
    /// Be the raw server that others are measured beside, with its files in this directory.
    Raw(PathBuf),
}

impl Plan {
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|wanted| wanted == id)
    }

    fn full() -> Plan {
        Plan {
            ids: Vec::new(),
            changes: 500,
            services: 1000,
            nodes: 100,
            watchers: 1000,
            rounds: 10,
            pods: 10_000,
            lists: 10,
            objects: 10_000,
            slice: Duration::from_secs(2),
            settle: Duration::from_secs(10),
        }
    }

    fn quick() -> Plan {
        Plan {
            changes: 50,
            services: 100,
            nodes: 10,
            rounds: 3,
            pods: 1000,
            lists: 3,
            objects: 1000,
            slice: Duration::from_millis(500),
            settle: Duration::from_secs(3),
            ..Plan::full()
        }
    }
}

/// Reads the arguments.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn parse(args: impl Iterator<Item = String>) -> anyhow::Result<Asked> {
    let args: Vec<String> = args.collect();
    if args.iter().any(|arg| arg == "--help") {
        return Ok(Asked::Help);
    }
    if let [first, dir] = args.as_slice()
        && first == "raw"
    {
        return Ok(Asked::Raw(dir.into()));
    }
    let quick = args.iter().any(|arg| arg == "--quick");
    let mut plan = if quick { Plan::quick() } else { Plan::full() };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if IDS.contains(&arg.as_str()) {
            plan.ids.push(arg);
            continue;
        }
        if arg == "--quick" {
            continue;
        }
        let mut milliseconds = 0;
        let number = match arg.as_str() {
            "--changes" => &mut plan.changes,
            "--services" => &mut plan.services,
            "--nodes" => &mut plan.nodes,
            "--watchers" => &mut plan.watchers,
            "--rounds" => &mut plan.rounds,
            "--pods" => &mut plan.pods,
            "--lists" => &mut plan.lists,
            "--objects" => &mut plan.objects,
            "--slice-ms" | "--settle-ms" => &mut milliseconds,
            _ => bail!("`{arg}` is neither a benchmark nor an option"),
        };
        let given = args.next().unwrap_or_default();
        *number = given
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("`{arg}` needs a number, not `{given}`"))?;
        let time = Duration::from_millis(milliseconds.into());
        match arg.as_str() {
            "--slice-ms" => plan.slice = time,
            "--settle-ms" => plan.settle = time,
            _ => {}
        }
    }
    Ok(Asked::Measure(Box::new(plan)))
}
