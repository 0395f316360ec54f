//! Who needs which objects: a function of the objects there are, kept up as they change.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ledge_proto::ids::Scope;
use ledge_proto::record::object_key;
use serde_json::Value;

use super::references;
use crate::objects::Object;

/// An entry of somebody's projection that may have to change.
pub(super) type Entry = (Scope, String);

/// A Node with this label is Ledge's; others of a cluster have a kubelet.
const EDGE_LABEL: &str = "node-role.kubernetes.io/edge";

/// Kinds that each node needs only some objects of; the others go to all.
const PER_NODE: [&str; 7] = [
    "pods",
    "nodes",
    "configmaps",
    "secrets",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
];

/// The objects there are, and who needs them.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Every Node is Ledge's, and so is every name a pod is bound to.
    every_node: bool,
    objects: HashMap<String, Known>,
    pods: HashMap<Scope, BTreeSet<String>>,
    /// Nodes that reported themselves.
    reported: HashSet<Scope>,
    needed: HashMap<Scope, BTreeSet<String>>,
    needed_by: HashMap<String, BTreeSet<Scope>>,
}

#[derive(Debug)]
struct Known {
    object: Arc<Object>,
    references: BTreeSet<String>,
    /// Of a pod: where it is bound to.
    node: Option<Scope>,
    /// Of a Node: whether it has the label.
    edge: bool,
}

impl Needs {
    pub(super) fn new(every_node: bool) -> Needs {
        Needs {
            every_node,
            ..Needs::default()
        }
    }

    /// The object that `scope` should have under `key`.
    pub(super) fn wanted(&self, scope: &Scope, key: &str) -> Option<&Arc<Object>> {
        let needed = match scope.node_name() {
            None => !is_per_node(key),
            Some(_) => self.needed.get(scope).is_some_and(|keys| keys.contains(key)),
        };
        let known = self.objects.get(key).filter(|_| needed);
        known.map(|known| &known.object)
    }

    /// All that anybody should have.
    pub(super) fn all(&self) -> impl Iterator<Item = Entry> {
        let of_nodes = self
            .needed
            .iter()
            .flat_map(|(scope, keys)| keys.iter().map(|key| (scope.clone(), key.clone())));
        let shared = self.objects.keys().filter(|key| !is_per_node(key));
        of_nodes.chain(shared.map(|key| (Scope::cluster(), key.clone())))
    }

    /// Keys of the objects of one kind.
    pub(super) fn of_kind(&self, prefix: &str) -> HashSet<String> {
        let keys = self.objects.keys().filter(|key| key.starts_with(prefix));
        keys.cloned().collect()
    }

    /// An object was made or changed.
    pub(super) fn put(&mut self, key: &str, object: Object, value: &Value) -> BTreeSet<Entry> {
        let resource = core_resource(key);
        let node = (resource == Some("pods")).then(|| value["spec"]["nodeName"].as_str());
        let node = node.flatten().and_then(|name| Scope::node(name).ok());
        let known = Known {
            object: Arc::new(object),
            references: resource
                .map(|resource| references::of(resource, value))
                .unwrap_or_default(),
            edge: resource == Some("nodes") && value["metadata"]["labels"][EDGE_LABEL].is_string(),
            node,
        };
        self.replace(key, Some(known))
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, key: &str) -> BTreeSet<Entry> {
        self.replace(key, None)
    }

    /// A node reported itself: it is one of ours whatever its Node says.
    pub(super) fn reported(&mut self, node: &Scope) -> BTreeSet<Entry> {
        let mut changed = BTreeSet::new();
        if self.reported.insert(node.clone()) {
            self.look_again(node, &mut changed);
        }
        changed
    }

    fn replace(&mut self, key: &str, now: Option<Known>) -> BTreeSet<Entry> {
        let mut changed = BTreeSet::new();
        let steps_changed = match (&now, self.objects.get(key)) {
            (Some(now), Some(before)) => {
                now.references != before.references || now.node != before.node || now.edge != before.edge
            }
            _ => true,
        };
        let here = now.as_ref().and_then(|known| known.node.clone());
        let before = match now {
            Some(known) => self.objects.insert(key.to_owned(), known),
            None => self.objects.remove(key),
        };
        if !is_per_node(key) {
            changed.insert((Scope::cluster(), key.to_owned()));
            return changed;
        }
        let holders: Vec<Scope> = self.needed_by.get(key).into_iter().flatten().cloned().collect();
        changed.extend(holders.iter().map(|scope| (scope.clone(), key.to_owned())));
        if !steps_changed {
            return changed;
        }
        let mut nodes: BTreeSet<Scope> = holders.into_iter().collect();
        let there = before.and_then(|known| known.node);
        if here != there {
            if let Some(there) = there {
                self.pods.get_mut(&there).map(|pods| pods.remove(key));
                nodes.insert(there);
            }
            if let Some(here) = &here {
                self.pods.entry(here.clone()).or_default().insert(key.to_owned());
            }
        }
        nodes.extend(here);
        if core_resource(key) == Some("nodes") {
            let name = key.rsplit('/').next().unwrap_or_default();
            nodes.extend(Scope::node(name).ok());
        }
        for node in nodes {
            self.look_again(&node, &mut changed);
        }
        changed
    }

    /// Finds out again what `node` needs.
    fn look_again(&mut self, node: &Scope, changed: &mut BTreeSet<Entry>) {
        let now = self.needs_of(node);
        let before = self.needed.remove(node).unwrap_or_default();
        for key in before.symmetric_difference(&now) {
            changed.insert((node.clone(), key.clone()));
        }
        for key in before.difference(&now) {
            if let Some(nodes) = self.needed_by.get_mut(key) {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.needed_by.remove(key);
                }
            }
        }
        for key in now.difference(&before) {
            self.needed_by
                .entry(key.clone())
                .or_default()
                .insert(node.clone());
        }
        if !now.is_empty() {
            self.needed.insert(node.clone(), now);
        }
    }

    fn needs_of(&self, node: &Scope) -> BTreeSet<String> {
        let mut needs = BTreeSet::new();
        let Some(name) = node.node_name() else {
            return needs;
        };
        let own = object_key("", "nodes", "", name);
        let edge = self.objects.get(&own).is_some_and(|known| known.edge);
        if !(self.every_node || edge || self.reported.contains(node)) {
            return needs;
        }
        // Its own Node also when there is none yet: it is looked for.
        let mut next: Vec<&String> = self.pods.get(node).into_iter().flatten().collect();
        needs.insert(own);
        while let Some(key) = next.pop() {
            if needs.insert(key.clone())
                && let Some(known) = self.objects.get(key)
            {
                next.extend(&known.references);
            }
        }
        needs
    }
}

/// The resource, where the key is of the core group.
fn core_resource(key: &str) -> Option<&str> {
    let mut parts = key.split('/');
    (parts.next() == Some("")).then(|| parts.next()).flatten()
}

/// Whether each node needs only some objects of the kind that `key` is of.
pub(super) fn is_per_node(key: &str) -> bool {
    core_resource(key).is_some_and(|resource| PER_NODE.contains(&resource))
}
