//! Which node belongs to which group: a function of the nodes and the groups.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1;
use ledge_crds::apps::{BELONGING_TO, NodeGroup, NodeGroupNodeStatus};

use super::mirror::{Key, Mirror};

/// Who must have let go of its nodes before a group may go, where KubeEdge's controller made it so.
pub(super) const FINALIZER: &str = "apps.kubeedge.io/nodegroup-controller";

/// What counts of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    labels: BTreeMap<String, String>,
    ready: &'static str,
}

impl Node {
    pub(super) fn of(node: v1::Node) -> Node {
        let conditions = node
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Node {
            labels: node.metadata.labels.unwrap_or_default(),
            ready: match ready.map(|ready| ready.status.as_str()) {
                Some("True") => "Ready",
                Some("False") => "NotReady",
                _ => "Unknown",
            },
        }
    }

    /// The group that the node's label names.
    pub(super) fn label(&self) -> Option<&str> {
        self.labels.get(BELONGING_TO).map(String::as_str)
    }
}

/// What counts of a group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// The older of two groups has the first choice.
    created: String,
    nodes: BTreeSet<String>,
    match_labels: BTreeMap<String, String>,
    /// It is being deleted: it selects nothing.
    pub(super) deleted: bool,
    pub(super) finalizers: Vec<String>,
    pub(super) resource_version: String,
    /// What its status says.
    pub(super) told: Vec<NodeGroupNodeStatus>,
}

impl Group {
    pub(super) fn of(group: NodeGroup) -> Group {
        let metadata = group.metadata;
        let created = metadata.creation_timestamp.map(|at| at.0.to_string());
        Group {
            created: created.unwrap_or_default(),
            nodes: group.spec.nodes.into_iter().collect(),
            match_labels: group.spec.match_labels,
            deleted: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            told: group.status.unwrap_or_default().node_statuses,
        }
    }

    /// Whether it wants the node.
    pub(super) fn selects(&self, name: &str, node: &Node) -> bool {
        // No labels to match are none that match: a group is never everybody's by omission.
        let by_labels = !self.match_labels.is_empty()
            && self
                .match_labels
                .iter()
                .all(|(key, value)| node.labels.get(key) == Some(value));
        !self.deleted && (by_labels || self.nodes.contains(name))
    }

    /// Whether other nodes may be selected than `before`.
    pub(super) fn selects_as(&self, before: &Group) -> bool {
        (&self.nodes, &self.match_labels, self.deleted)
            == (&before.nodes, &before.match_labels, before.deleted)
    }
}

/// The group each node belongs to, by the node's name: the one its label names for as long as that wants it, then the
/// oldest that wants it.
pub(super) fn homes(groups: &Mirror<Group>, nodes: &Mirror<Node>) -> BTreeMap<String, String> {
    let mut by_age: Vec<(&str, &Group)> = groups
        .iter()
        .map(|(key, group)| (key.1.as_str(), group))
        .collect();
    by_age.sort_by_key(|(name, group)| (group.created.as_str(), *name));
    let mut homes = BTreeMap::new();
    for ((_, name), node) in nodes.iter() {
        let stays = node.label().filter(|label| {
            let group = groups.get(&(String::new(), (*label).to_owned()));
            group.is_some_and(|group| group.selects(name, node))
        });
        let mut wanting = by_age.iter().filter(|(_, group)| group.selects(name, node));
        let home = stays.or_else(|| wanting.next().map(|(group, _)| *group));
        if let Some(home) = home {
            homes.insert(name.clone(), home.to_owned());
        }
    }
    homes
}

/// What the status of a group says: of each node that it wants, by name. `refused` are nodes whose label the API did not
/// let us write, and why.
pub(super) fn statuses(
    name: &str,
    group: &Group,
    nodes: &Mirror<Node>,
    homes: &BTreeMap<String, String>,
    refused: &BTreeMap<String, String>,
) -> Vec<NodeGroupNodeStatus> {
    let mut statuses: BTreeMap<&str, NodeGroupNodeStatus> = BTreeMap::new();
    for ((_, node_name), node) in nodes.iter().filter(|((_, name), node)| group.selects(name, node)) {
        let home = homes.get(node_name).map(String::as_str);
        let reason = match home {
            Some(home) if home != name => Some(format!(
                "node {node_name} has already belonged to NodeGroup {home}"
            )),
            _ => refused.get(node_name).cloned(),
        };
        statuses.insert(node_name, status(node_name, node.ready, reason));
    }
    for named in group.nodes.iter().filter(|_| !group.deleted) {
        let key: Key = (String::new(), named.clone());
        if nodes.get(&key).is_none() {
            let reason = Some("node does not exist".to_owned());
            statuses.insert(named, status(named, "Unknown", reason));
        }
    }
    statuses.into_values().collect()
}

fn status(node: &str, ready: &str, reason: Option<String>) -> NodeGroupNodeStatus {
    let selection = if reason.is_none() { "Succeeded" } else { "Failed" };
    NodeGroupNodeStatus {
        node_name: node.to_owned(),
        ready_status: ready.to_owned(),
        selection_status: selection.to_owned(),
        selection_status_reason: reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    fn node(name: &str, labels: Value, ready: Option<&str>) -> v1::Node {
        let conditions: Vec<Value> = ready
            .map(|ready| json!({"type": "Ready", "status": ready}))
            .into_iter()
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn group(name: &str, created: &str, spec: Value) -> NodeGroup {
        serde_json::from_value(json!({
            "apiVersion": "apps.kubeedge.io/v1alpha1", "kind": "NodeGroup",
            "metadata": {"name": name, "creationTimestamp": created}, "spec": spec,
        }))
        .unwrap()
    }

    fn mirror<K: kube::ResourceExt, V: PartialEq>(objects: Vec<K>, view: impl Fn(K) -> V) -> Mirror<V> {
        let mut mirror = Mirror::default();
        for object in objects {
            mirror.take(Event::Apply(object), |object| Some(view(object)));
        }
        mirror
    }

    fn told(
        name: &str,
        groups: &Mirror<Group>,
        nodes: &Mirror<Node>,
    ) -> Vec<(String, String, String, Option<String>)> {
        let homes = homes(groups, nodes);
        let group = groups.get(&(String::new(), name.to_owned())).unwrap();
        statuses(name, group, nodes, &homes, &BTreeMap::new())
            .into_iter()
            .map(|s| {
                (
                    s.node_name,
                    s.ready_status,
                    s.selection_status,
                    s.selection_status_reason,
                )
            })
            .collect()
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn nodes_are_taken_by_name_and_by_labels() {
        let groups = mirror(
            vec![group(
                "g",
                EARLY,
                json!({"nodes": ["a", "missing"], "matchLabels": {"zone": "x", "tier": "1"}}),
            )],
            Group::of,
        );
        let nodes = mirror(
            vec![
                node("a", json!({}), Some("False")),
                node("b", json!({"zone": "x", "tier": "1"}), Some("True")),
                node("c", json!({"zone": "x"}), Some("True")),
            ],
            Node::of,
        );
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told("g", &groups, &nodes),
            [
                (text("a"), text("NotReady"), text("Succeeded"), None),
                (text("b"), text("Ready"), text("Succeeded"), None),
                (
                    text("missing"),
                    text("Unknown"),
                    text("Failed"),
                    Some(text("node does not exist"))
                ),
            ]
        );
        assert_eq!(homes(&groups, &nodes).get("c"), None);
    }

    #[test]
    fn a_node_belongs_to_one_group() {
        let early = || group("z", EARLY, json!({"nodes": ["a"]}));
        let late = || group("b", LATE, json!({"nodes": ["a"]}));
        let groups = mirror(vec![early(), late()], Group::of);
        // The older group has it, whatever the names.
        let nodes = mirror(vec![node("a", json!({}), None)], Node::of);
        assert_eq!(homes(&groups, &nodes)["a"], "z");
        assert_eq!(
            told("b", &groups, &nodes)[0].3.as_deref(),
            Some("node a has already belonged to NodeGroup z")
        );
        // The label decides, for as long as its group wants the node.
        let nodes = mirror(vec![node("a", json!({BELONGING_TO: "b"}), None)], Node::of);
        assert_eq!(homes(&groups, &nodes)["a"], "b");
        assert_eq!(told("b", &groups, &nodes)[0].2, "Succeeded");
        assert_eq!(told("z", &groups, &nodes)[0].2, "Failed");
        let nodes = mirror(vec![node("a", json!({BELONGING_TO: "gone"}), None)], Node::of);
        assert_eq!(homes(&groups, &nodes)["a"], "z");
    }

    #[test]
    fn no_labels_select_nobody_and_a_deleted_group_lets_go() {
        let mut deleted = group("d", EARLY, json!({"nodes": ["a", "missing"]}));
        deleted.metadata.deletion_timestamp = deleted.metadata.creation_timestamp.clone();
        let groups = mirror(
            vec![group("g", EARLY, json!({"matchLabels": {}})), deleted],
            Group::of,
        );
        let nodes = mirror(vec![node("a", json!({BELONGING_TO: "d"}), None)], Node::of);
        assert!(homes(&groups, &nodes).is_empty());
        assert!(told("d", &groups, &nodes).is_empty());
    }
}
