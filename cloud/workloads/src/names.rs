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
    /// The ServiceAccount of a namespace.
    Account(String),
    /// The addresses of a Service.
    Service(Name),
    /// A claim and its volume.
    Claim(Name),
    /// A volume and its claim.
    Volume(Name),
    /// A CronJob and its Jobs.
    CronJob(Name),
    /// A Job and its pods.
    Job(Name),
    /// A Deployment and its ReplicaSets.
    Deployment(Name),
    /// A ReplicaSet and its pods.
    ReplicaSet(Name),
    /// A StatefulSet and its pods.
    StatefulSet(Name),
    /// A DaemonSet and its pods.
    DaemonSet(Name),
    /// All pods without a node.
    Schedule,
    /// The pods of a node whose Node object is gone.
    Strays(String),
    /// What is behind a Service.
    Endpoints(Name),
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Account(namespace) => write!(f, "account of namespace {namespace}"),
            Task::Service(name) => write!(f, "service {name}"),
            Task::Claim(name) => write!(f, "claim {name}"),
            Task::Volume(name) => write!(f, "volume {name}"),
            Task::CronJob(name) => write!(f, "cron job {name}"),
            Task::Job(name) => write!(f, "job {name}"),
            Task::Deployment(name) => write!(f, "deployment {name}"),
            Task::ReplicaSet(name) => write!(f, "replica set {name}"),
            Task::StatefulSet(name) => write!(f, "stateful set {name}"),
            Task::DaemonSet(name) => write!(f, "daemon set {name}"),
            Task::Schedule => f.write_str("scheduling"),
            Task::Strays(node) => write!(f, "pods of node {node}"),
            Task::Endpoints(name) => write!(f, "endpoints of service {name}"),
        }
    }
}
