//! What a node may do: users `system:node:NAME` in the group `system:nodes` see and report what concerns their own node.
//! After upstream's Node authorizer and NodeRestriction admission; relations are looked up in the pods bound to the node, at
//! each question.

use std::collections::BTreeSet;
use std::sync::Arc;

use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::selector::exact_match;
use ledge_kubeapi::serve::Write;
use ledge_kubeapi::serve::request::User;
use ledge_kubeapi::store::{Selection, Store};
use ledge_kubeapi::{ApiError, Object};
use serde_json::Value;

use crate::access::Decision;
use crate::accounts::key;
use crate::rbac::Question;
use crate::tokens::Bound;

mod references;

use references::Kind;

/// Leases of nodes, and nothing else, are here.
const LEASES: &str = "kube-node-lease";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The node that `user` is; `None` for everybody else.
pub fn of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    let member = user.groups.iter().any(|group| group == "system:nodes");
    (member && !name.is_empty()).then_some(name)
}

/// Decides for nodes, by the objects in a store.
pub struct NodeAuthorizer {
    store: Arc<dyn Store>,
}

impl NodeAuthorizer {
    /// Over `store`.
    pub fn new(store: Arc<dyn Store>) -> NodeAuthorizer {
        NodeAuthorizer { store }
    }

    /// Whether the node called `node` may do what is asked. What it may not, others may still allow.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn decide(&self, node: &str, question: &Question<'_>) -> Result<Decision, ApiError> {
        if question.path.is_some() {
            return Ok(Decision::no(""));
        }
        let (resource, sub) = match question.resource.split_once('/') {
            Some((resource, sub)) => (resource, sub),
            None => (question.resource.as_str(), ""),
        };
        let read = matches!(question.verb, "get" | "list" | "watch");
        let change = matches!(question.verb, "update" | "patch");
        let create = question.verb == "create";
        Ok(match (question.group, resource, sub) {
            ("", "nodes", "") if read => own_node(node, question),
            // Which node it is about is seen when it is about to be stored.
            ("", "nodes", "") => Decision::plain(create || change),
            ("", "nodes", "status") => Decision::plain(change),
            ("", "pods", "") if matches!(question.verb, "list" | "watch") => {
                if exact_match(question.fields, "spec.nodeName").as_deref() == Some(node) {
                    Decision::yes()
                } else if question.name.is_empty() {
                    Decision::no("can only list/watch pods with spec.nodeName field selector")
                } else {
                    self.related(node, Kind::Pod, question).await?
                }
            }
            ("", "pods", "") if question.verb == "get" => self.related(node, Kind::Pod, question).await?,
            ("", "pods", "") if create => Decision::yes(),
            ("", "pods", "") if question.verb == "delete" => {
                let why = format!("node \"{node}\" can only delete pods with spec.nodeName set to itself");
                self.own_pod(node, question, &why).await?
            }
            ("", "pods", "status") if change => {
                let why = format!(
                    "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
                );
                self.own_pod(node, question, &why).await?
            }
            ("", "pods", "eviction") if create => {
                let why = format!("node {node} can only evict pods with spec.nodeName set to itself");
                self.own_pod(node, question, &why).await?
            }
            ("", "secrets" | "configmaps", _) => {
                if !read {
                    return Ok(Decision::no("can only read resources of this type"));
                }
                if !sub.is_empty() {
                    return Ok(Decision::no("cannot read subresource"));
                }
                if question.namespace.is_empty() {
                    return Ok(Decision::no("can only read namespaced object of this type"));
                }
                let kind = if resource == "secrets" {
                    Kind::Secret
                } else {
                    Kind::ConfigMap
                };
                self.related(node, kind, question).await?
            }
            ("", "persistentvolumeclaims" | "persistentvolumes", _) => {
                if question.verb != "get" {
                    return Ok(Decision::no("can only get individual resources of this type"));
                }
                if !sub.is_empty() {
                    return Ok(Decision::no("cannot get subresource"));
                }
                let kind = if resource == "persistentvolumes" {
                    Kind::Volume
                } else {
                    Kind::Claim
                };
                self.related(node, kind, question).await?
            }
            ("", "serviceaccounts", "") if question.verb == "get" => {
                self.related(node, Kind::ServiceAccount, question).await?
            }
            ("", "serviceaccounts", "token") if create && !question.name.is_empty() => {
                self.related(node, Kind::ServiceAccount, question).await?
            }
            ("", "serviceaccounts", _) => {
                Decision::no("can only create tokens for individual service accounts")
            }
            ("coordination.k8s.io", "leases", "") => own_lease(node, question),
            ("" | "events.k8s.io", "events", "") => Decision::plain(create || change),
            ("", "services" | "endpoints", "")
            | ("discovery.k8s.io", "endpointslices", "")
            | ("apiextensions.k8s.io", "customresourcedefinitions", "") => Decision::plain(read),
            ("certificates.k8s.io", "certificatesigningrequests", "") => Decision::plain(create || read),
            ("authentication.k8s.io", "tokenreviews", "")
            | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => {
                Decision::plain(create)
            }
            _ => Decision::no(""),
        })
    }

    /// Whether a pod bound to the node refers to what is asked for.
    async fn related(&self, node: &str, kind: Kind, question: &Question<'_>) -> Result<Decision, ApiError> {
        let Question { namespace, name, .. } = *question;
        if name.is_empty() {
            return Ok(Decision::no("No Object name found"));
        }
        let found = match kind {
            Kind::Pod => {
                let pod = self.store.get(&key("pods", namespace, name)).await;
                pod.is_ok_and(|pod| pod.field("spec.nodeName") == Some(node))
            }
            Kind::Volume => {
                let volume = self.store.get(&key("persistentvolumes", "", name)).await;
                let claim = volume
                    .ok()
                    .map(|volume| volume.value()["spec"]["claimRef"].take());
                match claim
                    .as_ref()
                    .map(|claim| (claim["namespace"].as_str(), claim["name"].as_str()))
                {
                    Some((Some(namespace), Some(name))) => {
                        self.refers(node, Kind::Claim, namespace, name).await?
                    }
                    _ => false,
                }
            }
            kind => self.refers(node, kind, namespace, name).await?,
        };
        Ok(if found {
            Decision::yes()
        } else {
            Decision::no(&format!(
                "no relationship found between node '{node}' and this object"
            ))
        })
    }

    async fn refers(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> Result<bool, ApiError> {
        for pod in self.pods(node, namespace).await? {
            let pod = pod.value();
            // What a node made itself gives it no right to read anything.
            if pod["metadata"]["annotations"][MIRROR].is_string() {
                continue;
            }
            if references::of(&pod, kind).contains(name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn pods(&self, node: &str, namespace: &str) -> Result<Vec<Object>, ApiError> {
        let selection = Selection {
            resource: GroupResource {
                group: String::new(),
                resource: "pods".to_owned(),
            },
            namespace: Some(namespace.to_owned()),
        };
        let mut pods = self.store.list(&selection, None, None).await?.objects;
        pods.retain(|pod| pod.field("spec.nodeName") == Some(node));
        Ok(pods)
    }

    /// Whether the pod is the node's; one that is not there is for the answer to say.
    async fn own_pod(&self, node: &str, question: &Question<'_>, why: &str) -> Result<Decision, ApiError> {
        let pod = self
            .store
            .get(&key("pods", question.namespace, question.name))
            .await;
        Ok(match pod {
            Ok(pod) if pod.field("spec.nodeName") != Some(node) => Decision::no(why),
            _ => Decision::yes(),
        })
    }
}

fn own_node(node: &str, question: &Question<'_>) -> Decision {
    match question.name {
        "" => Decision::no(&format!(
            "node '{node}' cannot read all nodes, only its own Node object"
        )),
        name if name == node => Decision::yes(),
        name => Decision::no(&format!(
            "node '{node}' cannot read '{name}', only its own Node object"
        )),
    }
}

fn own_lease(node: &str, question: &Question<'_>) -> Decision {
    if !matches!(question.verb, "get" | "create" | "update" | "patch" | "delete") {
        Decision::no("can only get, create, update, patch, or delete a node lease")
    } else if question.namespace != LEASES {
        Decision::no(&format!(
            "can only access leases in the \"{LEASES}\" system namespace"
        ))
    } else if question.verb != "create" && question.name != node {
        Decision::no("can only access node lease with the same name as the requesting node")
    } else {
        Decision::yes()
    }
}

/// Refuses what a node may not store, for what its name alone does not tell.
///
/// # Errors
/// `Forbidden`.
pub fn restrict(write: &Write<'_>, new: &Value) -> Result<(), ApiError> {
    let Some(node) = of(write.user) else {
        return Ok(());
    };
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    let why = match (write.resource.gvr.group.as_str(), write.resource.kind.as_str()) {
        ("", "Node") if name != node => Some(format!(
            "node \"{node}\" is not allowed to modify node \"{name}\""
        )),
        ("", "Node") => changed_node(node, write.old, new),
        ("", "Pod") if write.old.is_none() => made_pod(node, new),
        ("", "Pod") => write
            .old
            .filter(|old| old["metadata"]["labels"] != new["metadata"]["labels"])
            .map(|_| format!("node \"{node}\" cannot update labels through pod status")),
        ("coordination.k8s.io", "Lease") if name != node => {
            Some("can only access node lease with the same name as the requesting node".to_owned())
        }
        _ => None,
    };
    match why {
        Some(why) => Err(ApiError::forbidden(&write.resource.group_resource(), name, &why)),
        None => Ok(()),
    }
}

fn changed_node(node: &str, old: Option<&Value>, new: &Value) -> Option<String> {
    let absent = Value::Null;
    let before = old.unwrap_or(&absent);
    if old.is_some() {
        for (field, pointer) in [
            ("taints", "/spec/taints"),
            ("ownerReferences", "/metadata/ownerReferences"),
        ] {
            if before.pointer(pointer) != new.pointer(pointer) {
                return Some(format!("node \"{node}\" is not allowed to modify {field}"));
            }
        }
    }
    let labels = |value: &Value| {
        value["metadata"]["labels"]
            .as_object()
            .cloned()
            .unwrap_or_default()
    };
    let (before, after) = (labels(before), labels(new));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let forbidden: Vec<&str> = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name) && !is_a_nodes_own(name))
        .map(String::as_str)
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let verb = if old.is_some() {
        "modify"
    } else {
        "set the following"
    };
    Some(format!(
        "node \"{node}\" is not allowed to {verb} labels: {}",
        forbidden.join(", ")
    ))
}

/// Whether a node may give itself a label of that name: others choose by the rest where workloads go.
fn is_a_nodes_own(label: &str) -> bool {
    const OWN: [&str; 11] = [
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let Some((domain, _)) = label.split_once('/') else {
        return true;
    };
    let below = |parent: &str| {
        domain
            .strip_suffix(parent)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if below("node-restriction.kubernetes.io") {
        return false;
    }
    let reserved = below("kubernetes.io") || below("k8s.io");
    !reserved || OWN.contains(&label) || below("kubelet.kubernetes.io") || below("node.kubernetes.io")
}

fn made_pod(node: &str, pod: &Value) -> Option<String> {
    let metadata = &pod["metadata"];
    let owners = metadata["ownerReferences"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let owned = match owners {
        [one] => one["kind"] == "Node" && one["name"] == node && one["controller"] == true,
        _ => false,
    };
    if !metadata["annotations"][MIRROR].is_string() {
        Some(format!(
            "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
        ))
    } else if pod["spec"]["nodeName"] != node {
        Some(format!(
            "node \"{node}\" can only create pods with spec.nodeName set to itself"
        ))
    } else if !owned {
        Some(format!(
            "node \"{node}\" can only create pods with an owner reference set to itself"
        ))
    } else {
        Kind::ALL
            .into_iter()
            .find(|(kind, _)| {
                let found = references::of(pod, *kind);
                !(found.is_empty() || *kind == Kind::ServiceAccount && found.contains("default"))
            })
            .map(|(_, resource)| format!("node \"{node}\" can not create pods that reference {resource}"))
    }
}

/// A node may have tokens for pods that are bound to it, and no others.
///
/// # Errors
/// `Forbidden`.
pub fn restrict_token(user: &User, reference: &Value, bound: &Bound) -> Result<(), ApiError> {
    let Some(node) = of(user) else { return Ok(()) };
    let why = if bound.pod.is_none() {
        "node requested token not bound to a pod"
    } else if reference["uid"].as_str().unwrap_or_default().is_empty() {
        "node requested token with a pod binding without a uid"
    } else if bound.node.as_ref().is_none_or(|bound| bound.name != node) {
        "node requested token bound to a pod scheduled on a different node"
    } else {
        return Ok(());
    };
    let accounts = GroupResource {
        group: String::new(),
        resource: "serviceaccounts".to_owned(),
    };
    Err(ApiError::forbidden(&accounts, &bound.serviceaccount.name, why))
}

#[cfg(test)]
mod tests;
