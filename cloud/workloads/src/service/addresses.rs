//! Cluster addresses and node ports of Services.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde_json::{Value, json};

use crate::Settings;
use crate::meta::{terminating, uid};
use crate::names::Name;
use crate::plan::{Action, Note, Plan};
use crate::world::{Kind, World};

/// Addresses at the beginning of the range that are for what a cluster has by itself: the API, DNS.
const RESERVED: u32 = 16;

/// Addresses of Services: a network of at most 20 host bits is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The network's address.
    pub network: Ipv4Addr,
    /// Leading bits that all addresses share.
    pub bits: u32,
}

impl Range {
    fn size(self) -> u32 {
        1 << 32_u32.saturating_sub(self.bits).min(20)
    }

    fn address(self, nth: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().wrapping_add(nth))
    }

    /// An address that is not `taken`: where it is looked for first depends on `seed`, so that an address that became
    /// free is not at once somebody else's.
    pub fn free(self, taken: &BTreeSet<Ipv4Addr>, seed: &str) -> Option<Ipv4Addr> {
        let last = self.size().checked_sub(1).filter(|last| *last > RESERVED)?;
        let usable = last - RESERVED;
        let start = fnv1a(seed) % usable;
        let mut nth = (0..usable).map(|step| RESERVED + (start + step) % usable);
        nth.find_map(|nth| Some(self.address(nth)).filter(|address| !taken.contains(address)))
    }
}

fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// Gives a Service the address and the node ports that it lacks.
pub fn decide(world: &World, name: &Name, settings: &Settings) -> Plan {
    let Some(service) = world
        .services
        .get(name)
        .filter(|service| !terminating(&service.metadata))
    else {
        return Plan::default();
    };
    let Some(spec) = &service.spec else {
        return Plan::default();
    };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        return Plan::default();
    }
    let mut plan = Plan::default();
    let mut patch = json!({});
    if spec.cluster_ip.as_deref().unwrap_or_default().is_empty() {
        match settings
            .services
            .free(&taken_addresses(world), uid(&service.metadata))
        {
            Some(address) => {
                let address = address.to_string();
                patch["clusterIP"] = address.clone().into();
                patch["clusterIPs"] = json!([address]);
                patch["ipFamilies"] = json!(["IPv4"]);
                patch["ipFamilyPolicy"] = "SingleStack".into();
            }
            None => plan
                .notes
                .push(exhausted(service, "ClusterIPNotAllocated", "cluster address")),
        }
    }
    let open =
        kind == "NodePort" || kind == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false);
    if open && let Some(ports) = node_ports(world, service, spec, settings, &mut plan) {
        patch["ports"] = ports;
    }
    if patch.as_object().is_some_and(|patch| !patch.is_empty()) {
        let body = json!({
            "metadata": {"uid": service.metadata.uid, "resourceVersion": service.metadata.resource_version},
            "spec": patch,
        });
        plan.actions.push(Action::merge(Kind::Service, name, "", body));
    }
    plan
}

fn exhausted(service: &Service, reason: &'static str, what: &str) -> Note {
    Note::warning(service, reason, format!("no {what} is free"))
}

fn taken_addresses(world: &World) -> BTreeSet<Ipv4Addr> {
    let specs = world.services.iter().filter_map(|service| service.spec.as_ref());
    specs
        .filter_map(|spec| spec.cluster_ip.as_deref()?.parse().ok())
        .collect()
}

/// All ports of a Service, when one of them lacks its node port and gets it.
fn node_ports(
    world: &World,
    service: &Service,
    spec: &ServiceSpec,
    settings: &Settings,
    plan: &mut Plan,
) -> Option<Value> {
    let mut ports = spec.ports.clone().unwrap_or_default();
    let lacks = |port: Option<i32>| port.is_none_or(|port| port == 0);
    if !ports.iter().any(|port| lacks(port.node_port)) {
        return None;
    }
    let all = world.services.iter().filter_map(|service| service.spec.as_ref());
    let all = all.flat_map(|spec| spec.ports.iter().flatten());
    let mut taken: BTreeSet<i32> = all.filter_map(|port| port.node_port).collect();
    let size = settings
        .node_ports
        .end()
        .checked_sub(*settings.node_ports.start())?
        .checked_add(1)?;
    let size = u32::try_from(size).ok().filter(|size| *size > 0)?;
    let mut changed = false;
    for port in ports.iter_mut().filter(|port| lacks(port.node_port)) {
        let start = fnv1a(&format!("{}/{}", uid(&service.metadata), port.port)) % size;
        let mut tried = (0..size).filter_map(|step| {
            let nth = i32::try_from((start + step) % size).ok()?;
            settings.node_ports.start().checked_add(nth)
        });
        let Some(free) = tried.find(|number| !taken.contains(number)) else {
            plan.notes
                .push(exhausted(service, "PortNotAllocated", "node port"));
            break;
        };
        taken.insert(free);
        port.node_port = Some(free);
        changed = true;
    }
    changed.then(|| json!(ports))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_but_the_first_and_the_last_are_given_once() {
        let range = Range {
            network: Ipv4Addr::new(10, 96, 0, 0),
            bits: 27,
        };
        let mut taken = BTreeSet::new();
        while let Some(address) = range.free(&taken, "some uid") {
            assert!(taken.insert(address));
        }
        assert_eq!(taken.first(), Some(&Ipv4Addr::new(10, 96, 0, 16)));
        assert_eq!(taken.last(), Some(&Ipv4Addr::new(10, 96, 0, 30)));
        assert_eq!(taken.len(), 15);
        for bits in [0, 31, 32, 99] {
            let odd = Range { bits, ..range };
            assert_eq!(odd.free(&BTreeSet::new(), "x").is_some(), bits == 0, "{bits}");
        }
    }
}
