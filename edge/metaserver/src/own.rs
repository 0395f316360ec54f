//! What the node says of what it runs itself: the status of its pods and of itself, and events. It asks nobody: the record
//! is the answer, with or without a link.

use std::sync::Arc;
use std::time::Duration;

use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::serve::options::Options;
use ledge_kubeapi::serve::request::{Method, Request};
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::store::Store as _;
use ledge_kubeapi::{ApiError, Environment as _, Object, ObjectKey, Reason, Resource, meta, patch};
use ledge_proto::ids::Lane;
use ledge_proto::record::{Payload, object_key};
use ledge_proto::v1;
use serde_json::{Value, json};

use crate::environment::SystemEnvironment;
use crate::mirror::{Mirror, record_key};
use crate::outbox::Outbox;
use crate::writes::WRITE_MAX_BYTES;

/// The projection has this long to show what was appended; the answer is the same without.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// Where kubelets keep their leases.
const LEASES: &str = "kube-node-lease";

/// See the module.
pub(crate) struct Own {
    mirror: Mirror,
    outbox: Arc<dyn Outbox>,
}

impl Own {
    pub(crate) fn new(mirror: Mirror, outbox: Arc<dyn Outbox>) -> Own {
        Own { mirror, outbox }
    }

    /// Answers a write that is the node's own; `None` when it is not.
    pub(crate) async fn call(
        &self,
        request: &Request,
        path: &ResourcePath,
    ) -> Option<Result<Response, ApiError>> {
        let gvr = &path.gvr;
        match (
            gvr.group.as_str(),
            gvr.resource.as_str(),
            path.subresource.as_deref(),
        ) {
            ("", "pods" | "nodes", Some("status")) => {
                let object = self.object(path)?;
                self.runs(&object).then_some(())?;
                Some(self.status(request, path, &object).await)
            }
            ("", "events", None) | ("events.k8s.io", "events", None) if request.method == Method::Post => {
                Some(self.event(request, path).await)
            }
            ("coordination.k8s.io", "leases", None) => {
                self.is_own_lease(request, path).then(|| lease(request))
            }
            _ => None,
        }
    }

    fn object(&self, path: &ResourcePath) -> Option<Object> {
        self.mirror.object(&ObjectKey {
            resource: GroupResource {
                group: path.gvr.group.clone(),
                resource: path.gvr.resource.clone(),
            },
            namespace: path.namespace.clone().unwrap_or_default(),
            name: path.name.clone()?,
        })
    }

    /// Whether it is this node, or a pod of it.
    fn runs(&self, object: &Object) -> bool {
        let node = self.mirror.node();
        match object.key().resource.resource.as_str() {
            "nodes" => object.key().name == node,
            _ => object.value()["spec"]["nodeName"] == node,
        }
    }

    async fn status(
        &self,
        request: &Request,
        path: &ResourcePath,
        object: &Object,
    ) -> Result<Response, ApiError> {
        let options = Options::parse(&request.query)?;
        let registry = self.mirror.registry();
        let resource = registry.get(&path.gvr).ok_or_else(ApiError::no_such_path)?;
        let before = object.value();
        let wanted = match request.method {
            Method::Put => parse(&request.body)?,
            Method::Patch => patched(request, resource, &before)?,
            _ => {
                return Err(ApiError::new(
                    Reason::MethodNotAllowed,
                    "the server does not allow this method on the requested resource",
                ));
            }
        };
        for field in ["uid", "resourceVersion"] {
            let asked = wanted["metadata"][field].as_str().unwrap_or_default();
            if !asked.is_empty() && before["metadata"][field] != asked {
                return Err(ApiError::modified(&object.key().resource, &object.key().name));
            }
        }
        let mut after = before;
        after["status"] = match wanted.get("status") {
            Some(status @ Value::Object(_)) => status.clone(),
            None | Some(Value::Null) => json!({}),
            Some(_) => return Err(ApiError::bad_request("status must be an object")),
        };
        let causes = ledge_kubeapi::schema::check(&resource.schema, &after, None);
        if !causes.is_empty() {
            let name = &object.key().name;
            return Err(ApiError::invalid(
                &resource.gvr.group,
                &resource.kind,
                name,
                causes,
            ));
        }
        if options.dry_run {
            return Ok(Response::json(200, &after));
        }
        let json = encode(&after["status"])?;
        let record = Payload::KubeStatus(v1::KubeStatus {
            uid: object.uid().to_owned(),
            json,
        });
        let mut taken = self.mirror.subscribe();
        let records = vec![(record_key(object.key()), record)];
        self.outbox.append(Lane::UpState, records).await?;
        let shown = async {
            while self
                .mirror
                .object(object.key())
                .is_some_and(|now| now.value()["status"] != after["status"])
            {
                if taken.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(SHOWN_WITHIN, shown).await.ok();
        Ok(Response::json(200, &after))
    }

    async fn event(&self, request: &Request, path: &ResourcePath) -> Result<Response, ApiError> {
        let options = Options::parse(&request.query)?;
        let mut event = parse(&request.body)?;
        if !event["metadata"].is_object() {
            return Err(ApiError::bad_request("an Event needs metadata"));
        }
        let env = SystemEnvironment;
        if event["metadata"]["name"].as_str().is_none_or(str::is_empty) {
            let base = event["metadata"]["generateName"].as_str().unwrap_or_default();
            if base.is_empty() {
                return Err(ApiError::bad_request(
                    "an Event needs metadata.name or metadata.generateName",
                ));
            }
            let base: String = base.chars().take(200).collect();
            event["metadata"]["name"] = format!("{base}{}", env.name_suffix()).into();
        }
        event["metadata"]["namespace"] = path.namespace.clone().unwrap_or_default().into();
        event["metadata"]["uid"] = env.uid().into();
        event["metadata"]["creationTimestamp"] = meta::time(env.now_us()).into();
        let registry = self.mirror.registry();
        let resource = registry.get(&path.gvr).ok_or_else(ApiError::no_such_path)?;
        let kept = registry.to_stored(resource, event.clone())?;
        let about = &kept["involvedObject"];
        let text = |field: &str| about[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind_of = registry.by_kind(group, version, &kind);
        let plural = kind_of.map_or_else(|| kind.to_lowercase(), |found| found.gvr.resource.clone());
        let key = object_key(group, &plural, &text("namespace"), &text("name"));
        if key.len() > ledge_proto::limits::RECORD_KEY_MAX_BYTES {
            return Err(ApiError::bad_request("the names in involvedObject are too long"));
        }
        if !options.dry_run {
            let json = encode(&kept)?;
            let record = Payload::KubeEvent(v1::KubeEvent { json });
            self.outbox.append(Lane::UpData, vec![(key, record)]).await?;
        }
        Ok(Response::json(201, &event))
    }

    /// The cloud renews the lease of a node while its link is up: nothing has to travel for it.
    fn is_own_lease(&self, request: &Request, path: &ResourcePath) -> bool {
        let body = || parse(&request.body).unwrap_or_default();
        let name = match &path.name {
            Some(name) => name.clone(),
            None => body()["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        };
        path.namespace.as_deref() == Some(LEASES)
            && name == self.mirror.node()
            && matches!(request.method, Method::Post | Method::Put)
    }
}

fn lease(request: &Request) -> Result<Response, ApiError> {
    let code = if request.method == Method::Post { 201 } else { 200 };
    let told = ["the cloud renews this lease while the link is up".to_owned()];
    Ok(Response::json(code, &parse(&request.body)?).with_warnings(&told))
}

fn patched(request: &Request, resource: &Resource, before: &Value) -> Result<Value, ApiError> {
    let body = || -> Result<Value, ApiError> {
        serde_json::from_slice(&request.body)
            .map_err(|error| ApiError::bad_request(format!("couldn't parse the body as JSON: {error}")))
    };
    match request.content_type().as_str() {
        "application/json-patch+json" => patch::json(before, &body()?),
        "application/merge-patch+json" => patch::merge(before, &parse(&request.body)?),
        "application/strategic-merge-patch+json" => {
            patch::strategic(&resource.schema, before, &parse(&request.body)?)
        }
        other => {
            let other: String = other.chars().take(80).collect();
            Err(ApiError::new(
                Reason::UnsupportedMediaType,
                format!("the status of what this node runs is not patched with {other}"),
            ))
        }
    }
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("couldn't parse the body as JSON: {error}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::bad_request("the body must be a JSON object"))
    }
}

fn encode(value: &Value) -> Result<Vec<u8>, ApiError> {
    let json = serde_json::to_vec(value).map_err(ApiError::internal)?;
    if json.len() > WRITE_MAX_BYTES {
        let told = format!(
            "Request entity too large: limit is {WRITE_MAX_BYTES} bytes, it has {}",
            json.len()
        );
        return Err(ApiError::new(Reason::RequestEntityTooLarge, told));
    }
    Ok(json)
}
