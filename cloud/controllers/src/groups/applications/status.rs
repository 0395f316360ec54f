//! The account of what was made for an application: its status.

use k8s_openapi::api::core::v1;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Error};
use ledge_crds::apps::{ManifestCondition, ManifestStatus, ResourceIdentifier};
use serde_json::{Value, json};

use super::super::availability::is_available;
use super::super::plan::Planned;
use super::kinds::Kinds;

/// Longer messages of events are refused by the API.
const LONGEST_MESSAGE: usize = 1024;

/// An object in the application's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) kind: GroupVersionKind,
    pub(super) name: String,
}

impl Id {
    /// Whether it is the same object, whichever version it is asked for in.
    fn is(&self, other: &Id) -> bool {
        self.kind.group == other.kind.group && self.kind.kind == other.kind.kind && self.name == other.name
    }
}

/// What became of an object.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is there.
    Made(Value),
    /// The API refuses it; why.
    NotNow(String),
    /// It has to wait.
    Later,
    /// It cannot be made; why.
    Never(String),
}

struct Entry {
    /// `None` for a manifest of which nothing can be made.
    id: Option<Id>,
    ordinal: i64,
    resource: Option<String>,
    condition: ManifestCondition,
    expected: bool,
    complaint: Option<String>,
}

/// What was made, and what is going to be.
pub(super) struct Account {
    namespace: String,
    entries: Vec<Entry>,
    told: Vec<ManifestStatus>,
}

impl Account {
    /// What the status `told`.
    pub(super) fn new(namespace: &str, told: &[ManifestStatus]) -> Account {
        let entries = told.iter().filter_map(|status| {
            let id = &status.identifier;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let kind = GroupVersionKind::gvk(&text(&id.group), &text(&id.version), &text(&id.kind));
            let name = id.name.clone().filter(|name| !name.is_empty())?;
            Some(Entry {
                id: Some(Id { kind, name }),
                ordinal: id.ordinal,
                resource: id.resource.clone(),
                condition: status.conditions.unwrap_or(ManifestCondition::Processing),
                expected: false,
                complaint: None,
            })
        });
        Account {
            namespace: namespace.to_owned(),
            entries: entries.collect(),
            told: told.to_vec(),
        }
    }

    /// Names what is going to be made.
    pub(super) fn expect(&mut self, planned: &[Planned], kinds: &Kinds) {
        for planned in planned {
            let id = id(planned);
            let known = self.entries.iter_mut().find(|entry| same(entry, id.as_ref()));
            match known.filter(|_| planned.object.is_ok()) {
                Some(entry) => {
                    entry.expected = true;
                    entry.ordinal = planned.ordinal;
                    entry.resource = kinds.plural(&planned.kind).map(str::to_owned);
                    entry.id = id;
                }
                None => self.entries.push(Entry {
                    resource: kinds.plural(&planned.kind).map(str::to_owned),
                    // What is not going to be made is nothing that has to be deleted one day.
                    id: id.filter(|_| planned.object.is_ok()),
                    ordinal: planned.ordinal,
                    condition: ManifestCondition::Processing,
                    expected: true,
                    complaint: None,
                }),
            }
        }
    }

    /// Says what became of an object that was expected.
    pub(super) fn settle(&mut self, planned: &Planned, outcome: Outcome) {
        let id = id(planned);
        let entry = self.entries.iter_mut().find(|entry| {
            let refused = entry.id.is_none() && planned.object.is_err() && entry.complaint.is_none();
            entry.expected && entry.ordinal == planned.ordinal && (refused || same(entry, id.as_ref()))
        });
        let Some(entry) = entry else { return };
        let kind = &planned.kind;
        match outcome {
            Outcome::Made(object) => {
                entry.condition = match is_available(&kind.group, &kind.kind, &object) {
                    true => ManifestCondition::Available,
                    false => ManifestCondition::Processing,
                };
            }
            Outcome::Later => {}
            Outcome::NotNow(why) | Outcome::Never(why) => {
                entry.condition = ManifestCondition::Processing;
                let what = match planned.name.as_str() {
                    "" => format!("manifest {}", planned.ordinal),
                    name => format!("manifest {} ({} {name})", planned.ordinal, kind.kind),
                };
                entry.complaint = Some(format!("{what}: {why}"));
            }
        }
    }

    /// What was made and is not expected any more.
    pub(super) fn leftovers(&self) -> Vec<Id> {
        let leftovers = self.entries.iter().filter(|entry| !entry.expected);
        leftovers.filter_map(|entry| entry.id.clone()).collect()
    }

    /// It is not there any more.
    pub(super) fn removed(&mut self, id: &Id) {
        self.entries
            .retain(|entry| entry.expected || !same(entry, Some(id)));
    }

    /// Why objects cannot be made.
    pub(super) fn complaints(&self) -> Vec<String> {
        self.entries
            .iter()
            .filter_map(|entry| entry.complaint.clone())
            .collect()
    }

    /// What the status has to say, if it does not say it yet.
    pub(super) fn news(&self) -> Option<Vec<ManifestStatus>> {
        let statuses = self.statuses();
        (statuses != self.told).then_some(statuses)
    }

    /// The status says it now.
    pub(super) fn told(&mut self) {
        self.told = self.statuses();
    }

    fn statuses(&self) -> Vec<ManifestStatus> {
        let mut statuses: Vec<ManifestStatus> = self
            .entries
            .iter()
            .map(|entry| {
                let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
                let kind = entry.id.as_ref().map(|id| &id.kind);
                ManifestStatus {
                    identifier: ResourceIdentifier {
                        ordinal: entry.ordinal,
                        group: kind.and_then(|kind| some(&kind.group)),
                        version: kind.and_then(|kind| some(&kind.version)),
                        kind: kind.and_then(|kind| some(&kind.kind)),
                        resource: entry.resource.clone().filter(|_| kind.is_some()),
                        namespace: kind.map(|_| self.namespace.clone()),
                        name: entry.id.as_ref().map(|id| id.name.clone()),
                    },
                    conditions: Some(entry.condition),
                }
            })
            .collect();
        statuses.sort_by(|a, b| {
            let place = |status: &ManifestStatus| (status.identifier.ordinal, status.identifier.name.clone());
            place(a).cmp(&place(b))
        });
        statuses
    }
}

fn id(planned: &Planned) -> Option<Id> {
    (!planned.name.is_empty()).then(|| Id {
        kind: planned.kind.clone(),
        name: planned.name.clone(),
    })
}

fn same(entry: &Entry, id: Option<&Id>) -> bool {
    matches!((&entry.id, id), (Some(a), Some(b)) if a.is(b))
}

/// Makes an event of the application, which `kubectl describe` shows.
pub(super) async fn event(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    text: &str,
) -> Result<(), Error> {
    let message: String = text.chars().take(LONGEST_MESSAGE).collect();
    let now = Timestamp::now().to_string();
    let event = json!({
        "metadata": {"generateName": format!("{name}."), "namespace": namespace},
        "involvedObject": {
            "apiVersion": "apps.kubeedge.io/v1alpha1", "kind": "EdgeApplication",
            "namespace": namespace, "name": name, "uid": uid,
        },
        "type": "Warning",
        "reason": "NotMade",
        "message": message,
        "source": {"component": super::MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    });
    let event: v1::Event = serde_json::from_value(event).map_err(Error::SerdeError)?;
    let events: Api<v1::Event> = Api::namespaced(client.clone(), namespace);
    events.create(&PostParams::default(), &event).await.map(|_| ())
}
