//! Cells of pods.

use serde_json::Value;

use super::{NONE, computed, condition, flag, items, number, text, text_or};
use crate::meta::time_us;
use crate::resource::ColumnSource;
use crate::table::since;

pub(super) fn source(column: &str) -> Option<ColumnSource> {
    match column {
        "Ready" => computed(|pod, _| {
            let sum = Sum::of(pod);
            format!("{}/{}", sum.ready, sum.total).into()
        }),
        "Status" => computed(|pod, _| Sum::of(pod).reason.into()),
        "Restarts" => computed(|pod, now_us| {
            let restarts = Sum::of(pod).restarts;
            match restarts.last {
                Some((_, last)) if restarts.count != 0 => {
                    format!("{} ({} ago)", restarts.count, since(last, now_us)).into()
                }
                _ => restarts.count.to_string().into(),
            }
        }),
        "IP" => computed(|pod, _| text_or(pod, "/status/podIPs/0/ip", NONE).into()),
        "Node" => computed(|pod, _| text_or(pod, "/spec/nodeName", NONE).into()),
        "Nominated Node" => computed(|pod, _| text_or(pod, "/status/nominatedNodeName", NONE).into()),
        "Readiness Gates" => computed(|pod, _| match items(pod, "/spec/readinessGates") {
            [] => NONE.into(),
            gates => {
                let open = gates
                    .iter()
                    .filter(|gate| condition(pod, text(gate, "/conditionType")));
                format!("{}/{}", open.count(), gates.len()).into()
            }
        }),
        _ => None,
    }
}

/// Restarts of containers, and the end of the last run before one.
#[derive(Default, Clone, Copy)]
struct Restarts<'v> {
    count: i64,
    last: Option<(i64, &'v Value)>,
}

impl<'v> Restarts<'v> {
    fn add(&mut self, container: &'v Value) {
        self.count += number(container, "/restartCount");
        let finished = container.pointer("/lastState/terminated/finishedAt");
        let finished = finished.and_then(|time| Some((time_us(time.as_str()?)?, time)));
        if let Some((at, _)) = finished
            && self.last.is_none_or(|(last, _)| last < at)
        {
            self.last = finished;
        }
    }
}

/// What the containers of a pod come to.
struct Sum<'v> {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts<'v>,
}

impl<'v> Sum<'v> {
    fn of(pod: &'v Value) -> Sum<'v> {
        let phase = text(pod, "/status/phase");
        let mut reason = text_or(pod, "/status/reason", phase).to_owned();
        let gated = items(pod, "/status/conditions")
            .iter()
            .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
        if gated {
            "SchedulingGated".clone_into(&mut reason);
        }
        let inits = items(pod, "/spec/initContainers");
        let sidecars = inits.iter().filter(|init| init["restartPolicy"] == "Always");
        let mut sum = Sum {
            ready: 0,
            total: items(pod, "/spec/containers").len() + sidecars.count(),
            reason,
            restarts: Restarts::default(),
        };
        let mut sidecar_restarts = Restarts::default();
        let initializing = sum.initialize(pod, inits, &mut sidecar_restarts);
        if !initializing || condition(pod, "Initialized") {
            sum.restarts = sidecar_restarts;
            sum.run(pod);
        }
        if pod
            .pointer("/metadata/deletionTimestamp")
            .is_some_and(Value::is_string)
        {
            if text(pod, "/status/reason") == "NodeLost" {
                "Unknown".clone_into(&mut sum.reason);
            } else if !matches!(phase, "Failed" | "Succeeded") {
                "Terminating".clone_into(&mut sum.reason);
            }
        }
        sum
    }

    /// Goes through the init containers; whether one of them is not over yet.
    fn initialize(&mut self, pod: &'v Value, inits: &[Value], sidecar_restarts: &mut Restarts<'v>) -> bool {
        for (n, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
            let sidecar = inits
                .iter()
                .any(|init| init["name"] == status["name"] && init["restartPolicy"] == "Always");
            self.restarts.add(status);
            if sidecar {
                sidecar_restarts.add(status);
            }
            let terminated = status
                .pointer("/state/terminated")
                .filter(|state| state.is_object());
            if terminated.is_some_and(|state| number(state, "/exitCode") == 0) {
                continue;
            }
            if sidecar && flag(status, "/started") {
                self.ready += usize::from(flag(status, "/ready"));
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.reason = match terminated {
                Some(state) => format!("Init:{}", ended(state)),
                None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
                None => format!("Init:{n}/{}", inits.len()),
            };
            return true;
        }
        false
    }

    /// Goes through the containers: the first one's reason is the one that is shown.
    fn run(&mut self, pod: &'v Value) {
        let mut running = false;
        for status in items(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            let waiting = text(status, "/state/waiting/reason");
            let terminated = status
                .pointer("/state/terminated")
                .filter(|state| state.is_object());
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(state) = terminated {
                self.reason = ended(state);
            } else if flag(status, "/ready") && status.pointer("/state/running").is_some_and(Value::is_object)
            {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = items(pod, "/status/conditions")
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.reason);
        }
    }
}

/// Why a container ended.
fn ended(state: &Value) -> String {
    match (text(state, "/reason"), number(state, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(state, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
