//! What an application makes: a function of it.

use std::collections::BTreeSet;
use std::fmt::Write;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::GroupVersionKind;
use ledge_crds::apps::{BELONGING_TO, EdgeApplicationSpec, Overriders};
use serde_json::{Map, Value, json};

use super::overriders;

/// Annotation of services: endpoints of the same group only, where groups say so.
const SERVICE_TOPOLOGY: (&str, &str) = ("apps.kubeedge.io/service-topology", "range-nodegroup");

/// An object an application makes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    /// The manifest it comes from, from 0.
    pub(super) ordinal: i64,
    /// Its kind and name, as far as they are known.
    pub(super) kind: GroupVersionKind,
    pub(super) name: String,
    /// The object, without an owner; or why it cannot be made.
    pub(super) object: Result<Value, String>,
}

/// A place in which a workload runs, and what is different there.
struct Target<'a> {
    suffix: String,
    place: Place<'a>,
    overriders: Option<&'a Overriders>,
}

enum Place<'a> {
    Group(&'a str),
    Labels(&'a LabelSelector),
}

/// Everything an application in `namespace` makes. No two have the same kind and name.
pub(super) fn plan(namespace: &str, spec: &EdgeApplicationSpec) -> Vec<Planned> {
    let targets = targets(spec);
    let mut planned = Vec::new();
    for (ordinal, manifest) in (0_i64..).zip(&spec.workload_template.manifests) {
        let kind = kind_of(manifest);
        let (name, object) = match read(manifest, &kind, namespace) {
            Ok((name, object)) => (name, object),
            Err(why) => {
                planned.push(Planned {
                    ordinal,
                    kind,
                    name: String::new(),
                    object: Err(why),
                });
                continue;
            }
        };
        // As in KubeEdge, Deployments run once in each place; everything else is made once, as it is written.
        if (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str()) != ("apps", "v1", "Deployment") {
            planned.push(Planned {
                ordinal,
                object: Ok(once(object, &kind)),
                kind,
                name,
            });
            continue;
        }
        for target in &targets {
            let name = format!("{name}-{}", target.suffix);
            planned.push(Planned {
                ordinal,
                object: placed(object.clone(), &name, target),
                kind: kind.clone(),
                name,
            });
        }
    }
    let mut made = BTreeSet::new();
    for planned in planned.iter_mut().filter(|planned| planned.object.is_ok()) {
        let kind = &planned.kind;
        if !made.insert((kind.group.clone(), kind.kind.clone(), planned.name.clone())) {
            planned.object = Err("an object of this kind and name is made already".to_owned());
        }
    }
    planned
}

fn targets(spec: &EdgeApplicationSpec) -> Vec<Target<'_>> {
    let scope = &spec.workload_scope;
    let groups = scope.target_node_groups.iter().map(|group| Target {
        suffix: group.name.clone(),
        place: Place::Group(&group.name),
        overriders: group.overriders.as_ref(),
    });
    let nobody = const {
        &LabelSelector {
            match_expressions: None,
            match_labels: None,
        }
    };
    let labels = scope.target_node_labels.iter().map(|labels| {
        let selector = labels.label_selector.as_ref().unwrap_or(nobody);
        Target {
            suffix: suffix(selector),
            place: Place::Labels(selector),
            overriders: labels.overriders.as_ref(),
        }
    });
    groups.chain(labels).collect()
}

/// What the name of a workload for nodes with these labels ends with: as KubeEdge has it for `matchLabels`.
fn suffix(selector: &LabelSelector) -> String {
    let mut text = String::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        text += key;
        text += value;
    }
    for expression in selector.match_expressions.iter().flatten() {
        // Writing to a string does not fail.
        let _ = write!(text, "\n{}\t{}", expression.key, expression.operator);
        for value in expression.values.iter().flatten() {
            text.push('\t');
            text += value;
        }
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut suffix = "ls-".to_owned();
    for byte in &hash.as_ref()[..4] {
        let _ = write!(suffix, "{byte:02x}");
    }
    suffix
}

fn kind_of(manifest: &Map<String, Value>) -> GroupVersionKind {
    let text = |field| manifest.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion")
        .split_once('/')
        .unwrap_or(("", text("apiVersion")));
    GroupVersionKind::gvk(group, version, text("kind"))
}

/// The name and the object of a manifest, without what only the API writes.
fn read(
    manifest: &Map<String, Value>,
    kind: &GroupVersionKind,
    namespace: &str,
) -> Result<(String, Value), String> {
    if kind.version.is_empty() || kind.kind.is_empty() {
        return Err("apiVersion and kind are required".to_owned());
    }
    // Whoever may write applications may not give out rights with them.
    if kind.group == "rbac.authorization.k8s.io" {
        return Err("an application cannot grant rights".to_owned());
    }
    let mut object = manifest.clone();
    object.remove("status");
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    let metadata = metadata.as_object_mut().ok_or("metadata is no object")?;
    for field in [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "managedFields",
        "ownerReferences",
        "selfLink",
    ] {
        metadata.remove(field);
    }
    let name = metadata
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if name.is_empty() {
        return Err("metadata.name is required".to_owned());
    }
    match metadata.get("namespace").and_then(Value::as_str) {
        // An owner and what it owns are in one namespace.
        Some(other) if !other.is_empty() && other != namespace => {
            return Err(format!(
                "it is for namespace {other}, and the application is in {namespace}"
            ));
        }
        _ => metadata.insert("namespace".to_owned(), namespace.into()),
    };
    Ok((name, Value::Object(object)))
}

fn once(mut object: Value, kind: &GroupVersionKind) -> Value {
    if kind.group.is_empty() && kind.kind == "Service" {
        let (key, value) = SERVICE_TOPOLOGY;
        // `metadata` is an object: `read` made sure of it.
        if let Ok(annotations) = object_at(&mut object, &["metadata", "annotations"]) {
            annotations.insert(key.to_owned(), value.into());
        }
    }
    object
}

/// The workload as it is in one place.
fn placed(mut object: Value, name: &str, target: &Target<'_>) -> Result<Value, String> {
    object_at(&mut object, &["metadata"])?.insert("name".to_owned(), name.into());
    let pod = ["spec", "template", "spec"];
    match target.place {
        Place::Group(group) => {
            let path = [&pod[..], &["nodeSelector"]].concat();
            object_at(&mut object, &path)?.insert(BELONGING_TO.to_owned(), group.into());
        }
        Place::Labels(selector) => {
            let expressions = expressions(selector);
            if expressions.is_empty() {
                return Err("targetNodeLabels without labels select no nodes".to_owned());
            }
            let path = [
                &pod[..],
                &[
                    "affinity",
                    "nodeAffinity",
                    "requiredDuringSchedulingIgnoredDuringExecution",
                ],
            ];
            require(object_at(&mut object, &path.concat())?, &expressions)?;
        }
    }
    if let Some(overriders) = target.overriders {
        overriders::apply(&mut object, overriders)?;
    }
    Ok(object)
}

fn expressions(selector: &LabelSelector) -> Vec<Value> {
    let labels = selector.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}));
    let others = selector.match_expressions.iter().flatten();
    // The same operators as nodes are selected with.
    let others = others.map(|other| match &other.values {
        Some(values) => json!({"key": other.key, "operator": other.operator, "values": values}),
        None => json!({"key": other.key, "operator": other.operator}),
    });
    labels.chain(others).collect()
}

/// Adds `expressions` to each term of a node selector: terms are alternatives, so all of them have to hold in each.
fn require(selector: &mut Map<String, Value>, expressions: &[Value]) -> Result<(), String> {
    let terms = selector.entry("nodeSelectorTerms").or_insert_with(|| json!([]));
    let terms = terms.as_array_mut().ok_or("nodeSelectorTerms is no list")?;
    if terms.is_empty() {
        terms.push(json!({}));
    }
    for term in terms {
        let term = term.as_object_mut().ok_or("a node selector term is no object")?;
        let list = term.entry("matchExpressions").or_insert_with(|| json!([]));
        let list = list.as_array_mut().ok_or("matchExpressions is no list")?;
        list.extend_from_slice(expressions);
    }
    Ok(())
}

/// The object at `path`, which is made where there is none.
fn object_at<'a>(value: &'a mut Value, path: &[&str]) -> Result<&'a mut Map<String, Value>, String> {
    let mut here = value;
    for part in path {
        let object = here
            .as_object_mut()
            .ok_or_else(|| format!("the parent of {part} is no object"))?;
        here = object.entry(*part).or_insert_with(|| json!({}));
        if here.is_null() {
            *here = json!({});
        }
    }
    let last = path.last().copied().unwrap_or_default();
    here.as_object_mut().ok_or_else(|| format!("{last} is no object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "nginx", "uid": "x", "resourceVersion": "3"},
            "spec": {"replicas": 1, "template": {"spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "a", "image": "a:1"}]}}},
            "status": {"replicas": 1},
        })
    }

    fn planned(manifests: Value, scope: Value) -> Vec<Planned> {
        let spec = json!({"workloadTemplate": {"manifests": manifests}, "workloadScope": scope});
        plan("ns", &serde_json::from_value(spec).unwrap())
    }

    fn names(planned: &[Planned]) -> Vec<&str> {
        planned.iter().map(|planned| planned.name.as_str()).collect()
    }

    #[test]
    fn a_deployment_is_made_in_each_group() {
        let scope =
            json!({"targetNodeGroups": [{"name": "a"}, {"name": "b", "overriders": {"replicas": 3}}]});
        let planned = planned(json!([deployment()]), scope);
        assert_eq!(names(&planned), ["nginx-a", "nginx-b"]);
        let object = |at: usize| planned[at].object.clone().unwrap();
        assert_eq!(
            object(0)["spec"]["template"]["spec"]["nodeSelector"],
            json!({"disk": "ssd", BELONGING_TO: "a"})
        );
        assert_eq!(
            object(0)["metadata"],
            json!({"name": "nginx-a", "namespace": "ns"})
        );
        assert_eq!(object(0).get("status"), None);
        assert_eq!(
            (&object(0)["spec"]["replicas"], &object(1)["spec"]["replicas"]),
            (&json!(1), &json!(3))
        );
    }

    #[test]
    fn a_deployment_is_made_for_labels() {
        let selector = json!({
            "matchLabels": {"zone": "edge", "env": "prod"},
            "matchExpressions": [{"key": "gpu", "operator": "Exists"}],
        });
        let only_labels = json!({"matchLabels": {"zone": "edge", "env": "prod"}});
        let mut manifest = deployment();
        manifest["spec"]["template"]["spec"]["affinity"] = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {},
            ]},
        }});
        let scope = json!({"targetNodeLabels": [
            {"labelSelector": only_labels}, {"labelSelector": selector}, {"labelSelector": {}},
        ]});
        let planned = planned(json!([manifest]), scope);
        // sha256("envprodzoneedge"), as in KubeEdge.
        assert_eq!(planned[0].name, "nginx-ls-06daf707");
        assert_ne!(planned[1].name, planned[0].name);
        let object = planned[1].object.clone().unwrap();
        let terms = object
            .pointer("/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
            .unwrap();
        let ours = json!([
            {"key": "env", "operator": "In", "values": ["prod"]},
            {"key": "zone", "operator": "In", "values": ["edge"]},
            {"key": "gpu", "operator": "Exists"},
        ]);
        assert_eq!(terms[1]["matchExpressions"], ours);
        assert_eq!(terms[0]["matchExpressions"].as_array().unwrap().len(), 4);
        assert!(planned[2].object.is_err());
    }

    #[test]
    fn everything_else_is_made_once() {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "ns"}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}});
        let scope = json!({"targetNodeGroups": [{"name": "a"}, {"name": "b"}]});
        let planned = planned(json!([map, service]), scope);
        assert_eq!(names(&planned), ["m", "s"]);
        assert_eq!(planned[1].ordinal, 1);
        let service = planned[1].object.clone().unwrap();
        assert_eq!(
            service["metadata"]["annotations"][SERVICE_TOPOLOGY.0],
            SERVICE_TOPOLOGY.1
        );
    }

    #[test]
    fn what_cannot_be_made_is_told() {
        let map = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        let manifests = json!([
            map(json!({})),
            map(json!({"name": "m", "namespace": "other"})),
            {"kind": "ConfigMap", "metadata": {"name": "m"}},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "m"}},
            map(json!({"name": "m"})),
            map(json!({"name": "m"})),
            map(json!("m")),
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": 3},
        ]);
        let planned = planned(manifests, json!({"targetNodeGroups": [{"name": "a"}]}));
        let made: Vec<i64> = planned
            .iter()
            .filter(|planned| planned.object.is_ok())
            .map(|planned| planned.ordinal)
            .collect();
        assert_eq!(made, [4]);
        assert_eq!(planned.len(), 8);
    }
}
