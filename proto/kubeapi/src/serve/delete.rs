//! `delete` and `deletecollection`: finalizers, grace periods, propagation.

use serde_json::{Value, json};

use super::Call;
use super::options::{Options, merge_delete};
use super::respond::Response;
use super::write::{over, parse};
use crate::error::{ApiError, Reason};
use crate::meta;
use crate::object::Object;
use crate::resource::GroupResource;
use crate::store::Change;

/// How often a deletion is tried again when the object changed meanwhile.
const ATTEMPTS: usize = 5;

/// What a deletion came to.
pub(super) enum Deleted {
    /// The object is gone; what it was last.
    Gone(Object),
    /// It is marked, and goes when its finalizers and its grace period are over.
    Marked(Object),
}

impl Call<'_> {
    pub(super) async fn delete(&self) -> Result<Response, ApiError> {
        let (options, preconditions) = self.delete_options()?;
        match self.delete_named(&options, &preconditions).await? {
            Deleted::Gone(object) => Ok(self.gone(&object)),
            Deleted::Marked(object) => self.object(200, &object),
        }
    }

    /// Deletes the object that the path names; one that changed meanwhile is looked at again.
    pub(super) async fn delete_named(
        &self,
        options: &Options,
        preconditions: &Value,
    ) -> Result<Deleted, ApiError> {
        let mut attempt = 1;
        loop {
            let current = self.current().await?;
            self.check_preconditions(&current, preconditions)?;
            if options.dry_run {
                return Ok(Deleted::Gone(current));
            }
            match self.delete_one(&current, options).await {
                Err(error) if error.reason == Reason::Conflict && attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    pub(super) async fn delete_collection(&self) -> Result<Response, ApiError> {
        let (options, _) = self.delete_options()?;
        let filter = self.filter()?;
        let page = self.api.store.list(&self.selection(), None, None).await?;
        let objects: Vec<Object> = page
            .objects
            .into_iter()
            .filter(|object| filter.lets(object))
            .collect();
        if !options.dry_run {
            for object in &objects {
                self.delete_listed(object, &options).await?;
            }
        }
        self.list_of(&objects, page.version, None, None)
    }

    /// One that changed since it was listed is read again; one that is gone is what was wanted.
    async fn delete_listed(&self, listed: &Object, options: &Options) -> Result<(), ApiError> {
        let mut object = listed.clone();
        for _ in 0..ATTEMPTS {
            match self.delete_one(&object, options).await {
                Ok(_) => return Ok(()),
                Err(error) if error.reason == Reason::NotFound => return Ok(()),
                Err(error) if error.reason == Reason::Conflict => {}
                Err(error) => return Err(error),
            }
            object = match self.api.store.get(listed.key()).await {
                Ok(object) if object.uid() == listed.uid() => object,
                _ => return Ok(()),
            };
        }
        Err(ApiError::modified(&listed.key().resource, &listed.key().name))
    }

    fn delete_options(&self) -> Result<(Options, Value), ApiError> {
        let mut options = self.options.clone();
        let mut preconditions = Value::Null;
        if !self.request.body.is_empty() {
            let body = parse(&self.request.body)?;
            if let Value::Object(body) = &body {
                merge_delete(&mut options, body)?;
                preconditions = body.get("preconditions").cloned().unwrap_or_default();
            }
        }
        match options.propagation.as_deref() {
            None | Some("Orphan" | "Background" | "Foreground") => Ok((options, preconditions)),
            Some(other) => Err(ApiError::new(
                Reason::Invalid,
                format!(
                    "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                ),
            )),
        }
    }

    fn check_preconditions(&self, current: &Object, wanted: &Value) -> Result<(), ApiError> {
        let name = &current.key().name;
        if let Some(uid) = wanted["uid"].as_str()
            && uid != current.uid()
        {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
                current.uid()
            );
            return Err(ApiError::conflict(&self.kind_as_resource(), name, &why));
        }
        if let Some(version) = wanted["resourceVersion"].as_str()
            && version != current.version().to_string()
        {
            let why = format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
                current.version()
            );
            return Err(ApiError::conflict(&self.kind_as_resource(), name, &why));
        }
        Ok(())
    }

    /// Upstream names the kind where it speaks of preconditions.
    fn kind_as_resource(&self) -> GroupResource {
        GroupResource {
            group: self.resource.gvr.group.clone(),
            resource: self.resource.kind.clone(),
        }
    }

    async fn delete_one(&self, current: &Object, options: &Options) -> Result<Deleted, ApiError> {
        let store = &self.api.store;
        let old = current.value();
        let mut new = old.clone();
        self.mark(&mut new, options);
        let (key, expected) = (current.key().clone(), current.version());
        if over(&new) {
            let last = store.commit(Change::Delete { key, expected }).await?;
            return Ok(Deleted::Gone(last));
        }
        if new == old {
            return Ok(Deleted::Marked(current.clone()));
        }
        let change = Change::Update {
            key,
            expected,
            value: new,
        };
        Ok(Deleted::Marked(store.commit(change).await?))
    }

    /// Marks an object as about to go.
    fn mark(&self, object: &mut Value, options: &Options) {
        let grace = grace_period(object, options.grace_s);
        let now_us = self.api.env.now_us();
        let metadata = &mut object["metadata"];
        let marked = metadata["deletionTimestamp"].is_string();
        let shorter = metadata["deletionGracePeriodSeconds"]
            .as_i64()
            .is_none_or(|before| grace < before);
        if !marked || shorter {
            metadata["deletionTimestamp"] = meta::time(meta::after(now_us, grace)).into();
            metadata["deletionGracePeriodSeconds"] = grace.into();
            if !marked && let Some(generation) = metadata["generation"].as_i64() {
                metadata["generation"] = generation.saturating_add(1).into();
            }
        }
        // Who says how takes back what was said before, also with `Background`, which needs no finalizer.
        let finalizer = match options.propagation.as_deref() {
            Some("Foreground") => Some(Some("foregroundDeletion")),
            Some("Orphan") => Some(Some("orphan")),
            Some(_) => Some(None),
            None => None,
        };
        if let Some(finalizer) = finalizer {
            let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
            finalizers.retain(|one| one != "foregroundDeletion" && one != "orphan");
            finalizers.extend(finalizer.map(Value::from));
            if finalizers.is_empty() {
                metadata
                    .as_object_mut()
                    .map(|metadata| metadata.remove("finalizers"));
            } else {
                metadata["finalizers"] = finalizers.into();
            }
        }
        if object["kind"] == "Namespace" {
            object["status"]["phase"] = "Terminating".into();
        }
    }

    /// Success, as upstream says it for what is gone at once.
    fn gone(&self, object: &Object) -> Response {
        Response::json(
            200,
            &json!({
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": {
                    "name": object.key().name,
                    "group": self.resource.gvr.group,
                    "kind": self.resource.gvr.resource,
                    "uid": object.uid(),
                },
            }),
        )
    }
}

/// How long an object may go on, seconds: only a pod on a node has something to end.
fn grace_period(object: &Value, asked: Option<i64>) -> i64 {
    let on_node = object["kind"] == "Pod"
        && object["spec"]["nodeName"]
            .as_str()
            .is_some_and(|node| !node.is_empty());
    let over = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !on_node || over {
        return 0;
    }
    let own = || object["spec"]["terminationGracePeriodSeconds"].as_i64();
    let grace = asked.or_else(own).unwrap_or(30);
    // Upstream takes a negative period for one second.
    if grace < 0 {
        1
    } else {
        grace.min(meta::GRACE_MAX_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods_are_within_reason() {
        let pod = |grace: i64| json!({"kind": "Pod", "spec": {"nodeName": "n", "terminationGracePeriodSeconds": grace}});
        assert_eq!(grace_period(&pod(5), None), 5);
        assert_eq!(grace_period(&pod(5), Some(7)), 7);
        assert_eq!(grace_period(&pod(-5), None), 1);
        assert_eq!(grace_period(&pod(i64::MAX), None), meta::GRACE_MAX_S);
        assert_eq!(grace_period(&pod(5), Some(i64::MAX)), meta::GRACE_MAX_S);
        assert_eq!(grace_period(&json!({"kind": "Pod"}), Some(i64::MIN)), 0);
        assert_eq!(meta::time(meta::after(0, i64::MAX)), "2038-01-19T03:14:07Z");
    }
}
