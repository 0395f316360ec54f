//! What is served, as clients ask for it. Source: `meta/v1` (APIVersions, APIGroupList, APIGroup, APIResourceList) and
//! `apidiscovery.k8s.io/v2` (all of it in two answers).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::resource::{Registry, Resource, api_version};

/// The version of Kubernetes whose API this is.
pub const KUBERNETES_MINOR: u32 = 34;

const ALL_VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// `/version`.
pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": KUBERNETES_MINOR.to_string(),
        "gitVersion": format!("v1.{KUBERNETES_MINOR}.0+ledge-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    })
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Versions of each group, in the order clients should prefer them; groups by name.
fn groups(registry: &Registry) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in registry.iter() {
        let versions = groups.entry(&resource.gvr.group).or_default();
        if !versions.contains(&resource.gvr.version.as_str()) {
            versions.push(&resource.gvr.version);
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|version| Reverse(priority(version)));
    }
    groups
}

/// Groups of built-in kinds in the order in which a Kubernetes API server lists them. Clients take the first kind that has
/// a name: that of a custom group must not come before them.
const BUILT_IN: [&str; 13] = [
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "apiextensions.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];

/// [`groups`] in the order clients should prefer them: built-in ones, then the others by name.
fn ordered(registry: &Registry) -> Vec<(&str, Vec<&str>)> {
    let rank = |group: &str| {
        let found = BUILT_IN.iter().position(|known| *known == group);
        found.unwrap_or(BUILT_IN.len())
    };
    let mut groups: Vec<_> = groups(registry).into_iter().collect();
    groups.sort_by_key(|(group, _)| (rank(group), *group));
    groups
}

/// `v2` before `v1` before `v1beta2` before `v1beta1` before `v1alpha1` before anything else, as
/// `k8s.io/apimachinery/pkg/version` has it.
fn priority(version: &str) -> (u8, u32, u32, Reverse<String>) {
    let stable = |text: &str| text.parse::<u32>().ok();
    let parsed = version.strip_prefix('v').and_then(|rest| {
        if let Some(major) = stable(rest) {
            return Some((3, major, 0));
        }
        let (level, name) = if rest.contains("beta") {
            (2, "beta")
        } else {
            (1, "alpha")
        };
        let (major, minor) = rest.split_once(name)?;
        Some((level, stable(major)?, stable(minor)?))
    });
    let (level, major, minor) = parsed.unwrap_or((0, 0, 0));
    (level, major, minor, Reverse(version.to_owned()))
}

fn resources<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Arc<Resource>> {
    let of = move |resource: &&Arc<Resource>| resource.gvr.group == group && resource.gvr.version == version;
    registry.iter().filter(of)
}

fn verbs(resource: &Resource) -> Vec<&str> {
    if resource.verbs.is_empty() {
        ALL_VERBS.to_vec()
    } else {
        resource.verbs.iter().map(String::as_str).collect()
    }
}

/// Subresources with the group, version and kind of what they take, and their verbs.
pub(crate) fn subresources(resource: &Resource) -> Vec<(&'static str, [String; 3], &'static [&'static str])> {
    const CHANGE: &[&str] = &["get", "patch", "update"];
    let own = [
        resource.gvr.group.clone(),
        resource.gvr.version.clone(),
        resource.kind.clone(),
    ];
    let of = |group: &str, version: &str, kind: &str| [group.to_owned(), version.to_owned(), kind.to_owned()];
    let mut out = Vec::new();
    if resource.scale.is_some() {
        out.push(("scale", of("autoscaling", "v1", "Scale"), CHANGE));
    }
    if resource.status {
        out.push(("status", own.clone(), CHANGE));
    }
    match (resource.gvr.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => {
            const STREAM: &[&str] = &["create", "get"];
            out.push(("attach", of("", "v1", "PodAttachOptions"), STREAM));
            out.push(("binding", of("", "v1", "Binding"), &["create"]));
            out.push(("eviction", of("policy", "v1", "Eviction"), &["create"]));
            out.push(("exec", of("", "v1", "PodExecOptions"), STREAM));
            out.push(("log", own, &["get"]));
            out.push(("portforward", of("", "v1", "PodPortForwardOptions"), STREAM));
        }
        ("", "Namespace") => out.push(("finalize", own, &["update"])),
        ("", "ServiceAccount") => {
            out.push((
                "token",
                of("authentication.k8s.io", "v1", "TokenRequest"),
                &["create"],
            ));
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => out.push(("approval", own, CHANGE)),
        _ => {}
    }
    out.sort_by_key(|(name, ..)| *name);
    out
}

/// `/api`.
pub fn api_versions(registry: &Registry) -> Value {
    let versions = groups(registry).remove("").unwrap_or_default();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [],
    })
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({"groupVersion": api_version(group, version), "version": version});
    json!({
        "name": group,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/apis`.
pub fn api_group_list(registry: &Registry) -> Value {
    let groups = ordered(registry)
        .into_iter()
        .filter(|(group, _)| !group.is_empty());
    json!({
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": groups.map(|(group, versions)| group_value(group, &versions)).collect::<Vec<_>>(),
    })
}

/// `/apis/GROUP`; `None` when there is no such group.
pub fn api_group(registry: &Registry, group: &str) -> Option<Value> {
    let versions = groups(registry).remove(group).filter(|_| !group.is_empty())?;
    let mut value = group_value(group, &versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

/// `/api/v1`, `/apis/GROUP/VERSION`; `None` when it is not served.
pub fn api_resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in resources(registry, group, version) {
        let mut entry = json!({
            "name": resource.gvr.resource,
            "singularName": resource.singular,
            "namespaced": resource.namespaced(),
            "kind": resource.kind,
            "verbs": verbs(resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for (name, [sub_group, sub_version, kind], verbs) in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{name}", resource.gvr.resource),
                "singularName": "",
                "namespaced": resource.namespaced(),
                "kind": kind,
                "verbs": verbs,
            });
            if (sub_group.as_str(), sub_version.as_str()) != (group, version) {
                entry["group"] = sub_group.into();
                entry["version"] = sub_version.into();
            }
            list.push(entry);
        }
    }
    (!list.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version(group, version),
            "resources": list,
        })
    })
}

/// Whether an `Accept` header asks for everything in one answer.
pub fn wants_aggregated(accept: &str) -> bool {
    accept.contains("as=APIGroupDiscoveryList")
}

/// The answer to [`wants_aggregated`] for `/api` (`core`) or `/apis`, and its content type.
pub fn aggregated(registry: &Registry, core: bool, accept: &str) -> (Value, &'static str) {
    let (version, content_type) =
        if accept.contains("v=v2;") || accept.contains("v=v2,") || accept.ends_with("v=v2") {
            (
                "v2",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            )
        } else {
            (
                "v2beta1",
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
            )
        };
    let mut items = Vec::new();
    for (group, versions) in ordered(registry)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
    {
        let versions = versions.iter().map(|version| {
            let list = resources(registry, group, version).map(|resource| discovered(resource));
            json!({
                "version": version,
                "resources": list.collect::<Vec<_>>(),
                "freshness": "Current",
            })
        });
        let metadata = if group.is_empty() {
            json!({ "creationTimestamp": null })
        } else {
            json!({ "name": group, "creationTimestamp": null })
        };
        items.push(json!({ "metadata": metadata, "versions": versions.collect::<Vec<_>>() }));
    }
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    (list, content_type)
}

fn discovered(resource: &Resource) -> Value {
    let kind =
        |[group, version, kind]: [String; 3]| json!({"group": group, "version": version, "kind": kind});
    let own = [
        resource.gvr.group.clone(),
        resource.gvr.version.clone(),
        resource.kind.clone(),
    ];
    let mut entry = json!({
        "resource": resource.gvr.resource,
        "responseKind": kind(own),
        "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(resource),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subresources = subresources(resource)
        .into_iter()
        .map(|(name, of, verbs)| json!({"subresource": name, "responseKind": kind(of), "verbs": verbs}));
    let subresources: Vec<Value> = subresources.collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

/// `/`: what paths there are.
pub fn paths(registry: &Registry) -> Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for (group, versions) in ordered(registry) {
        if group.is_empty() {
            paths.extend(versions.iter().map(|version| format!("/api/{version}")));
        } else {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
        }
    }
    let others = [
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    paths.extend(others.map(str::to_owned));
    json!({ "paths": paths })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::tests::widgets;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        for version in ["v1alpha2", "v1beta1", "v1"] {
            let mut resource = widgets();
            resource.gvr.version = version.to_owned();
            resource.storage = version == "v1";
            registry.insert(resource);
        }
        registry
    }

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["foo", "v1alpha1", "v10", "v2", "v1beta1", "v1beta2", "v1"];
        versions.sort_by_key(|version| Reverse(priority(version)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]
        );
    }

    #[test]
    fn groups_and_resources() {
        let registry = registry();
        let group = api_group(&registry, "example.com").unwrap();
        assert_eq!(group["preferredVersion"]["groupVersion"], "example.com/v1");
        assert_eq!(group["versions"][2]["version"], "v1alpha2");
        assert!(api_group(&registry, "").is_none());
        let list = api_resource_list(&registry, "example.com", "v1").unwrap();
        let names: Vec<&str> = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
        assert_eq!(list["resources"][1]["group"], "autoscaling");
        assert!(api_resource_list(&registry, "example.com", "v9").is_none());
    }

    #[test]
    fn built_in_groups_come_before_custom_ones() {
        let mut registry = registry();
        for resource in crate::builtin::resources() {
            registry.insert(resource);
        }
        let mut early = widgets();
        early.gvr.group = "a.example.com".to_owned();
        registry.insert(early);
        let list = api_group_list(&registry);
        let names: Vec<&str> = list["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["name"].as_str().unwrap())
            .collect();
        let (first, last) = (&names[..1], &names[names.len() - 2..]);
        assert_eq!(
            (first, last),
            (&["apps"][..], &["a.example.com", "example.com"][..])
        );
        let items = aggregated(&registry, false, "v=v2").0["items"].clone();
        let found: Vec<&str> = items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(found, names);
        for group in names.iter().take(names.len() - 2) {
            assert!(BUILT_IN.contains(group), "{group}");
        }
    }

    #[test]
    fn all_at_once() {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert!(wants_aggregated(accept));
        let (list, content_type) = aggregated(&registry(), false, accept);
        assert!(content_type.contains("v=v2;"));
        assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
        let resource = &list["items"][0]["versions"][0]["resources"][0];
        assert_eq!(resource["responseKind"]["kind"], "Widget");
        assert_eq!(resource["subresources"][0]["subresource"], "scale");
        assert_eq!(aggregated(&registry(), true, accept).0["items"], json!([]));
    }
}
