//! Objects that somebody on a node asked for: listed and watched in the node's own name, so that it sees what it may
//! see, and told like everything else.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::Status;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Error};
use ledge_proto::ids::Scope;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::down::{Heard, Pending};
use crate::as_node;
use crate::informer::{self, Followed};
use crate::objects::{self, Object};
use crate::told::record;

/// The node may not see it, or there is no such kind: refusals after which it has nothing.
const GONE: [u16; 2] = [403, 404];
/// Most interests of one node; more are refused.
const PER_NODE_MAX: usize = 1024;

/// What following an interest tells.
pub(super) enum Told {
    /// Where the list stands that begins now.
    At(String),
    Event(ApiResource, Box<Event<DynamicObject>>),
    Refused(Box<Status>),
}

/// The interests of all nodes.
pub(super) struct Interests {
    client: Client,
    heard: mpsc::Sender<Heard>,
    all: BTreeMap<(Scope, String), Interest>,
}

struct Interest {
    content: v1::Interest,
    objects: BTreeMap<String, Arc<Object>>,
    found: HashSet<String>,
    listed: bool,
    version: String,
    state: Option<v1::InterestState>,
    following: Option<AbortHandle>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        if let Some(following) = &self.following {
            following.abort();
        }
    }
}

impl Interests {
    pub(super) fn new(client: Client, heard: mpsc::Sender<Heard>) -> Interests {
        Interests {
            client,
            heard,
            all: BTreeMap::new(),
        }
    }

    /// Interests that are not among `asked`.
    pub(super) fn others(&self, asked: &BTreeSet<(Scope, String)>) -> Vec<(Scope, String)> {
        let others = self.all.keys().filter(|interest| !asked.contains(*interest));
        others.cloned().collect()
    }

    /// A node has an interest, or no longer.
    pub(super) fn set(
        &mut self,
        scope: &Scope,
        id: String,
        content: Option<v1::Interest>,
        pending: &mut Pending,
    ) {
        let place = (scope.clone(), id);
        let known = self.all.get(&place).map(|known| &known.content);
        if known.is_some() && known == content.as_ref() {
            return;
        }
        pending.interests.insert(place.1.clone());
        if let Some(mut before) = self.all.remove(&place) {
            pending
                .objects
                .extend(std::mem::take(&mut before.objects).into_keys());
        }
        let interest = content.map(|content| Interest {
            content,
            objects: BTreeMap::new(),
            found: HashSet::new(),
            listed: false,
            version: String::new(),
            state: None,
            following: None,
        });
        self.all.extend(interest.map(|interest| (place, interest)));
        self.follow_some(scope, pending);
    }

    /// Follows what is not followed yet, up to the limit; what is beyond it is told so, and has its turn when others go.
    fn follow_some(&mut self, scope: &Scope, pending: &mut Pending) {
        let first = (scope.clone(), String::new());
        let of_node = self
            .all
            .range(first.clone()..)
            .take_while(|((of, _), _)| of == scope);
        let followed = of_node
            .filter(|(_, interest)| interest.following.is_some())
            .count();
        let mut room = PER_NODE_MAX.saturating_sub(followed);
        let of_node = self.all.range_mut(first..).take_while(|((of, _), _)| of == scope);
        for ((_, id), interest) in of_node.filter(|(_, interest)| interest.following.is_none()) {
            if room > 0 {
                room -= 1;
                let (client, heard) = (self.client.clone(), self.heard.clone());
                let following = follow(client, scope.clone(), id.clone(), interest.content.clone(), heard);
                interest.following = Some(tokio::spawn(following).abort_handle());
                interest.state = None;
            } else if interest.state.is_none() {
                interest.state = Some(v1::InterestState {
                    code: 429,
                    reason: "TooManyRequests".to_owned(),
                    message: format!("the node has more than {PER_NODE_MAX} interests"),
                    resource_version: String::new(),
                });
                pending.interests.insert(id.clone());
            }
        }
    }

    /// Something happened to what an interest takes.
    pub(super) fn take(&mut self, scope: &Scope, id: &str, told: Told, pending: &mut Pending) {
        let Some(interest) = self.all.get_mut(&(scope.clone(), id.to_owned())) else {
            return;
        };
        match told {
            Told::At(version) => interest.version = version,
            Told::Refused(status) => {
                if GONE.contains(&status.code) {
                    let objects = std::mem::take(&mut interest.objects);
                    pending.objects.extend(objects.into_keys());
                }
                interest.state = Some(v1::InterestState {
                    code: u32::from(status.code),
                    reason: status.reason,
                    message: status.message,
                    resource_version: String::new(),
                });
                pending.interests.insert(id.to_owned());
            }
            Told::Event(resource, event) => interest.take(id, &resource, *event, pending),
        }
    }

    /// The object that an interest of `scope` takes.
    pub(super) fn wanted(&self, scope: &Scope, key: &str) -> Option<&Arc<Object>> {
        self.of(scope).find_map(|interest| interest.objects.get(key))
    }

    /// Whether everything that could ask for the object was read.
    pub(super) fn may_remove(&self, scope: &Scope, key: &str) -> bool {
        self.of(scope)
            .all(|interest| interest.is_settled() || !interest.takes_kind(key))
    }

    /// The record that brings what the node knows of its interest to what it should.
    pub(super) fn answer(
        &self,
        scope: &Scope,
        id: &str,
        told: Option<v1::InterestState>,
    ) -> Option<v1::Record> {
        let payload = match (self.all.get(&(scope.clone(), id.to_owned())), told) {
            (None, None) => return None,
            (None, Some(_)) => Payload::InterestStateRemoved,
            (Some(interest), told) => {
                let state = interest.state.as_ref()?;
                // A list that is made again, after a restart, tells nothing new.
                if told.is_some_and(|told| {
                    (told.code, &told.reason, &told.message) == (state.code, &state.reason, &state.message)
                }) {
                    return None;
                }
                Payload::InterestState(state.clone())
            }
        };
        Some(record(id.to_owned(), &payload))
    }

    fn of(&self, scope: &Scope) -> impl Iterator<Item = &Interest> {
        let first = (scope.clone(), String::new());
        self.all
            .range(first..)
            .take_while(move |((of, _), _)| of == scope)
            .map(|(_, interest)| interest)
    }
}

impl Interest {
    /// Something happened to an object that it takes.
    fn take(&mut self, id: &str, resource: &ApiResource, event: Event<DynamicObject>, pending: &mut Pending) {
        match event {
            Event::Init => self.found.clear(),
            Event::InitApply(object) => {
                self.found.insert(objects::key_of(resource, &object));
                self.put(resource, object, pending);
            }
            Event::Apply(object) => self.put(resource, object, pending),
            Event::Delete(object) => {
                let key = objects::key_of(resource, &object);
                self.objects.remove(&key);
                pending.objects.insert(key);
            }
            Event::InitDone => {
                self.listed = true;
                let found = std::mem::take(&mut self.found);
                let gone: Vec<String> = self
                    .objects
                    .keys()
                    .filter(|key| !found.contains(*key))
                    .cloned()
                    .collect();
                for key in gone {
                    self.objects.remove(&key);
                    pending.objects.insert(key);
                }
                self.state = Some(v1::InterestState {
                    code: 200,
                    resource_version: self.version.clone(),
                    ..Default::default()
                });
                pending.interests.insert(id.to_owned());
            }
        }
    }

    fn put(&mut self, resource: &ApiResource, object: DynamicObject, pending: &mut Pending) {
        let key = objects::key_of(resource, &object);
        if let Some((object, _)) = objects::read(resource, object) {
            self.objects.insert(key.clone(), Arc::new(object));
            pending.objects.insert(key);
        }
    }

    /// Whether what it takes is known: the objects, or that there are none for this node.
    fn is_settled(&self) -> bool {
        let refused = |state: &v1::InterestState| GONE.iter().any(|code| u32::from(*code) == state.code);
        self.listed || self.state.as_ref().is_some_and(refused)
    }

    fn takes_kind(&self, key: &str) -> bool {
        key.starts_with(&format!("{}/{}/", self.content.group, self.content.resource))
    }
}

async fn follow(
    client: Client,
    scope: Scope,
    id: String,
    interest: v1::Interest,
    heard: mpsc::Sender<Heard>,
) {
    let client = as_node::client(client, &scope);
    let tell = |told| Heard::Interest(scope.clone(), id.clone(), told);
    let followed = loop {
        match begin(&client, &interest).await {
            Ok((followed, version)) => {
                if heard.send(tell(Told::At(version))).await.is_err() {
                    return;
                }
                break followed;
            }
            Err(err) => {
                tracing::info!(node = %scope, resource = interest.resource, %err, "an interest cannot be followed now; trying again");
                if let Error::Api(status) = err
                    && heard.send(tell(Told::Refused(status))).await.is_err()
                {
                    return;
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    };
    let resource = followed.resource.clone();
    let wrap = |event| match event {
        Ok(event) => tell(Told::Event(resource.clone(), Box::new(event))),
        Err(status) => tell(Told::Refused(Box::new(status))),
    };
    informer::follow(client, followed, heard, wrap).await;
}

/// How long an interest that was refused waits: somebody may give the node the permission meanwhile.
const AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(30);

/// Asks whether the node may list it, and where the list stands.
async fn begin(client: &Client, interest: &v1::Interest) -> Result<(Followed, String), Error> {
    let version = match interest.version.as_str() {
        "" => preferred(client, &interest.group).await?,
        version => version.to_owned(),
    };
    let mut config = watcher::Config::default();
    let mut fields = interest.field_selector.clone();
    if !interest.name.is_empty() {
        let separator = if fields.is_empty() { "" } else { "," };
        fields = format!("{fields}{separator}metadata.name={}", interest.name);
    }
    if !fields.is_empty() {
        config = config.fields(&fields);
    }
    if !interest.label_selector.is_empty() {
        config = config.labels(&interest.label_selector);
    }
    let followed = Followed {
        resource: informer::resource(&interest.group, &version, "", &interest.resource),
        namespace: interest.namespace.clone(),
        config,
    };
    let mut first = ListParams::default().limit(1);
    first.field_selector = followed.config.field_selector.clone();
    first.label_selector = followed.config.label_selector.clone();
    let list = followed.api(client.clone()).list(&first).await?;
    // The list's items do not say what they are; the list does.
    let mut followed = followed;
    let kind = list.types.kind;
    followed.resource.kind = kind.strip_suffix("List").unwrap_or(&kind).to_owned();
    Ok((followed, list.metadata.resource_version.unwrap_or_default()))
}

/// The version of a group that the API server prefers.
async fn preferred(client: &Client, group: &str) -> Result<String, Error> {
    if group.is_empty() {
        return Ok("v1".to_owned());
    }
    let groups = client.list_api_groups().await?;
    let found = groups.groups.into_iter().find(|found| found.name == group);
    let preferred = found.and_then(|group| group.preferred_version);
    preferred.map(|version| version.version).ok_or_else(|| {
        let mut status = Status::failure("the server could not find the requested resource", "NotFound");
        status.code = 404;
        Error::Api(Box::new(status))
    })
}
