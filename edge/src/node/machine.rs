//! What the kernel says of this machine, as Kubernetes' node status tells it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::boot_id;

/// Which Kubernetes the node behaves like, and what it is: clients compare the first part with an API server's version.
const KUBELET_VERSION: &str = concat!("v1.34.4-ledge-v", env!("CARGO_PKG_VERSION"));

/// What runs short, at which share left over, and when it is over: a value at the border would be told again and again.
const SHORT: [Short; 3] = [
    Short {
        condition: "MemoryPressure",
        begins: 0.05,
        ends: 0.08,
        reasons: ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
        messages: ["memory available", "less than 5 % of the memory is available"],
    },
    Short {
        condition: "DiskPressure",
        begins: 0.05,
        ends: 0.08,
        reasons: ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
        messages: [
            "space left where the data directory is",
            "less than 5 % is left where the data directory is",
        ],
    },
    Short {
        condition: "PIDPressure",
        begins: 0.05,
        ends: 0.10,
        reasons: ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
        messages: ["process ids left", "less than 5 % of the process ids are left"],
    },
];

struct Short {
    condition: &'static str,
    begins: f64,
    ends: f64,
    /// When there is enough, and when not: kubelet's words.
    reasons: [&'static str; 2],
    messages: [&'static str; 2],
}

/// What was read, before it is compared with what was said. `None`: the kernel does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Machine {
    processors: u64,
    memory_kib: u64,
    disk_bytes: u64,
    /// Shares that are left of memory, disk and process ids.
    left: [Option<f64>; 3],
    address: Option<IpAddr>,
    kernel: String,
    os: String,
    machine_id: String,
    boot_id: String,
}

impl Machine {
    /// Reads it. `cloud` tells which of the machine's addresses others are reached from.
    pub(crate) fn read(data_dir: &Path, cloud: Option<SocketAddr>) -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = text("/proc/meminfo");
        let memory_kib = kib(&memory, "MemTotal:").unwrap_or(0);
        let available = kib(&memory, "MemAvailable:");
        let disk = rustix::fs::statvfs(data_dir).ok();
        let pid_max: Option<u64> = text("/proc/sys/kernel/pid_max").trim().parse().ok();
        let processors = text("/proc/cpuinfo")
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        let parallel = std::thread::available_parallelism().map_or(1, usize::from);
        Machine {
            // Not every architecture's cpuinfo has such lines.
            processors: u64::try_from(if processors == 0 { parallel } else { processors }).unwrap_or(1),
            memory_kib,
            disk_bytes: disk
                .as_ref()
                .map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
            left: [
                available.and_then(|available| share(available, memory_kib)),
                disk.and_then(|disk| share(disk.f_bavail, disk.f_blocks)),
                pid_max.and_then(|max| share(max.saturating_sub(tasks(&text("/proc/loadavg"))?), max)),
            ],
            address: own_address(cloud),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            os: pretty_name(&text("/etc/os-release")),
            machine_id: text("/etc/machine-id").trim().to_owned(),
            boot_id: boot_id(),
        }
    }

    /// The status of the node `name`, now `time`, after it said `before` (null at first).
    pub(crate) fn status(&self, name: &str, before: &Value, time: &str) -> Value {
        let mut addresses = Vec::new();
        if let Some(address) = self.address {
            addresses.push(json!({ "type": "InternalIP", "address": address.to_string() }));
        }
        addresses.push(json!({ "type": "Hostname", "address": name }));
        let conditions: Vec<Value> = SHORT
            .iter()
            .zip(self.left)
            .filter_map(|(short, left)| Some(condition(short, left?, before, time)))
            .collect();
        let capacity = json!({
            "cpu": self.processors.to_string(),
            "memory": format!("{}Ki", self.memory_kib),
            "ephemeral-storage": format!("{}Ki", self.disk_bytes / 1024),
            "pods": "110",
        });
        json!({
            "addresses": addresses,
            "allocatable": capacity,
            "capacity": capacity,
            "conditions": conditions,
            "nodeInfo": {
                "architecture": architecture(),
                "bootID": self.boot_id,
                "containerRuntimeVersion": "",
                "kernelVersion": self.kernel,
                "kubeProxyVersion": "",
                "kubeletVersion": KUBELET_VERSION,
                "machineID": self.machine_id,
                "operatingSystem": "linux",
                "osImage": self.os,
                "systemUUID": self.machine_id,
            },
        })
    }
}

fn condition(short: &Short, left: f64, before: &Value, time: &str) -> Value {
    let conditions = before["conditions"].as_array();
    let said = conditions.and_then(|all| all.iter().find(|one| one["type"] == short.condition));
    let was = said.is_some_and(|said| said["status"] == "True");
    let is = left < if was { short.ends } else { short.begins };
    let since = said
        .filter(|_| was == is)
        .and_then(|said| said["lastTransitionTime"].as_str());
    let mut out = Map::new();
    for (field, text) in [
        ("type", short.condition),
        ("status", if is { "True" } else { "False" }),
        ("lastTransitionTime", since.unwrap_or(time)),
        ("reason", short.reasons[usize::from(is)]),
        ("message", short.messages[usize::from(is)]),
    ] {
        out.insert(field.to_owned(), text.into());
    }
    out.into()
}

#[allow(clippy::cast_precision_loss, reason = "a share needs no more")]
fn share(left: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| left as f64 / of as f64)
}

/// A line of /proc/meminfo.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// How many tasks there are: the second number of `running/all` in /proc/loadavg.
fn tasks(text: &str) -> Option<u64> {
    let (_, all) = text.split_whitespace().nth(3)?.split_once('/')?;
    all.parse().ok()
}

fn pretty_name(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = line.unwrap_or("Linux").trim_matches('"');
    name.chars().take(256).collect()
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The address that packets to the cloud leave from; nothing is sent.
fn own_address(cloud: Option<SocketAddr>) -> Option<IpAddr> {
    // An address for documentation (RFC 5737): it takes the default route.
    let to = cloud.unwrap_or((Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(left: f64) -> Machine {
        Machine {
            processors: 4,
            memory_kib: 1000,
            disk_bytes: 1 << 30,
            left: [Some(left), Some(1.0), None],
            ..Machine::default()
        }
    }

    fn pressure(status: &Value) -> (&str, &str) {
        let condition = &status["conditions"][0];
        (
            condition["status"].as_str().unwrap(),
            condition["lastTransitionTime"].as_str().unwrap(),
        )
    }

    #[test]
    fn a_border_is_crossed_once() {
        let mut said = Value::Null;
        let mut seen = Vec::new();
        for (n, left) in [0.5, 0.06, 0.049, 0.051, 0.079, 0.081, 0.06]
            .into_iter()
            .enumerate()
        {
            let status = machine(left).status("edge-1", &said, &format!("t{n}"));
            let (status_now, since) = pressure(&status);
            seen.push(format!("{status_now} {since}"));
            said = status;
        }
        assert_eq!(
            seen,
            [
                "False t0", "False t0", "True t2", "True t2", "True t2", "False t5", "False t5"
            ]
        );
        // What the kernel does not say is not said.
        assert_eq!(said["conditions"].as_array().unwrap().len(), 2);
        assert_eq!(said["capacity"]["memory"], "1000Ki");
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(
            kib("MemTotal:       16384 kB\nMemAvailable: 1 kB", "MemTotal:"),
            Some(16384)
        );
        assert_eq!(kib("", "MemTotal:"), None);
        assert_eq!(tasks("0.0 0.0 0.0 2/345 6789"), Some(345));
        assert_eq!(tasks("nonsense"), None);
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Some Linux 13\"\n"),
            "Some Linux 13"
        );
        let here = Machine::read(Path::new("/"), None);
        assert!(here.processors > 0 && here.memory_kib > 0 && here.disk_bytes > 0);
        // Read twice, nothing that is told differs.
        let said = here.status("edge-1", &Value::Null, "t0");
        let again = Machine::read(Path::new("/"), None).status("edge-1", &said, "t1");
        assert_eq!(said, again);
    }
}
