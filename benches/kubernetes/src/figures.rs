//! Percentiles, and what a process has used.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

/// The middle of `values`, and the one that 99 of 100 do not exceed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Percentiles {
    pub(crate) fn of(mut values: Vec<f64>) -> Percentiles {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let place = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(place).copied().unwrap_or_default()
        };
        Percentiles {
            p50: at(50),
            p99: at(99),
        }
    }

    /// Of times, in milliseconds.
    pub(crate) fn of_times(times: &[Duration]) -> Percentiles {
        Percentiles::of(times.iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }

    pub(crate) fn row(self) -> Value {
        json!({"p50": rounded(self.p50), "p99": rounded(self.p99)})
    }
}

/// Three digits after the point say enough.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Processor time of processes so far, in steps of 10 ms.
pub(crate) fn cpu(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut ticks = 0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name, which may hold anything: state is the 3rd field, utime the 14th, stime the 15th.
        let (_, rest) = stat.rsplit_once(')').context("stat has no name")?;
        let fields = rest.split_whitespace().skip(11).take(2);
        ticks += fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    // USER_HZ is 100 on every architecture Ledge is built for.
    Ok(Duration::from_millis(ticks * 10))
}

/// Memory of processes, in MB (1,000,000 bytes).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    /// Of it, memory of its own; the rest are pages of files.
    pub(crate) anonymous: f64,
}

impl Memory {
    pub(crate) fn of(pids: &[u32]) -> anyhow::Result<Memory> {
        let mut sum = Memory::default();
        for pid in pids {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let field = |name: &str| -> anyhow::Result<f64> {
                let line = rollup.lines().find_map(|line| line.strip_prefix(name));
                let word = line.and_then(|line| line.split_whitespace().next());
                let kib: f64 = word.context("smaps_rollup is not as expected")?.parse()?;
                Ok(kib * 1024.0 / 1e6)
            };
            sum.resident += field("Rss:")?;
            sum.anonymous += field("Anonymous:")?;
        }
        Ok(sum)
    }

    pub(crate) fn row(self) -> Value {
        json!({
            "resident": rounded(self.resident), "anonymous": rounded(self.anonymous),
            "files": rounded(self.resident - self.anonymous),
        })
    }
}
