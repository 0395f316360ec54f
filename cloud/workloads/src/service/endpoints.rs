//! Endpoints and EndpointSlices: what a Service's address leads to.
//!
//! Those of a Service without a selector are somebody else's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::backends::{Backend, Port, backends, has_selector};
use crate::hash;
use crate::meta::{Labels, owner_reference, terminating, uid};
use crate::names::Name;
use crate::plan::{Action, Plan};
use crate::pods::label;
use crate::world::{Kind, World};

/// Endpoints in one slice.
const PER_SLICE: usize = 100;
/// Addresses in one Endpoints object: more are in slices only, as upstream.
const ADDRESSES_MAX: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const CONTROLLER: &str = "endpoint-controller";
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Brings the endpoints of a Service up to date.
pub fn decide(world: &World, name: &Name) -> Plan {
    let Some(service) = world.services.get(name) else {
        return Plan::of(gone(world, name));
    };
    let chosen = service.spec.as_ref().is_some_and(has_selector);
    if !chosen || terminating(&service.metadata) {
        return Plan::default();
    }
    let groups = backends(world, service);
    let mut actions: Vec<Action> = endpoints(world, name, service, &groups).into_iter().collect();
    actions.extend(slices(world, name, service, &groups));
    Plan::of(actions)
}

/// The Endpoints object of a Service that is gone; its slices go as its dependents.
fn gone(world: &World, name: &Name) -> Vec<Action> {
    let endpoints = world.endpoints.get(name);
    let ours = endpoints.filter(|one| label(&one.metadata, MANAGED_BY).is_some_and(|by| by == CONTROLLER));
    ours.map(|endpoints| Action::delete(&**endpoints))
        .into_iter()
        .collect()
}

fn unready_too(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        == Some(true)
}

/// Labels for the objects of a Service: its own, and whether it is headless.
fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    match address {
        Some("None") => labels.insert(HEADLESS.to_owned(), String::new()),
        _ => labels.remove(HEADLESS),
    };
    labels
}

fn endpoints(
    world: &World,
    name: &Name,
    service: &Service,
    groups: &BTreeMap<Vec<Port>, Vec<Backend>>,
) -> Option<Action> {
    let (mut subsets, mut left) = (Vec::new(), ADDRESSES_MAX);
    let mut cut = false;
    for (ports, backends) in groups {
        let (mut ready, mut unready) = (Vec::new(), Vec::new());
        let tolerant = unready_too(service);
        let alive = backends.iter().filter(|backend| tolerant || !backend.terminating);
        for backend in alive {
            if left == 0 {
                cut = true;
                break;
            }
            left -= 1;
            let list = if backend.serving || tolerant {
                &mut ready
            } else {
                &mut unready
            };
            list.push(address(backend));
        }
        if ready.is_empty() && unready.is_empty() {
            continue;
        }
        let some = |list: Vec<EndpointAddress>| Some(list).filter(|list| !list.is_empty());
        let ports: Vec<EndpointPort> = ports.iter().map(port).collect();
        subsets.push(EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(unready),
            ports: Some(ports).filter(|ports| !ports.is_empty()),
        });
    }
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let mut labels = labels(service);
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let capacity = cut.then(|| "truncated".to_owned());
    let Some(there) = world.endpoints.get(name) else {
        let new = Endpoints {
            metadata: ObjectMeta {
                name: Some(name.name.clone()),
                namespace: Some(name.namespace.clone()),
                labels: Some(labels),
                annotations: capacity.map(|told| [(CAPACITY.to_owned(), told)].into()),
                ..ObjectMeta::default()
            },
            subsets,
        };
        return Some(Action::create(&new));
    };
    let said = crate::meta::annotation(&there.metadata, CAPACITY);
    if there.subsets == subsets
        && there.metadata.labels.as_ref() == Some(&labels)
        && said == capacity.as_deref()
    {
        return None;
    }
    let body = json!({
        "metadata": {
            "uid": there.metadata.uid,
            "labels": replaced(there.metadata.labels.as_ref(), &labels),
            "annotations": {CAPACITY: capacity},
        },
        "subsets": subsets,
    });
    Some(Action::merge(Kind::Endpoints, name, "", body))
}

/// The merge patch from `old` labels to `new` ones.
fn replaced(old: Option<&Labels>, new: &Labels) -> serde_json::Value {
    let mut patch = json!(new);
    for name in old
        .into_iter()
        .flat_map(Labels::keys)
        .filter(|name| !new.contains_key(*name))
    {
        patch[name.as_str()] = serde_json::Value::Null;
    }
    patch
}

fn address(backend: &Backend) -> EndpointAddress {
    EndpointAddress {
        ip: backend.address.to_string(),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.pod.clone()),
    }
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: port.name.clone(),
        port: port.number,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.application.clone(),
    }
}

/// The slices as they are to be, by name.
fn wanted(service: &Service, groups: &BTreeMap<Vec<Port>, Vec<Backend>>) -> BTreeMap<String, EndpointSlice> {
    let name = Name::of(&service.metadata);
    let mut labels = labels(service);
    labels.insert(SERVICE_NAME.to_owned(), name.name.clone());
    labels.insert(SLICE_MANAGED_BY.to_owned(), SLICE_CONTROLLER.to_owned());
    let mut slices = BTreeMap::new();
    let mut add = |family: &str, ports: &[Port], nth: usize, backends: &[&Backend]| {
        let told: Vec<String> = ports.iter().map(|port| format!("{port:?}")).collect();
        let slice_name = format!("{}-{}", name.name, hash::short(&(family, told, nth), 0));
        let slice = EndpointSlice {
            metadata: ObjectMeta {
                name: Some(slice_name.clone()),
                namespace: Some(name.namespace.clone()),
                labels: Some(labels.clone()),
                owner_references: Some(vec![owner_reference(service)]),
                ..ObjectMeta::default()
            },
            address_type: family.to_owned(),
            endpoints: backends
                .iter()
                .map(|backend| endpoint(service, backend))
                .collect(),
            ports: Some(ports.iter().map(slice_port).collect()),
        };
        slices.insert(slice_name, slice);
    };
    for (ports, backends) in groups {
        for family in ["IPv4", "IPv6"] {
            let of_family =
                |backend: &&Backend| matches!(backend.address, IpAddr::V4(_)) == (family == "IPv4");
            let backends: Vec<&Backend> = backends.iter().filter(of_family).collect();
            for (nth, backends) in backends.chunks(PER_SLICE).enumerate() {
                add(family, ports, nth, backends);
            }
        }
    }
    if groups.is_empty() {
        // That nothing is behind it is told too, as upstream.
        add("IPv4", &[], 0, &[]);
    }
    slices
}

fn endpoint(service: &Service, backend: &Backend) -> Endpoint {
    let ready = unready_too(service) || backend.serving && !backend.terminating;
    Endpoint {
        addresses: vec![backend.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.pod.clone()),
        ..Endpoint::default()
    }
}

fn slice_port(port: &Port) -> SlicePort {
    SlicePort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.number),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.application.clone(),
    }
}

fn slices(
    world: &World,
    name: &Name,
    service: &Service,
    groups: &BTreeMap<Vec<Port>, Vec<Backend>>,
) -> Vec<Action> {
    let mut wanted = wanted(service, groups);
    let mut actions = Vec::new();
    for slice in world.slices.owned_by(&name.namespace, uid(&service.metadata)) {
        let ours = label(&slice.metadata, SLICE_MANAGED_BY).is_some_and(|by| by == SLICE_CONTROLLER);
        if !ours || terminating(&slice.metadata) {
            continue;
        }
        let slice_name = slice.metadata.name.clone().unwrap_or_default();
        let Some(new) = wanted.remove(&slice_name) else {
            actions.push(Action::delete(&**slice));
            continue;
        };
        let none = |ports: &Option<Vec<SlicePort>>| ports.as_ref().is_none_or(Vec::is_empty);
        let same_ports = slice.ports == new.ports || none(&slice.ports) && none(&new.ports);
        if slice.endpoints == new.endpoints && same_ports && slice.metadata.labels == new.metadata.labels {
            continue;
        }
        let labels = new.metadata.labels.clone().unwrap_or_default();
        let body = json!({
            "metadata": {
                "uid": slice.metadata.uid,
                "labels": replaced(slice.metadata.labels.as_ref(), &labels),
            },
            "endpoints": new.endpoints,
            "ports": new.ports,
        });
        actions.push(Action::merge(
            Kind::EndpointSlice,
            &name.beside(&slice_name),
            "",
            body,
        ));
    }
    actions.extend(wanted.values().map(Action::create));
    actions
}
