//! What somebody on this node asked for that the node was not told by itself: an interest in its log, until nobody asks any
//! more. As long as it stands, the cloud keeps its objects current in the node's stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledge_kubeapi::error::Reason;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::selector::{FieldSelector, LabelSelector};
use ledge_kubeapi::serve::options::Options;
use ledge_kubeapi::serve::request::Request;
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::store::Store as _;
use ledge_kubeapi::{ApiError, ObjectKey, Resource};
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use prost::Message;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kinds;
use crate::ledger::Ledger;
use crate::mirror::Mirror;
use crate::outbox::Outbox;

/// Interests that stand at once.
pub const INTERESTS_MAX: usize = 256;
/// An interest nobody used for this long is taken back.
pub const UNUSED_FOR: Duration = Duration::from_secs(24 * 3600);
/// As [`UNUSED_FOR`], of Events: they change all the time, and each look at an object asks for its own.
const EVENTS_UNUSED_FOR: Duration = Duration::from_secs(600);
/// A refusal is repeated for this long, then asked for again.
pub const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The cloud has this long for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest selector.
const SELECTOR_MAX_BYTES: usize = 1024;

/// See the module.
pub(crate) struct Interests {
    mirror: Mirror,
    outbox: Arc<dyn Outbox>,
    link: watch::Receiver<bool>,
    /// Until when each counts as used.
    used: Mutex<BTreeMap<String, Instant>>,
    /// One is asked for after the other, so that none is asked for twice.
    asking: tokio::sync::Mutex<()>,
}

/// The name of an interest: it follows from the content.
pub(crate) fn id_of(interest: &v1::Interest) -> String {
    let hash = blake3::hash(&interest.encode_to_vec());
    hash.to_hex().chars().take(32).collect()
}

/// Whether whatever `narrow` takes is taken by `wide`.
fn covers(wide: &v1::Interest, narrow: &v1::Interest) -> bool {
    let either = |wide: &str, narrow: &str| wide.is_empty() || wide == narrow;
    wide.group == narrow.group
        && wide.resource == narrow.resource
        && either(&wide.namespace, &narrow.namespace)
        && either(&wide.name, &narrow.name)
        && either(&wide.label_selector, &narrow.label_selector)
        && either(&wide.field_selector, &narrow.field_selector)
}

impl Interests {
    pub(crate) fn new(mirror: Mirror, outbox: Arc<dyn Outbox>, link: watch::Receiver<bool>) -> Interests {
        Interests {
            mirror,
            outbox,
            link,
            used: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Sees to it that a read can be answered from what the node holds; the response when it cannot.
    pub(crate) async fn prepare(&self, request: &Request, path: &ResourcePath) -> Result<(), Response> {
        let refuse = |error: ApiError| Response::error(&error);
        let Some(resource) = self.mirror.registry().get(&path.gvr).cloned() else {
            return Ok(());
        };
        let options = Options::parse(&request.query).map_err(refuse)?;
        let wanted = self.wanted(path, &resource, &options).map_err(refuse)?;
        let Some(interest) = wanted else { return Ok(()) };
        let lasts = match options.watch {
            true => Duration::from_secs(options.timeout_s.unwrap_or(3600)).min(UNUSED_FOR),
            false => Duration::ZERO,
        };
        self.ask(interest, lasts).await
    }

    /// What has to be asked for, if anything.
    fn wanted(
        &self,
        path: &ResourcePath,
        resource: &Resource,
        options: &Options,
    ) -> Result<Option<v1::Interest>, ApiError> {
        let group_resource = resource.kept_as();
        if group_resource.group == kinds::OWN_GROUP || path.namespace.is_some() && !resource.namespaced() {
            return Ok(None);
        }
        if !matches!(path.subresource.as_deref(), None | Some("status" | "scale")) {
            return Ok(None);
        }
        LabelSelector::parse(&options.labels)?;
        FieldSelector::parse(&options.fields, resource)?;
        if options.labels.len() + options.fields.len() > SELECTOR_MAX_BYTES {
            return Err(ApiError::bad_request(format!(
                "a selector of more than {SELECTOR_MAX_BYTES} bytes is not kept on a node"
            )));
        }
        let namespace = path.namespace.clone().unwrap_or_default();
        let named = path.name.clone().or_else(|| {
            let one_place = !resource.namespaced() || !namespace.is_empty();
            exactly(&options.fields, "metadata.name").filter(|_| one_place)
        });
        if let Some(name) = &named {
            let key = ObjectKey {
                resource: group_resource.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            };
            if self.mirror.object(&key).is_some() {
                return Ok(None);
            }
        }
        let core = |name: &str| resource.gvr.group.is_empty() && resource.gvr.resource == name;
        let elsewhere =
            exactly(&options.fields, "spec.nodeName").is_some_and(|node| node != self.mirror.node());
        // Its own pods and itself are what a node is told of without asking.
        let of_this_node = named.is_none() && (core("nodes") || core("pods") && !elsewhere);
        if kinds::is_whole(&group_resource) || of_this_node {
            if self.mirror.told() {
                return Ok(None);
            }
            return Err(ApiError::new(
                Reason::ServiceUnavailable,
                format!(
                    "this node was not told anything by cloudcore yet: whether there are {group_resource} is not known"
                ),
            ));
        }
        let (label_selector, field_selector) = match &named {
            Some(_) => Default::default(),
            None => (options.labels.clone(), as_kept(resource, &options.fields)),
        };
        Ok(Some(v1::Interest {
            group: group_resource.group,
            // The one that is kept here whatever was asked for.
            version: String::new(),
            resource: group_resource.resource,
            namespace,
            name: named.unwrap_or_default(),
            label_selector,
            field_selector,
        }))
    }

    /// Waits until the objects of `interest` are here. It counts as used for `lasts` and a time after.
    async fn ask(&self, interest: v1::Interest, lasts: Duration) -> Result<(), Response> {
        let id = id_of(&interest);
        let covered = self.mirror.ledger(|ledger| covering(ledger, &interest));
        if let Some(covering) = covered {
            self.touch(&covering, &interest, lasts);
            return Ok(());
        }
        let mut taken = self.mirror.subscribe();
        let mut link = self.link.clone();
        self.stand(&id, &interest).await?;
        self.touch(&id, &interest, lasts);
        let answered = async {
            loop {
                taken.borrow_and_update();
                let state = self.mirror.ledger(|ledger| ledger.states.get(&id).cloned());
                if let Some(state) = state {
                    return self.outcome(&id, &state);
                }
                if !*link.borrow_and_update() {
                    return Err(Response::error(&never_fetched(&interest)));
                }
                tokio::select! {
                    changed = taken.changed() => if changed.is_err() { break },
                    changed = link.changed() => if changed.is_err() { break },
                }
            }
            Err(Response::error(&never_fetched(&interest)))
        };
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(Response::error(&ApiError::new(
                Reason::Timeout,
                format!(
                    "{} was asked for, and the cloud did not answer within {} s; it is sent when it does",
                    what(&interest),
                    ANSWER_WITHIN.as_secs()
                ),
            ))),
        }
    }

    /// Puts the interest into the log unless it stands there.
    async fn stand(&self, id: &str, interest: &v1::Interest) -> Result<(), Response> {
        let _one = self.asking.lock().await;
        let (stands, count) = self
            .mirror
            .ledger(|ledger| (ledger.interests.contains_key(id), ledger.interests.len()));
        if stands {
            return Ok(());
        }
        let refuse = |error: ApiError| Err(Response::error(&error));
        if !*self.link.borrow() {
            return refuse(never_fetched(interest));
        }
        if count >= INTERESTS_MAX {
            return refuse(ApiError::new(
                Reason::TooManyRequests,
                format!(
                    "this node keeps {INTERESTS_MAX} things current that somebody asked for, and takes no more: ask for a whole list instead of its parts"
                ),
            ));
        }
        let record = (id.to_owned(), Payload::Interest(interest.clone()));
        let mut taken = self.mirror.subscribe();
        if let Err(error) = self.outbox.append(Lane::UpState, vec![record]).await {
            return refuse(error.into());
        }
        // Whoever comes next finds it standing.
        let folded = async {
            while !self.mirror.ledger(|ledger| ledger.interests.contains_key(id)) {
                if taken.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, folded).await.ok();
        Ok(())
    }

    fn outcome(&self, id: &str, state: &v1::InterestState) -> Result<(), Response> {
        if state.code == 200 {
            return Ok(());
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let soon = Instant::now() + REFUSED_FOR;
        let until = used.entry(id.to_owned()).or_insert(soon);
        *until = soon.min(*until);
        let code = u16::try_from(state.code)
            .ok()
            .filter(|code| (400..600).contains(code));
        let code = code.unwrap_or(500);
        Err(Response::json(
            code,
            &json!({
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": state.message,
                "reason": state.reason,
                "code": code,
            }),
        ))
    }

    fn touch(&self, id: &str, interest: &v1::Interest, lasts: Duration) {
        let refused = self
            .mirror
            .ledger(|ledger| ledger.states.get(id).is_some_and(|state| state.code != 200));
        if refused {
            return;
        }
        let until = Instant::now() + lasts + unused_for(interest);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = used.entry(id.to_owned()).or_insert(until);
        *entry = until.max(*entry);
    }

    /// Takes back what nobody used for a while. Never ends.
    pub(crate) async fn take_back_unused(&self) {
        let mut taken = self.mirror.subscribe();
        loop {
            taken.borrow_and_update();
            let (over, next) = self.due(Instant::now());
            let failed = if over.is_empty() {
                false
            } else {
                let records = over.iter().map(|id| (id.clone(), Payload::InterestRemoved));
                let appended = self.outbox.append(Lane::UpState, records.collect()).await;
                if let Err(error) = &appended {
                    tracing::warn!(%error, "interests nobody uses cannot be taken back yet");
                }
                appended.is_err()
            };
            let next = if failed {
                Instant::now() + REFUSED_FOR
            } else {
                next
            };
            tokio::select! {
                changed = taken.changed(), if !failed => if changed.is_err() {
                    return std::future::pending().await;
                },
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Which interests nobody used for too long, and when to look again.
    fn due(&self, now: Instant) -> (Vec<String>, Instant) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.mirror.ledger(|ledger| {
            for (id, interest) in &ledger.interests {
                // Of a start before this one, or refused before it was looked at.
                used.entry(id.clone()).or_insert_with(|| {
                    let refused = ledger.states.get(id).is_some_and(|state| state.code != 200);
                    now + if refused {
                        REFUSED_FOR
                    } else {
                        unused_for(interest)
                    }
                });
            }
            let over = ledger
                .interests
                .keys()
                .filter(|id| used[*id] <= now)
                .cloned()
                .collect();
            // One that was asked for a moment ago may not be folded yet: it stays.
            used.retain(|id, until| *until > now || ledger.interests.contains_key(id));
            let next = ledger
                .interests
                .keys()
                .filter_map(|id| used.get(id))
                .filter(|until| **until > now);
            (over, next.min().copied().unwrap_or(now + UNUSED_FOR))
        })
    }
}

fn unused_for(interest: &v1::Interest) -> Duration {
    if interest.resource == "events" {
        EVENTS_UNUSED_FOR
    } else {
        UNUSED_FOR
    }
}

/// An interest that stands, was answered, and takes what `interest` takes.
fn covering(ledger: &Ledger, interest: &v1::Interest) -> Option<String> {
    let found = ledger.interests.iter().find(|(id, standing)| {
        covers(standing, interest) && ledger.states.get(*id).is_some_and(|state| state.code == 200)
    });
    found.map(|(id, _)| id.clone())
}

/// The value that a field selector asks for exactly.
fn exactly(fields: &str, path: &str) -> Option<String> {
    let mut parts = fields.split(',').filter_map(|part| part.split_once('='));
    let found = parts.find(|(name, _)| *name == path);
    found.map(|(_, value)| value.trim_start_matches('=').to_owned())
}

/// A field selector in the names of what is kept.
fn as_kept(resource: &Resource, fields: &str) -> String {
    let Some(view) = &resource.view else {
        return fields.to_owned();
    };
    let parts = fields.split(',').map(|part| {
        let end = part.find(['!', '=']).unwrap_or(part.len());
        let (path, value) = part.split_at(end);
        format!("{}{value}", (view.field)(path).unwrap_or(path))
    });
    parts.collect::<Vec<_>>().join(",")
}

/// In words.
fn what(interest: &v1::Interest) -> String {
    let v1::Interest {
        group,
        resource,
        namespace,
        name,
        label_selector,
        field_selector,
        ..
    } = interest;
    let dot = if group.is_empty() { "" } else { "." };
    let mut out = format!("{resource}{dot}{group}");
    if !name.is_empty() {
        out += &format!(" \"{name}\"");
    }
    if !namespace.is_empty() {
        out += &format!(" in namespace \"{namespace}\"");
    }
    for selector in [label_selector, field_selector] {
        if !selector.is_empty() {
            out += &format!(" with {selector}");
        }
    }
    out
}

fn never_fetched(interest: &v1::Interest) -> ApiError {
    ApiError::new(
        Reason::ServiceUnavailable,
        format!(
            "{} was never fetched to this node, and there is no link to the cloud: whether it exists is not known",
            what(interest)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(namespace: &str, name: &str, labels: &str) -> v1::Interest {
        v1::Interest {
            resource: "configmaps".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            label_selector: labels.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn the_wider_interest_covers_the_narrower() {
        let all = interest("", "", "");
        let of_a = interest("a", "", "");
        let one = interest("a", "one", "");
        let red = interest("a", "", "color=red");
        for narrow in [&all, &of_a, &one, &red] {
            assert!(covers(&all, narrow));
        }
        assert!(covers(&of_a, &one) && covers(&of_a, &red));
        assert!(!covers(&one, &of_a) && !covers(&red, &of_a) && !covers(&of_a, &all));
        assert!(!covers(&of_a, &interest("b", "one", "")));
        assert_ne!(id_of(&of_a), id_of(&one));
    }

    #[test]
    fn an_exact_field_is_found() {
        assert_eq!(
            exactly("spec.nodeName=a,metadata.name==b", "metadata.name"),
            Some("b".to_owned())
        );
        assert_eq!(exactly("metadata.name!=b", "metadata.name"), None);
        assert_eq!(exactly("", "metadata.name"), None);
    }
}
