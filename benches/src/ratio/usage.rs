//! What a process has used so far.

use std::ops::{Add, Sub};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time and bytes sent to the device.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) device_write_bytes: u64,
}

impl Usage {
    pub(super) fn now() -> Usage {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(cpu.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(cpu.tv_nsec).unwrap_or(0);
        Usage {
            cpu: Duration::new(seconds, nanos),
            device_write_bytes: write_bytes("self"),
        }
    }

    /// Of another process, in steps of 10 ms; nothing where the kernel does not say.
    pub(super) fn of(pid: u32) -> Usage {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may hold anything: state is the 3rd field, utime the 14th, stime the 15th.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Usage {
            // USER_HZ is 100 on every architecture Ledge is built for.
            cpu: Duration::from_millis(ticks * 10),
            device_write_bytes: write_bytes(&pid.to_string()),
        }
    }
}

/// `write_bytes` of /proc/PID/io: pages made dirty, which is what reaches the device when they are synced.
/// 0 where the kernel does not say.
fn write_bytes(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

impl Add for Usage {
    type Output = Usage;

    fn add(self, other: Usage) -> Usage {
        Usage {
            cpu: self.cpu + other.cpu,
            device_write_bytes: self.device_write_bytes + other.device_write_bytes,
        }
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, other: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(other.cpu),
            device_write_bytes: self.device_write_bytes.saturating_sub(other.device_write_bytes),
        }
    }
}
