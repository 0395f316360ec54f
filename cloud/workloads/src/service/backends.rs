//! The pods behind a Service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::meta::terminating;
use crate::pods::{finished, node, ready};
use crate::world::World;

/// A port as its pods have it: name, protocol, number, application protocol. Orders as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The Service's name for it.
    pub name: Option<String>,
    /// Its protocol.
    pub protocol: String,
    /// Its number in the pod.
    pub number: i32,
    /// What is spoken there.
    pub application: Option<String>,
}

/// A pod behind a Service.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Whether it can serve.
    pub serving: bool,
    /// Whether it is about to go.
    pub terminating: bool,
    /// Its name below the Service's, if it has one.
    pub hostname: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// The pod.
    pub pod: ObjectReference,
}

/// Whether a Service has pods behind it that its selector chooses.
pub fn has_selector(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName")
        && spec
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty())
}

/// Whether the Service's selector chooses the pod.
pub fn chooses(service: &Service, pod: &Pod) -> bool {
    let Some(spec) = service.spec.as_ref().filter(|spec| has_selector(spec)) else {
        return false;
    };
    let labels = pod.metadata.labels.as_ref();
    let mut wanted = spec.selector.iter().flatten();
    wanted.all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The pods behind `service`, by the ports they have there, in the order of their addresses. A pod that has none of the
/// Service's named ports is left out.
pub fn backends(world: &World, service: &Service) -> BTreeMap<Vec<Port>, Vec<Backend>> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut groups: BTreeMap<Vec<Port>, Vec<Backend>> = BTreeMap::new();
    for pod in world.pods.of_namespace(namespace) {
        if finished(pod) || !chooses(service, pod) {
            continue;
        }
        let Some(backend) = backend(service, pod) else {
            continue;
        };
        let wanted = service
            .spec
            .as_ref()
            .and_then(|spec| spec.ports.as_deref())
            .unwrap_or_default();
        let mut ports: Vec<Port> = wanted.iter().filter_map(|port| port_of(pod, port)).collect();
        if ports.is_empty() && !wanted.is_empty() {
            continue;
        }
        ports.sort();
        groups.entry(ports).or_default().push(backend);
    }
    for backends in groups.values_mut() {
        backends.sort_by(|a, b| (a.address, &a.pod.name).cmp(&(b.address, &b.pod.name)));
    }
    groups
}

fn backend(service: &Service, pod: &Arc<Pod>) -> Option<Backend> {
    let address = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
    let spec = pod.spec.as_ref()?;
    let below = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    Some(Backend {
        address,
        serving: ready(pod),
        terminating: terminating(&pod.metadata),
        hostname: spec.hostname.clone().filter(|_| below),
        node: Some(node(pod).to_owned()).filter(|node| !node.is_empty()),
        pod: ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        },
    })
}

fn port_of(pod: &Pod, port: &ServicePort) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some(Port {
        name: port.name.clone(),
        protocol,
        number,
        application: port.app_protocol.clone(),
    })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let beside = spec.init_containers.iter().flatten();
    let beside = beside.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(beside)
        .flat_map(|container| container.ports.iter().flatten());
    let mut ports = ports.filter(|port| port.name.as_deref() == Some(name));
    let port = ports.find(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol)?;
    Some(port.container_port)
}
