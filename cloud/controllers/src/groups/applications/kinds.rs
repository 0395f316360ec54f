//! The kinds of what applications make, each with what is there of it.

use std::collections::HashMap;

use futures::stream::BoxStream;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error, ResourceExt};
use serde_json::Value;

use super::super::mirror::{Key, Mirror, events, key};

/// An object that an application made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Made {
    /// The application's uid.
    pub(super) owner: String,
    /// The application's name; its namespace is that of the object.
    application: String,
    pub(super) object: Value,
}

struct Kind {
    resource: ApiResource,
    made: Mirror<Made>,
}

/// What becomes of a kind somebody asks for.
pub(super) enum Resolved {
    /// It is at place `kind`. Asked for the first time, there is what its watch tells.
    Known {
        kind: usize,
        stream: Option<BoxStream<'static, Event<DynamicObject>>>,
    },
    /// It is not served, or cannot belong to an application; why.
    Unfit(String),
}

/// Every kind that was asked for.
pub(super) struct Kinds {
    client: Client,
    places: HashMap<GroupVersionKind, usize>,
    kinds: Vec<Kind>,
}

impl Kinds {
    pub(super) fn new(client: Client) -> Kinds {
        Kinds {
            client,
            places: HashMap::new(),
            kinds: Vec::new(),
        }
    }

    /// Finds a kind.
    pub(super) async fn resolve(&mut self, kind: &GroupVersionKind) -> Result<Resolved, Error> {
        if let Some(place) = self.places.get(kind) {
            return Ok(Resolved::Known {
                kind: *place,
                stream: None,
            });
        }
        let (resource, capabilities) = match discovery::pinned_kind(&self.client, kind).await {
            Ok(found) => found,
            Err(Error::Discovery(_)) => return Ok(unserved(kind)),
            Err(Error::Api(status)) if status.code == 404 => return Ok(unserved(kind)),
            Err(error) => return Err(error),
        };
        if capabilities.scope != Scope::Namespaced {
            return Ok(Resolved::Unfit(format!(
                "{} have no namespace: an application makes what is in its namespace",
                resource.plural
            )));
        }
        let place = self.kinds.len();
        let all = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let stream = events(resource.plural.clone(), watcher(all, watcher::Config::default()));
        self.kinds.push(Kind {
            resource,
            made: Mirror::default(),
        });
        self.places.insert(kind.clone(), place);
        Ok(Resolved::Known {
            kind: place,
            stream: Some(stream),
        })
    }

    pub(super) fn resource(&self, kind: usize) -> &ApiResource {
        &self.kinds[kind].resource
    }

    /// A kind that was resolved, and the object of that name if an application made it.
    pub(super) fn made(
        &self,
        kind: &GroupVersionKind,
        namespace: &str,
        name: &str,
    ) -> Option<(&ApiResource, Option<&Made>)> {
        let kind = &self.kinds[*self.places.get(kind)?];
        let made = kind.made.get(&(namespace.to_owned(), name.to_owned()));
        Some((&kind.resource, made))
    }

    /// The resource of a kind, such as `deployments`.
    pub(super) fn plural(&self, kind: &GroupVersionKind) -> Option<&str> {
        let place = self.places.get(kind)?;
        Some(self.kinds[*place].resource.plural.as_str())
    }

    /// Takes what a watch told, and gives the applications it concerns.
    pub(super) fn take(&mut self, kind: usize, event: Event<DynamicObject>) -> Vec<Key> {
        let kind = &mut self.kinds[kind];
        let mirror = &mut kind.made;
        let mut concerned = Vec::new();
        // An application may have made it, be asked to make it, or both.
        if let Event::Delete(object) | Event::Apply(object) = &event {
            concerned.extend(owner(object).map(|(_, name)| (key(object).0, name)));
        }
        let resource = &kind.resource;
        for change in mirror.take(event, |object| made(resource, object)) {
            let now = mirror.get(&change.key);
            for made in change.before.iter().chain(now) {
                concerned.push((change.key.0.clone(), made.application.clone()));
            }
        }
        concerned
    }
}

fn unserved(kind: &GroupVersionKind) -> Resolved {
    Resolved::Unfit(format!("{} is not served in {}", kind.kind, kind.api_version()))
}

/// Uid and name of the application that made it.
fn owner(object: &DynamicObject) -> Option<(String, String)> {
    let owners = object.owner_references();
    let owner = owners.iter().find(|owner| {
        owner.kind == "EdgeApplication" && owner.api_version.starts_with("apps.kubeedge.io/")
    })?;
    Some((owner.uid.clone(), owner.name.clone()))
}

fn made(resource: &ApiResource, object: DynamicObject) -> Option<Made> {
    let (owner, application) = owner(&object)?;
    Some(Made {
        owner,
        application,
        object: value(resource, object),
    })
}

/// The object, without what only its writers need.
pub(super) fn value(resource: &ApiResource, mut object: DynamicObject) -> Value {
    object.metadata.managed_fields = None;
    // Objects that came from JSON go back to it.
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    // Lists leave them out of their items.
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), resource.api_version.as_str().into());
        object.insert("kind".to_owned(), resource.kind.as_str().into());
    }
    value
}
