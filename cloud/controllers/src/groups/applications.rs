//! Makes what applications ask for, takes away what they no longer ask for, and says in their status what became of it.
//!
//! The status of an application is the account of what was made for it: an object is named there before it is made, and
//! until it is deleted. A crash leaves nothing behind that nobody knows of.

mod kinds;
mod status;

use std::collections::{BTreeMap, BTreeSet};
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
use self::status::{Account, Outcome};
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

struct Controller {
    client: Client,
    inputs: SelectAll<BoxStream<'static, Input>>,
    applications: Mirror<Application>,
    kinds: Kinds,
    work: BTreeSet<Key>,
    later: Later<Key>,
    /// When something that was there was last put right.
    repaired: BTreeMap<Key, Instant>,
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
        repaired: BTreeMap::new(),
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
            self.repaired.remove(&key);
            self.complaints.remove(&key);
            return;
        };
        let mut account = Account::new(&key.0, &application.told);
        match self.carry_out(&key, &application, &mut account).await {
            Ok(true) => self.later.done(&key),
            Ok(false) => self.later.failed(key.clone()),
            Err(error) => {
                let (namespace, name) = &key;
                tracing::warn!(namespace, name, %error, "an application is not carried out; it is tried again");
                self.later.failed(key.clone());
            }
        }
        self.complain(&key, &application, account.complaints()).await;
    }

    /// Gives whether everything was done.
    async fn carry_out(
        &mut self,
        key: &Key,
        application: &Application,
        account: &mut Account,
    ) -> Result<bool, Error> {
        let mut planned = plan(&key.0, &application.spec);
        let mut done = true;
        for planned in planned.iter_mut().filter(|planned| planned.object.is_ok()) {
            match self.kinds.resolve(&planned.kind).await? {
                Resolved::Known { kind, stream } => {
                    if let Some(stream) = stream {
                        self.inputs
                            .push(stream.map(move |event| Input::Made(kind, event)).boxed());
                    }
                }
                Resolved::Unfit(why) => {
                    done = false;
                    planned.object = Err(why);
                }
            }
        }
        account.expect(&planned, &self.kinds);
        self.tell(key, application, account).await?;
        for planned in &planned {
            let outcome = self.make(key, application, planned).await?;
            done &= !matches!(outcome, Outcome::NotNow(_) | Outcome::Later);
            account.settle(planned, outcome);
        }
        for id in account.leftovers() {
            self.remove(key, application, &id).await?;
            account.removed(&id);
        }
        self.tell(key, application, account).await?;
        Ok(done)
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
        let ours = made.filter(|made| made.owner == application.uid);
        if let Some(made) = ours
            && contains(&made.object, &object)
        {
            return Ok(Outcome::Made(made.object.clone()));
        }
        if ours.is_some() {
            let repaired = self.repaired.get(key).map(Instant::elapsed);
            if repaired.is_some_and(|ago| ago < BETWEEN_REPAIRS) {
                return Ok(Outcome::Later);
            }
        }
        let repair = ours.is_some();
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.0, resource);
        let params = PatchParams::apply(MANAGER).force();
        match objects
            .patch(&planned.name, &params, &Patch::Apply(&object))
            .await
        {
            Ok(made) => {
                if repair {
                    self.repaired.insert(key.clone(), Instant::now());
                }
                Ok(Outcome::Made(kinds::value(resource, made)))
            }
            // Conflicts and overload pass; what the API refuses may be right later, when something else has changed.
            Err(Error::Api(status)) if (400..500).contains(&status.code) => {
                Ok(Outcome::NotNow(status.message.clone()))
            }
            Err(error) => Err(error),
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
