//! Makes what applications ask for, takes away what they no longer ask for, and says in their status what became of it.
//!
//! The status of an application is the account of what was made for it: an object is named there before it is made, and
//! until it is deleted. A crash leaves nothing behind that nobody knows of.

mod kinds;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error, ResourceExt};
use ledge_crds::apps::{EdgeApplication, EdgeApplicationSpec, ManifestStatus};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::kinds::{Kinds, Resolved};
use self::status::{Account, Id, Outcome};
use super::later::Later;
use super::mirror::{Key, Mirror, events};
use super::plan::{Planned, plan};

/// Who writes, in `managedFields`.
const MANAGER: &str = "ledge-edge-applications";
/// Whoever goes on changing what an application made is answered no faster than this.
const BETWEEN_REPAIRS: Duration = Duration::from_secs(2);

/// What a watch tells.
enum Input {
    Application(Event<EdgeApplication>),
    /// Of the kind at this place of [`Kinds`].
    Made(usize, Event<DynamicObject>),
}

/// What counts of an application.
#[derive(Debug, Clone, PartialEq)]
struct Application {
    uid: String,
    deleted: bool,
    spec: Arc<EdgeApplicationSpec>,
    told: Vec<ManifestStatus>,
}

impl Application {
    fn of(application: EdgeApplication) -> Application {
        Application {
            uid: application.metadata.uid.unwrap_or_default(),
            deleted: application.metadata.deletion_timestamp.is_some(),
            spec: Arc::new(application.spec),
            told: application.status.unwrap_or_default().workload_status,
        }
    }
}

/// What was applied to an object.
struct Applied {
    /// Hash of what was applied.
    wanted: u64,
    /// Version of the object afterwards.
    version: String,
    /// When it changed the object.
    at: Instant,
}

/// How far an application was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Done,
    /// Something has to wait a moment.
    Soon,
    /// Something was refused.
    Refused,
}

struct Controller {
    client: Client,
    inputs: SelectAll<BoxStream<'static, Input>>,
    applications: Mirror<Application>,
    kinds: Kinds,
    work: BTreeSet<Key>,
    later: Later<Key>,
    /// What was last applied to each object an application made.
    applied: BTreeMap<Key, HashMap<Id, Applied>>,
    /// What was last said of what cannot be made.
    complaints: BTreeMap<Key, Vec<String>>,
}

/// Follows applications and what they made. Never ends.
pub(super) async fn run(client: Client) {
    let all = Api::<EdgeApplication>::all(client.clone());
    let applications = events(
        "edgeapplications".to_owned(),
        watcher(all, watcher::Config::default()),
    );
    let mut controller = Controller {
        kinds: Kinds::new(client.clone()),
        client,
        inputs: SelectAll::new(),
        applications: Mirror::default(),
        work: BTreeSet::new(),
        later: Later::default(),
        applied: BTreeMap::new(),
        complaints: BTreeMap::new(),
    };
    let applications = applications.map(Input::Application).boxed();
    controller.inputs.push(applications);
    loop {
        tokio::select! {
            input = controller.inputs.next() => controller.take(input),
            () = controller.later.wait() => controller.work.extend(controller.later.due()),
        }
        while let Some(input) = controller.inputs.next().now_or_never() {
            controller.take(input);
        }
        while let Some(key) = controller.work.pop_first() {
            controller.reconcile(key).await;
        }
    }
}

impl Controller {
    fn take(&mut self, input: Option<Input>) {
        match input {
            Some(Input::Application(event)) => {
                let changes = self.applications.take(event, |one| Some(Application::of(one)));
                self.work.extend(changes.into_iter().map(|change| change.key));
            }
            Some(Input::Made(kind, event)) => {
                self.work.extend(self.kinds.take(kind, event));
            }
            // Watches do not end; if they did, there would be nothing to do any more.
            None => {}
        }
    }

    async fn reconcile(&mut self, key: Key) {
        let application = self
            .applications
            .get(&key)
            .filter(|application| !application.deleted);
        let Some(application) = application.cloned() else {
            // What it made is deleted with its owner.
            self.later.done(&key);
            self.applied.remove(&key);
            self.complaints.remove(&key);
            return;
        };
        let mut account = Account::new(&key.0, &application.told);
        match self.carry_out(&key, &application, &mut account).await {
            Ok(Progress::Done) => self.later.done(&key),
            Ok(Progress::Soon) => self.later.after(key.clone(), BETWEEN_REPAIRS),
            Ok(Progress::Refused) => self.later.failed(key.clone()),
            Err(error) => {
                let (namespace, name) = &key;
                tracing::warn!(namespace, name, %error, "an application is not carried out; it is tried again");
                self.later.failed(key.clone());
            }
        }
        self.complain(&key, &application, account.complaints()).await;
    }

    async fn carry_out(
        &mut self,
        key: &Key,
        application: &Application,
        account: &mut Account,
    ) -> Result<Progress, Error> {
        let mut planned = plan(&key.0, &application.spec);
        let mut progress = Progress::Done;
        for planned in planned.iter_mut().filter(|planned| planned.object.is_ok()) {
            match self.kinds.resolve(&planned.kind).await? {
                Resolved::Known { kind, stream } => {
                    if let Some(stream) = stream {
                        self.inputs
                            .push(stream.map(move |event| Input::Made(kind, event)).boxed());
                    }
                }
                Resolved::Unfit(why) => {
                    progress = Progress::Refused;
                    planned.object = Err(why);
                }
            }
        }
        account.expect(&planned, &self.kinds);
        self.tell(key, application, account).await?;
        for planned in &planned {
            let outcome = self.make(key, application, planned).await?;
            progress = progress.max(match outcome {
                Outcome::Made(_) | Outcome::Never(_) => Progress::Done,
                Outcome::Later => Progress::Soon,
                Outcome::NotNow(_) => Progress::Refused,
            });
            account.settle(planned, outcome);
        }
        for id in account.leftovers() {
            self.remove(key, application, &id).await?;
            account.removed(&id);
            self.forget(key, &id);
        }
        self.tell(key, application, account).await?;
        Ok(progress)
    }

    /// Makes the object be as it is planned.
    async fn make(
        &mut self,
        key: &Key,
        application: &Application,
        planned: &Planned,
    ) -> Result<Outcome, Error> {
        let object = match &planned.object {
            Ok(object) => owned(object.clone(), &key.1, &application.uid),
            Err(why) => return Ok(Outcome::Never(why.clone())),
        };
        let Some((resource, made)) = self.kinds.made(&planned.kind, &key.0, &planned.name) else {
            return Ok(Outcome::Later);
        };
        let id = Id {
            kind: planned.kind.clone(),
            name: planned.name.clone(),
        };
        let wanted = hash(&object);
        let applied = self.applied.get(key).and_then(|objects| objects.get(&id));
        let ours = made.filter(|made| made.owner == application.uid);
        if let Some(made) = ours {
            // As it was left: what the API writes in another way is not applied again and again.
            let left = applied.filter(|applied| applied.wanted == wanted);
            if contains(&made.object, &object) || left.is_some_and(|left| made.has_version(&left.version)) {
                return Ok(Outcome::Made(made.object.clone()));
            }
            if left.is_some_and(|left| left.at.elapsed() < BETWEEN_REPAIRS) {
                return Ok(Outcome::Later);
            }
        }
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.0, resource);
        let params = PatchParams::apply(MANAGER).force();
        let patched = objects
            .patch(&planned.name, &params, &Patch::Apply(&object))
            .await;
        match patched {
            Ok(made) => {
                let version = made.resource_version().unwrap_or_default();
                let unchanged = ours.is_some_and(|ours| ours.has_version(&version));
                let before = applied.filter(|_| unchanged).map(|applied| applied.at);
                let now = Applied {
                    wanted,
                    version,
                    at: before.unwrap_or_else(Instant::now),
                };
                let made = kinds::value(resource, made);
                self.applied.entry(key.clone()).or_default().insert(id, now);
                Ok(Outcome::Made(made))
            }
            // What the API refuses may be right later, when something else has changed.
            Err(Error::Api(status)) if (400..500).contains(&status.code) => {
                Ok(Outcome::NotNow(status.message.clone()))
            }
            Err(error) => Err(error),
        }
    }

    fn forget(&mut self, key: &Key, id: &Id) {
        if let Some(objects) = self.applied.get_mut(key) {
            objects.remove(id);
        }
    }

    /// Deletes an object that is no longer asked for, if it is the application's.
    async fn remove(&mut self, key: &Key, application: &Application, id: &status::Id) -> Result<(), Error> {
        // A kind that is no longer served has no objects.
        let Resolved::Known { kind, stream } = self.kinds.resolve(&id.kind).await? else {
            return Ok(());
        };
        if let Some(stream) = stream {
            self.inputs
                .push(stream.map(move |event| Input::Made(kind, event)).boxed());
        }
        let resource = self.kinds.resource(kind);
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.0, resource);
        let Some(object) = objects.get_opt(&id.name).await? else {
            return Ok(());
        };
        let owners = object.owner_references();
        if !owners.iter().any(|owner| owner.uid == application.uid) {
            return Ok(());
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        match objects.delete(&id.name, &params).await {
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            deleted => deleted.map(|_| ()),
        }
    }

    /// Writes the account into the status, if it is not there.
    async fn tell(
        &mut self,
        key: &Key,
        application: &Application,
        account: &mut Account,
    ) -> Result<(), Error> {
        let Some(statuses) = account.news() else {
            return Ok(());
        };
        let applications: Api<EdgeApplication> = Api::namespaced(self.client.clone(), &key.0);
        let patch = json!({
            // Not that of another application which has the name now.
            "metadata": {"uid": application.uid},
            "status": {"workloadStatus": statuses},
        });
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        applications
            .patch_status(&key.1, &params, &Patch::Merge(patch))
            .await?;
        account.told();
        Ok(())
    }

    /// Says what cannot be made and why: in the log, and as an event of the application. Once, until it is different.
    async fn complain(&mut self, key: &Key, application: &Application, complaints: Vec<String>) {
        if self.complaints.get(key).map_or(&[][..], Vec::as_slice) == complaints {
            return;
        }
        let (namespace, name) = key;
        let text = complaints.join("; ");
        self.complaints.insert(key.clone(), complaints);
        if text.is_empty() {
            return;
        }
        tracing::warn!(
            namespace,
            name,
            why = text,
            "an application asks for what cannot be made"
        );
        if let Err(error) = status::event(&self.client, namespace, name, &application.uid, &text).await {
            tracing::warn!(namespace, name, %error, "there is no event that says so");
        }
    }
}

/// The object with the application as its owner.
fn owned(mut object: Value, name: &str, uid: &str) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps.kubeedge.io/v1alpha1",
        "kind": "EdgeApplication",
        "name": name,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    object
}

/// A hash of what is wanted: only ever compared within this run.
fn hash(object: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Whether `live` has everything that is in `wanted`. Lists have to be the same: what the API adds to their items does not
/// count. Where it writes a value in another way, such as `1000m` for `1`, it says no, and applying it changes nothing.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(field, wanted)| match live.get(field) {
                Some(live) => contains(live, wanted),
                None => wanted.is_null() || wanted.as_object().is_some_and(serde_json::Map::is_empty),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live
                    .iter()
                    .zip(wanted)
                    .all(|(live, wanted)| contains(live, wanted))
        }
        _ => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_no_drift() {
        let live = json!({"a": 1, "list": [{"name": "x", "policy": "Always"}], "added": true});
        assert!(contains(
            &live,
            &json!({"a": 1, "list": [{"name": "x"}], "none": null, "empty": {}})
        ));
        assert!(!contains(&live, &json!({"a": 2})));
        assert!(!contains(&live, &json!({"b": 1})));
        assert!(!contains(&live, &json!({"list": []})));
    }
}
