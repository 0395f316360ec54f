//! Slices of A (raw) and B (ours) in turn, and what they come to.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::perf::Perf;
use super::usage::Usage;

/// How long and how often.
#[derive(Debug)]
pub struct Plan {
    /// Length of one slice.
    pub slice: Duration,
    /// Rounds of four slices: raw, ours, ours, raw.
    pub rounds: usize,
    /// Smaller data sets.
    pub quick: bool,
    /// Run the slices of one side and leave out those of the other: for a profile, there is no ratio then.
    pub only: Option<Side>,
    /// A profiler to tell when the time that counts begins and ends.
    pub perf: Option<Perf>,
}

/// One of the two that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What the machine can do.
    Raw,
    /// Ledge.
    Ours,
}

impl Plan {
    /// 250 ms, 20 slices of each.
    pub fn full() -> Plan {
        Plan {
            slice: Duration::from_millis(250),
            rounds: 10,
            quick: false,
            only: None,
            perf: None,
        }
    }

    /// A look, not a measurement.
    pub fn quick() -> Plan {
        Plan {
            slice: Duration::from_millis(60),
            rounds: 3,
            quick: true,
            only: None,
            perf: None,
        }
    }
}

impl Plan {
    fn runs(&self, side: Side) -> bool {
        self.only.is_none_or(|only| only == side)
    }

    /// The time that counts begins.
    pub(super) fn begin(&self) -> std::io::Result<()> {
        self.perf.as_ref().map_or(Ok(()), Perf::enable)
    }

    /// The time that counts is over.
    pub(super) fn end(&self) -> std::io::Result<()> {
        self.perf.as_ref().map_or(Ok(()), Perf::disable)
    }
}

/// What one slice did.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// Units of work.
    pub(super) units: f64,
    /// Time they took. Preparation inside a slice is not counted.
    pub(super) busy: Duration,
    /// Latency of each operation, microseconds, where that is of interest.
    pub(super) latencies_us: Vec<f64>,
    /// What was used in the time that counts; `None`: by this process in all of the slice.
    pub(super) usage: Option<Usage>,
    /// Bytes of payload in all units; 0 where bytes are not what is moved.
    pub(super) bytes: f64,
    /// Flushes of a file that made data durable, where they can be counted.
    pub(super) syncs: Option<u64>,
}

impl Slice {
    /// This slice, each of whose units is `bytes` bytes of payload.
    pub(super) fn of_bytes(self, bytes: f64) -> Slice {
        Slice {
            bytes: self.units * bytes,
            ..self
        }
    }

    /// This slice, in which `syncs` flushes were counted.
    pub(super) fn with_syncs(self, syncs: u64) -> Slice {
        Slice {
            syncs: Some(syncs),
            ..self
        }
    }
}

/// One line of output.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which benchmark, with its variant.
    pub id: String,
    /// Median of the raw slices.
    pub raw: f64,
    /// Median of ours.
    pub ours: f64,
    /// Median over rounds of ours against raw.
    pub ratio: f64,
    /// The worst round.
    pub ratio_min: f64,
    /// What the ratio should be at least; for amplification at most.
    pub target: f64,
    /// Whether the target is met.
    pub met: bool,
    /// Of `raw` and `ours`.
    pub unit: &'static str,
    /// How both sides make data durable.
    pub flush: &'static str,
    /// Slices of each side.
    pub slices: usize,
    /// 99th percentile of latency, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_p99_us: Option<f64>,
    /// 99th percentile of latency, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_p99_us: Option<f64>,
    /// Processor seconds per unit of raw.
    pub raw_cpu_s_per_unit: f64,
    /// Processor seconds per unit of ours.
    pub ours_cpu_s_per_unit: f64,
    /// Processor seconds per GB of payload, where bytes are what is moved.
    pub raw_cpu_s_per_gb: Option<f64>,
    /// Processor seconds per GB of payload, where bytes are what is moved.
    pub ours_cpu_s_per_gb: Option<f64>,
    /// Bytes raw had written to the device, in all slices.
    pub raw_device_write_bytes: u64,
    /// Bytes ours had written to the device, in all slices.
    pub ours_device_write_bytes: u64,
    /// Flushes of a file by raw in all slices; `None` where nobody counts them.
    pub raw_syncs: Option<u64>,
    /// Flushes of a file by our log in all slices; `None` where nobody counts them.
    pub ours_syncs: Option<u64>,
    /// Anything else worth knowing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Why there are no figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Row {
    /// A row without figures yet.
    pub(super) fn empty(what: Comparison) -> Row {
        Row {
            id: what.id,
            raw: f64::NAN,
            ours: f64::NAN,
            ratio: f64::NAN,
            ratio_min: f64::NAN,
            target: what.target,
            met: false,
            unit: what.unit,
            flush: what.flush,
            slices: 0,
            raw_p99_us: None,
            ours_p99_us: None,
            raw_cpu_s_per_unit: f64::NAN,
            ours_cpu_s_per_unit: f64::NAN,
            raw_cpu_s_per_gb: None,
            ours_cpu_s_per_gb: None,
            raw_device_write_bytes: 0,
            ours_device_write_bytes: 0,
            raw_syncs: None,
            ours_syncs: None,
            note: String::new(),
            skipped: None,
        }
    }

    /// A row that was not measured, and why.
    pub(super) fn skipped(what: Comparison, reason: String) -> Row {
        Row {
            skipped: Some(reason),
            ..Row::empty(what)
        }
    }
}

/// What is being compared.
pub(super) struct Comparison {
    pub(super) id: String,
    pub(super) unit: &'static str,
    pub(super) flush: &'static str,
    pub(super) target: f64,
}

/// Runs both sides in turn. Numbers of a side that the plan leaves out are NaN.
pub(super) fn compare(
    what: Comparison,
    plan: &Plan,
    raw: &mut dyn FnMut(&Plan) -> anyhow::Result<Slice>,
    ours: &mut dyn FnMut(&Plan) -> anyhow::Result<Slice>,
) -> anyhow::Result<Row> {
    let mut totals = [Totals::default(), Totals::default()];
    let mut run = |side| match side {
        Side::Raw => raw(plan),
        Side::Ours => ours(plan),
    };
    // Once each to warm up.
    for side in [Side::Raw, Side::Ours] {
        if plan.runs(side) {
            run(side)?;
        }
    }
    let mut ratios = Vec::new();
    for _ in 0..plan.rounds {
        let mut rates = [0.0; 2];
        for side in [Side::Raw, Side::Ours, Side::Ours, Side::Raw] {
            if plan.runs(side) {
                let before = Usage::now();
                let slice = run(side)?;
                let usage = slice.usage.unwrap_or_else(|| Usage::now() - before);
                rates[side as usize] += totals[side as usize].add(slice, usage);
            }
        }
        if plan.only.is_none() {
            ratios.push(rates[Side::Ours as usize] / rates[Side::Raw as usize]);
        }
    }
    let [raw, ours] = totals;
    let ratio = median(&mut ratios);
    let target = what.target;
    Ok(Row {
        raw: round(median(&mut raw.rates.clone())),
        ours: round(median(&mut ours.rates.clone())),
        ratio: round(ratio),
        ratio_min: round(ratios.first().copied().unwrap_or(f64::NAN)),
        met: ratio >= target,
        slices: plan.rounds * 2,
        raw_p99_us: raw.p99(),
        ours_p99_us: ours.p99(),
        raw_cpu_s_per_unit: raw.cpu_per(raw.units),
        ours_cpu_s_per_unit: ours.cpu_per(ours.units),
        raw_cpu_s_per_gb: raw.cpu_per_gb(),
        ours_cpu_s_per_gb: ours.cpu_per_gb(),
        raw_device_write_bytes: raw.usage.device_write_bytes,
        ours_device_write_bytes: ours.usage.device_write_bytes,
        raw_syncs: raw.syncs,
        ours_syncs: ours.syncs,
        ..Row::empty(what)
    })
}

#[derive(Default)]
struct Totals {
    rates: Vec<f64>,
    latencies_us: Vec<f64>,
    usage: Usage,
    units: f64,
    bytes: f64,
    syncs: Option<u64>,
}

impl Totals {
    fn add(&mut self, slice: Slice, usage: Usage) -> f64 {
        let rate = slice.units / slice.busy.as_secs_f64();
        self.rates.push(rate);
        self.latencies_us.extend(slice.latencies_us);
        self.units += slice.units;
        self.bytes += slice.bytes;
        if let Some(syncs) = slice.syncs {
            self.syncs = Some(self.syncs.unwrap_or(0) + syncs);
        }
        self.usage = self.usage + usage;
        rate
    }

    fn p99(&self) -> Option<f64> {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * 99 / 100).copied().map(round)
    }

    fn cpu_per(&self, amount: f64) -> f64 {
        round(self.usage.cpu.as_secs_f64() / amount)
    }

    fn cpu_per_gb(&self) -> Option<f64> {
        (self.bytes > 0.0).then(|| self.cpu_per(self.bytes / 1e9))
    }
}

/// Repeats `operation` for the length of a slice, timing each call. It returns the units it did.
pub(super) fn repeat(
    plan: &Plan,
    mut operation: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Slice> {
    let mut slice = Slice::default();
    plan.begin()?;
    let start = Instant::now();
    let mut last = start;
    while last - start < plan.slice {
        slice.units += operation()?;
        let now = Instant::now();
        slice.latencies_us.push((now - last).as_secs_f64() * 1e6);
        last = now;
    }
    slice.busy = last - start;
    plan.end()?;
    Ok(slice)
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Four significant digits: more would pretend.
pub(super) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powf(3.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}
