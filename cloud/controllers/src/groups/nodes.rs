//! Writes the label of each node and the status of each group.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error, ResourceExt};
use ledge_crds::apps::{BELONGING_TO, NodeGroup};
use serde_json::json;

use super::later::Later;
use super::membership::{FINALIZER, Group, Node, homes, statuses};
use super::mirror::{Mirror, events};

/// Who writes, in `managedFields`.
const MANAGER: &str = "ledge-node-groups";
/// Pods asked for at once.
const PAGE: u32 = 500;

#[allow(clippy::large_enum_variant, reason = "one at a time is handled")]
enum Input {
    Node(Box<Event<v1::Node>>),
    Group(Event<NodeGroup>),
}

/// What has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// The label of a node.
    Label(String),
    /// Pods on a node that were there for a group it has left; all nodes when empty.
    Pods(String),
    /// The status of a group.
    Status(String),
}

struct Controller {
    client: Client,
    nodes: Mirror<Node>,
    groups: Mirror<Group>,
    work: BTreeSet<Work>,
    later: Later<Work>,
    /// Nodes whose label the API refuses, and why.
    refused: BTreeMap<String, String>,
}

/// Follows nodes and groups. Never ends.
pub(super) async fn run(client: Client) {
    let config = watcher::Config::default;
    let nodes = watcher(Api::<v1::Node>::all(client.clone()), config());
    let groups = watcher(Api::<NodeGroup>::all(client.clone()), config());
    let nodes = events("nodes".to_owned(), nodes).map(|event| Input::Node(Box::new(event)));
    let groups = events("nodegroups".to_owned(), groups).map(Input::Group);
    let mut inputs = futures::stream::select(nodes, groups);
    let mut controller = Controller {
        client,
        nodes: Mirror::default(),
        groups: Mirror::default(),
        // What was left behind when this last ran.
        work: BTreeSet::from([Work::Pods(String::new())]),
        later: Later::default(),
        refused: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            input = inputs.next() => controller.take(input),
            () = controller.later.wait() => controller.work.extend(controller.later.due()),
        }
        while let Some(input) = inputs.next().now_or_never() {
            controller.take(input);
        }
        controller.act().await;
    }
}

impl Controller {
    fn take(&mut self, input: Option<Input>) {
        match input {
            Some(Input::Node(event)) => {
                for change in self.nodes.take(*event, |node| Some(Node::of(node))) {
                    self.node_changed(&change.key.1, change.before.as_ref());
                }
            }
            Some(Input::Group(event)) => {
                for change in self.groups.take(event, |group| Some(Group::of(group))) {
                    let selects_as = match (&change.before, self.groups.get(&change.key)) {
                        (Some(before), Some(now)) => now.selects_as(before),
                        _ => false,
                    };
                    self.work.insert(Work::Status(change.key.1));
                    if !selects_as {
                        // Who else wants the same nodes depends on it.
                        let nodes = self.nodes.iter().map(|(key, _)| Work::Label(key.1.clone()));
                        self.work.extend(nodes);
                        let groups = self.groups.iter().map(|(key, _)| Work::Status(key.1.clone()));
                        self.work.extend(groups);
                    }
                }
            }
            // Watches do not end; if they did, there would be nothing to do any more.
            None => {}
        }
    }

    fn node_changed(&mut self, name: &str, before: Option<&Node>) {
        let now = self.nodes.get(&(String::new(), name.to_owned()));
        for node in [before, now].into_iter().flatten() {
            for ((_, group_name), group) in self.groups.iter() {
                if group.selects(name, node) || node.label() == Some(group_name) {
                    self.work.insert(Work::Status(group_name.clone()));
                }
            }
        }
        if now.is_none() {
            // Named by a group: it says now that there is no such node.
            self.refused.remove(name);
        }
        self.work.insert(Work::Label(name.to_owned()));
    }

    async fn act(&mut self) {
        // What is not known to be there is not known to be gone.
        if !self.nodes.is_complete() || !self.groups.is_complete() || self.work.is_empty() {
            return;
        }
        let homes = homes(&self.groups, &self.nodes);
        // Labels come first, then pods, then statuses, as `Work` is ordered; labels add pods.
        while let Some(work) = self.work.pop_first() {
            let done = match &work {
                Work::Label(node) => self.label(node, homes.get(node)).await,
                Work::Pods(node) => self.evict(node, &homes).await,
                Work::Status(group) => self.status(group, &homes).await,
            };
            match done {
                Ok(()) => self.later.done(&work),
                Err(error) => {
                    tracing::warn!(?work, %error, "not done; it is tried again");
                    self.later.failed(work);
                }
            }
        }
    }

    /// Makes the label of a node say where it belongs.
    async fn label(&mut self, name: &str, home: Option<&String>) -> Result<(), Error> {
        let Some(node) = self.nodes.get(&(String::new(), name.to_owned())) else {
            return Ok(());
        };
        let label = node.label().map(str::to_owned);
        if label.as_ref() == home {
            self.refused.remove(name);
            return Ok(());
        }
        let patch = json!({"metadata": {"labels": {BELONGING_TO: home}}});
        let nodes: Api<v1::Node> = Api::all(self.client.clone());
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match nodes.patch_metadata(name, &params, &Patch::Merge(patch)).await {
            Ok(_) => {
                if self.refused.remove(name).is_some() {
                    self.work.extend(home.cloned().map(Work::Status));
                }
                if label.is_some() {
                    self.work.insert(Work::Pods(name.to_owned()));
                }
                Ok(())
            }
            // It has gone meanwhile.
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                if let Error::Api(status) = &error
                    && (400..500).contains(&status.code)
                {
                    self.refused.insert(name.to_owned(), status.message.clone());
                    self.work.extend(home.cloned().map(Work::Status));
                }
                Err(error)
            }
        }
    }

    /// Deletes pods that ask for a group which their node is not in: of one node, or of all.
    async fn evict(&self, node: &str, homes: &BTreeMap<String, String>) -> Result<(), Error> {
        let pods: Api<v1::Pod> = Api::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        if !node.is_empty() {
            params = params.fields(&format!("spec.nodeName={node}"));
        }
        loop {
            let page = pods.list(&params).await?;
            for pod in &page.items {
                if self.is_misplaced(pod, homes) {
                    self.delete(pod).await?;
                }
            }
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params.continue_token = Some(token),
                _ => return Ok(()),
            }
        }
    }

    fn is_misplaced(&self, pod: &v1::Pod, homes: &BTreeMap<String, String>) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let wanted = spec
            .node_selector
            .as_ref()
            .and_then(|selector| selector.get(BELONGING_TO));
        let node = spec.node_name.as_ref().filter(|node| {
            // Pods of a node that is not there are not this controller's.
            self.nodes.get(&(String::new(), (*node).clone())).is_some()
        });
        match (wanted, node) {
            (Some(wanted), Some(node)) => {
                homes.get(node) != Some(wanted) && pod.metadata.deletion_timestamp.is_none()
            }
            _ => false,
        }
    }

    async fn delete(&self, pod: &v1::Pod) -> Result<(), Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let pods: Api<v1::Pod> = Api::namespaced(self.client.clone(), &namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        tracing::info!(namespace, name, "its node has left the group it asks for");
        match pods.delete(&name, &params).await {
            // It has gone, and maybe another has its name.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    }

    async fn status(&self, name: &str, homes: &BTreeMap<String, String>) -> Result<(), Error> {
        let Some(group) = self.groups.get(&(String::new(), name.to_owned())) else {
            return Ok(());
        };
        let groups: Api<NodeGroup> = Api::all(self.client.clone());
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        if group.deleted {
            return self.let_go(name, group, &groups, &params).await;
        }
        let told = statuses(name, group, &self.nodes, homes, &self.refused);
        if told == group.told {
            return Ok(());
        }
        let patch = json!({"status": {"nodeStatuses": told}});
        gone_is_done(groups.patch_status(name, &params, &Patch::Merge(patch)).await)
    }

    /// Takes the finalizer of KubeEdge's controller away once no node has the label any more.
    async fn let_go(
        &self,
        name: &str,
        group: &Group,
        groups: &Api<NodeGroup>,
        params: &PatchParams,
    ) -> Result<(), Error> {
        let held = self.nodes.iter().any(|(_, node)| node.label() == Some(name));
        if held || !group.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        let others: Vec<&String> = group
            .finalizers
            .iter()
            .filter(|other| *other != FINALIZER)
            .collect();
        // With its version: a finalizer that came meanwhile is not lost.
        let patch = json!({"metadata": {"finalizers": others, "resourceVersion": group.resource_version}});
        gone_is_done(groups.patch_metadata(name, params, &Patch::Merge(patch)).await)
    }
}

fn gone_is_done<T>(done: Result<T, Error>) -> Result<(), Error> {
    match done {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(|_| ()),
    }
}
