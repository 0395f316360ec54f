//! What pods ask for, and what nodes have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::milli;

/// Amounts in thousandths, by resource.
pub type Amounts = BTreeMap<String, i128>;

/// What a container that says nothing is counted as when load is compared: 100 millicores and 200 MB, as upstream.
const USUAL: [(&str, i128); 2] = [("cpu", 100), ("memory", 200 * 1024 * 1024 * 1000)];

/// A port of a node: protocol, address, number.
pub type HostPort = (String, String, i32);

fn amounts(from: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let pairs = from.into_iter().flatten();
    pairs
        .filter_map(|(name, quantity)| Some((name.clone(), milli(quantity)?)))
        .collect()
}

fn of_container(container: &Container, usual: bool) -> Amounts {
    let resources = container.resources.as_ref();
    let mut amounts = amounts(resources.and_then(|resources| resources.requests.as_ref()));
    if usual {
        for (name, amount) in USUAL {
            amounts.entry(name.to_owned()).or_insert(amount);
        }
    }
    amounts
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = sum.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(to: &mut Amounts, at_least: &Amounts) {
    for (name, amount) in at_least {
        let to = to.entry(name.clone()).or_default();
        *to = (*to).max(*amount);
    }
}

/// What a pod asks for: what its containers ask for together, or more if one that runs before them asks for more. With
/// `usual`, those that say nothing count too.
pub fn of_pod(pod: &Pod, usual: bool) -> Amounts {
    let Some(spec) = &pod.spec else {
        return Amounts::new();
    };
    let mut together = Amounts::new();
    for container in &spec.containers {
        add(&mut together, &of_container(container, usual));
    }
    let mut before = Amounts::new();
    let mut beside = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let mut amounts = of_container(container, usual);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut together, &amounts);
            add(&mut beside, &amounts);
            amounts = beside.clone();
        } else {
            add(&mut amounts, &beside);
        }
        raise(&mut before, &amounts);
    }
    raise(&mut together, &before);
    add(&mut together, &amounts(spec.overhead.as_ref()));
    together
}

/// Ports of its node that a pod takes.
pub fn host_ports(pod: &Pod) -> BTreeSet<HostPort> {
    let spec = pod.spec.as_ref();
    let own_network = spec.and_then(|spec| spec.host_network) == Some(true);
    // Those that run beside the others hold their ports as long.
    let beside = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    let beside = beside.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.into_iter().flat_map(|spec| &spec.containers).chain(beside);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let on_node = port.host_port.or(own_network.then_some(port.container_port));
            let number = on_node.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let address = port.host_ip.clone().filter(|address| !address.is_empty());
            Some((protocol, address.unwrap_or_else(|| "0.0.0.0".to_owned()), number))
        })
        .collect()
}

/// What a node lets pods have.
pub fn of_node(node: &Node) -> Amounts {
    let status = node.status.as_ref();
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    amounts(allocatable.or_else(|| status?.capacity.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"spec": spec})).unwrap()
    }

    #[test]
    fn containers_before_and_beside_the_others() {
        let asks = |cpu: &str| serde_json::json!({"requests": {"cpu": cpu}});
        let pod = pod(serde_json::json!({
            "containers": [{"name": "a", "resources": asks("1")}, {"name": "b", "resources": asks("500m")}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": asks("100m")},
                {"name": "i", "resources": asks("2")},
            ],
            "overhead": {"cpu": "10m"},
        }));
        assert_eq!(of_pod(&pod, false)["cpu"], 2100 + 10);
    }

    #[test]
    fn what_says_nothing_counts_only_for_load() {
        let pod = pod(serde_json::json!({"containers": [{"name": "a"}]}));
        assert!(of_pod(&pod, false).is_empty());
        assert_eq!(of_pod(&pod, true)["cpu"], 100);
    }
}
