//! Cells of services and endpoints.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{NONE, UNSET, computed, items, labels, number, some_of, text, text_or};
use crate::resource::ColumnSource;

pub(super) fn source(resource: &str, column: &str) -> Option<ColumnSource> {
    match (resource, column) {
        ("services", "Type") => computed(|service, _| text(service, "/spec/type").into()),
        ("services", "Cluster-IP") => {
            computed(|service, _| text_or(service, "/spec/clusterIPs/0", NONE).into())
        }
        ("services", "External-IP") => computed(|service, _| external(service).into()),
        ("services", "Port(s)") => computed(|service, _| {
            let ports = items(service, "/spec/ports").iter().map(|port| {
                let (number_, node) = (number(port, "/port"), number(port, "/nodePort"));
                let protocol = text(port, "/protocol");
                match node {
                    0 => format!("{number_}/{protocol}"),
                    node => format!("{number_}:{node}/{protocol}"),
                }
            });
            match ports.collect::<Vec<_>>().join(",") {
                none if none.is_empty() => NONE.into(),
                some => some.into(),
            }
        }),
        ("services", "Selector") => computed(|service, _| labels(service, "/spec/selector").into()),
        ("endpoints", "Endpoints") => computed(|endpoints, _| match items(endpoints, "/subsets") {
            [] => NONE.into(),
            subsets => some_of(&addresses(subsets), "").into(),
        }),
        ("endpointslices", "AddressType") => computed(|slice, _| text(slice, "/addressType").into()),
        ("endpointslices", "Ports") => computed(|slice, _| {
            let ports = items(slice, "/ports")
                .iter()
                .map(|port| match (&port["port"], &port["name"]) {
                    (Value::Number(number), _) => number.to_string(),
                    (_, Value::String(name)) => name.clone(),
                    _ => "*".to_owned(),
                });
            some_of(&ports.collect::<Vec<_>>(), UNSET).into()
        }),
        ("endpointslices", "Endpoints") => computed(|slice, _| {
            let endpoints = items(slice, "/endpoints").iter();
            let addresses = endpoints.flat_map(|endpoint| items(endpoint, "/addresses"));
            let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
            some_of(&addresses, UNSET).into()
        }),
        _ => None,
    }
}

fn external(service: &Value) -> String {
    let given = items(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str);
    let mut all: Vec<&str> = Vec::new();
    let none = match text(service, "/spec/type") {
        "ClusterIP" | "NodePort" => NONE,
        "LoadBalancer" => {
            let ingress = items(service, "/status/loadBalancer/ingress").iter();
            let found = ingress.map(|ingress| text_or(ingress, "/ip", text(ingress, "/hostname")));
            let found: BTreeSet<&str> = found.filter(|found| !found.is_empty()).collect();
            all.extend(found);
            "<pending>"
        }
        "ExternalName" => return text(service, "/spec/externalName").to_owned(),
        _ => return super::UNKNOWN.to_owned(),
    };
    all.extend(given);
    if all.is_empty() {
        none.to_owned()
    } else {
        all.join(",")
    }
}

/// Every address with every port of its subset.
fn addresses(subsets: &[Value]) -> Vec<String> {
    let mut out = Vec::new();
    for subset in subsets {
        let addresses = items(subset, "/addresses");
        let ports = items(subset, "/ports");
        if ports.is_empty() {
            out.extend(addresses.iter().map(|address| text(address, "/ip").to_owned()));
        }
        for port in ports {
            out.extend(addresses.iter().map(|address| {
                let (ip, port) = (text(address, "/ip"), number(port, "/port"));
                if ip.contains(':') {
                    format!("[{ip}]:{port}")
                } else {
                    format!("{ip}:{port}")
                }
            }));
        }
    }
    out
}
