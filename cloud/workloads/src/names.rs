//! What the parts of this crate call things: names of objects, kinds, tasks.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Where an object is; the namespace is empty for kinds of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl Name {
    /// `namespace` and `name`.
    pub fn new(namespace: &str, name: &str) -> Name {
        Name {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The name in an object's metadata.
    pub fn of(metadata: &ObjectMeta) -> Name {
        Name {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Another object in the same namespace.
    pub fn beside(&self, name: &str) -> Name {
        Name::new(&self.namespace, name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// Something to look at: what is wanted there is compared with what is there. Tasks that wait together are done in the
/// order of this type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// A Deployment and its ReplicaSets.
    Deployment(Name),
    /// A ReplicaSet and its pods.
    ReplicaSet(Name),
    /// All pods without a node.
    Schedule,
    /// The pods of a node whose Node object is gone.
    Strays(String),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Deployment(name) => write!(f, "deployment {name}"),
            Task::ReplicaSet(name) => write!(f, "replica set {name}"),
            Task::Schedule => f.write_str("scheduling"),
            Task::Strays(node) => write!(f, "pods of node {node}"),
        }
    }
}
