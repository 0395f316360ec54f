//! What subresources change, and what they leave as it is; `binding` and `eviction` of pods.

use serde_json::{Value, json};

use super::Call;
use super::certificates;
use super::options::merge_delete;
use super::respond::Response;
use super::write::{based_on, set};
use crate::error::{ApiError, Reason};
use crate::object::Object;
use crate::resource::GroupResource;
use crate::store::Change;
use crate::{meta, patch};

/// How often a pod that changed meanwhile is looked at again.
const ATTEMPTS: usize = 5;

impl Call<'_> {
    /// With a `status` subresource, the main resource does not write status, and `status` writes nothing else; other
    /// subresources write what they are for.
    pub(super) fn keep_other_half(&self, old: Option<&Value>, new: &mut Value) {
        let subresource = self.subresource();
        if let Some(old) = old.filter(|_| !subresource.is_empty()) {
            let sent = std::mem::replace(new, old.clone());
            for field in ["managedFields", "resourceVersion"] {
                set(&mut new["metadata"], field, sent["metadata"].get(field).cloned());
            }
            match subresource {
                "finalize" => set(
                    &mut new["spec"],
                    "finalizers",
                    sent["spec"].get("finalizers").cloned(),
                ),
                // The request that came in through `scale` was made from the object as it is.
                "scale" => *new = sent,
                _ => set(new, "status", sent.get("status").cloned()),
            }
        } else if self.resource.status && (old.is_some() || self.resource.kind != "Node") {
            // A node says how it is when it registers.
            let status = old.and_then(|old| old.get("status")).cloned();
            set(new, "status", status);
        }
        if certificates::concerns(&self.resource) {
            certificates::keep(subresource, old, new, &self.request.user, &self.time());
        }
    }

    /// `pods/NAME/binding`: says on which node a pod is to run, once.
    pub(super) async fn bind(&self) -> Result<Response, ApiError> {
        let binding = self.subject("v1", "Binding")?;
        check_annotations(&binding)?;
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        let mut wrong = Vec::new();
        match binding["target"]["kind"].as_str().unwrap_or_default() {
            "" | "Node" => {}
            other => {
                let other: String = other.chars().take(64).collect();
                wrong.push(format!(
                    "target.kind: Unsupported value: \"{other}\": supported values: \"Node\", \"<empty>\""
                ));
            }
        }
        if node.is_empty() {
            wrong.push("target.name: Required value".to_owned());
        }
        match wrong.as_slice() {
            [] => {}
            // Upstream's code for it.
            [one] => return Err(ApiError::new(Reason::InternalError, one.clone())),
            many => {
                return Err(ApiError::new(
                    Reason::InternalError,
                    format!("[{}]", many.join(", ")),
                ));
            }
        }
        let mut attempt = 1;
        loop {
            let pod = self.current().await?;
            let bound = self.bound(&pod, &binding, node)?;
            if self.options.dry_run {
                return Ok(success());
            }
            let change = Change::Update {
                key: pod.key().clone(),
                expected: pod.version(),
                value: bound,
            };
            match self.api.store.commit(change).await {
                Ok(_) => return Ok(success()),
                Err(error) if error.reason == Reason::Conflict && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn bound(&self, pod: &Object, binding: &Value, node: &str) -> Result<Value, ApiError> {
        let name = &pod.key().name;
        let refuse = |why: String| {
            let resource = GroupResource {
                group: String::new(),
                resource: "pods/binding".to_owned(),
            };
            Err(ApiError::conflict(&resource, name, &why))
        };
        let mut value = pod.value();
        match binding["metadata"]["uid"].as_str() {
            Some(uid) if !uid.is_empty() && uid != pod.uid() => {
                let found = pod.uid();
                return refuse(format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
                ));
            }
            _ => {}
        }
        if let Some(version) = based_on(binding)?.filter(|version| *version != pod.version()) {
            let found = pod.version();
            return refuse(format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {found}"
            ));
        }
        if value["metadata"]["deletionTimestamp"].is_string() {
            return refuse(format!(
                "pod {name} is being deleted, cannot be assigned to a host"
            ));
        }
        if let Some(found) = value["spec"]["nodeName"]
            .as_str()
            .filter(|found| !found.is_empty())
        {
            return refuse(format!("pod {name} is already assigned to node \"{found}\""));
        }
        if value["spec"]["schedulingGates"]
            .as_array()
            .is_some_and(|gates| !gates.is_empty())
        {
            return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        value["spec"]["nodeName"] = node.into();
        for (key, annotation) in binding["metadata"]["annotations"]
            .as_object()
            .into_iter()
            .flatten()
        {
            value["metadata"]["annotations"][key.as_str()] = annotation.clone();
        }
        let scheduled = json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": meta::time(self.api.env.now_us()),
        });
        let mut conditions = value["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(scheduled);
        value["status"]["conditions"] = conditions.into();
        let causes = meta::validate(&self.resource, None, &value);
        if causes.is_empty() {
            Ok(value)
        } else {
            Err(ApiError::invalid("", &self.resource.kind, name, causes))
        }
    }

    /// `pods/NAME/eviction`: deletes a pod. There are no disruption budgets that could be against it.
    pub(super) async fn evict(&self) -> Result<Response, ApiError> {
        let eviction = self.subject("policy/v1", "Eviction")?;
        let mut options = self.options.clone();
        let wanted = &eviction["deleteOptions"];
        if let Value::Object(wanted) = wanted {
            merge_delete(&mut options, wanted)?;
        }
        self.delete_named(&options, &wanted["preconditions"]).await?;
        Ok(success())
    }

    /// The body of a request to a subresource that takes another kind than the resource's.
    fn subject(&self, api_version: &str, kind: &str) -> Result<Value, ApiError> {
        let body = self.body()?;
        // What the body does not say, the path does.
        let other = |field: &str, known: &str| match body[field].as_str() {
            None | Some("") => false,
            Some(found) => found != known,
        };
        if other("apiVersion", api_version) || other("kind", kind) {
            return Err(ApiError::bad_request(format!(
                "the kind in the data ({}, {}) does not match the expected kind ({api_version}, {kind})",
                body["apiVersion"], body["kind"]
            )));
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        if !name.is_empty() && Some(name) != self.path.name.as_deref() {
            return Err(ApiError::bad_request(format!(
                "name in URL does not match name in {kind} object"
            )));
        }
        Ok(body)
    }
}

/// Whether the annotations that a binding gives to its pod are texts.
fn check_annotations(binding: &Value) -> Result<(), ApiError> {
    let wrong = |value: &Value, wanted: &str| {
        Err(ApiError::bad_request(format!(
            "Binding in version \"v1\" cannot be handled as a Binding: json: cannot unmarshal {} into Go struct field ObjectMeta.metadata.annotations of type {wanted}",
            patch::go_type(value)
        )))
    };
    match &binding["metadata"]["annotations"] {
        Value::Null => Ok(()),
        Value::Object(all) => match all.values().find(|value| !value.is_string()) {
            Some(value) => wrong(value, "string"),
            None => Ok(()),
        },
        other => wrong(other, "map[string]string"),
    }
}

fn success() -> Response {
    Response::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}
