//! What every write has in common: the body, what an object must be, what the server keeps for itself, and the change.

use serde_json::{Map, Value, json};

use super::Call;
use super::certificates;
use super::options::FieldValidation;
use super::respond::Response;
use crate::error::{ApiError, Cause, Reason};
use crate::object::{Object, Version};
use crate::store::Change;
use crate::{apply, builtin, meta, patch, schema};

/// Fields of metadata that only the server writes.
const SERVER_OWNED: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Most fields that are told to be unknown, or there twice.
const STRICT_TOLD_MAX: usize = 32;

/// An object ready to be stored, and what the client has to hear.
pub(super) struct Prepared {
    /// In its storage version.
    pub(super) value: Value,
    /// `Warning` headers.
    pub(super) warnings: Vec<String>,
}

impl Call<'_> {
    /// Now, as Kubernetes writes times.
    pub(super) fn time(&self) -> String {
        meta::time(self.api.env.now_us())
    }

    /// Who writes, for managedFields.
    pub(super) fn manager(&self) -> String {
        let named = self.options.manager.clone();
        named.unwrap_or_else(|| self.request.default_manager())
    }

    pub(super) fn subresource(&self) -> &str {
        self.path.subresource.as_deref().unwrap_or_default()
    }

    /// The body as a JSON object.
    pub(super) fn body(&self) -> Result<Value, ApiError> {
        match self.request.content_type().as_str() {
            "" | "application/json" => {}
            _ => {
                return Err(ApiError::new(
                    Reason::UnsupportedMediaType,
                    "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
                ));
            }
        }
        parse(&self.request.body)
    }

    /// Whether `value` is of the kind, version, name and namespace that the path is about. What it leaves out is filled in.
    pub(super) fn identify(&self, value: &mut Value) -> Result<(), ApiError> {
        let (kind, version) = (self.resource.kind.as_str(), self.resource.api_version());
        if !value.is_object() {
            return Err(ApiError::bad_request("the body must be a JSON object"));
        }
        if !self.resource.custom {
            // A path of a built-in kind says what is meant.
            for (field, known) in [("kind", kind), ("apiVersion", &version)] {
                if value[field].as_str().unwrap_or_default().is_empty() {
                    value[field] = known.into();
                }
            }
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (found_kind, found_version) = (text(&value["kind"]), text(&value["apiVersion"]));
        if found_kind.is_empty() {
            return Err(ApiError::bad_request(format!(
                "Object 'Kind' is missing in the body: expected {kind} of {version}"
            )));
        }
        if found_version.is_empty() {
            return Err(ApiError::bad_request(format!(
                "Object 'apiVersion' is missing in the body: expected {version}"
            )));
        }
        if !self.resource.custom && (found_version != version || found_kind != kind) {
            return Err(self.other_kind(&found_version, &found_kind));
        }
        if found_version != version {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({found_version}) does not match the expected API version ({version})"
            )));
        }
        if found_kind != kind {
            return Err(ApiError::bad_request(format!(
                "the kind in the data ({found_kind}) does not match the expected kind ({kind})"
            )));
        }
        match &value["metadata"] {
            Value::Object(_) => {}
            Value::Null => value["metadata"] = json!({}),
            other => {
                return Err(ApiError::bad_request(format!(
                    "{kind} in version \"{}\" cannot be handled as a {kind}: json: cannot unmarshal {} into Go struct field {kind}.metadata of type v1.ObjectMeta",
                    self.resource.gvr.version,
                    patch::go_type(other)
                )));
            }
        }
        let namespace = self.path.namespace.as_deref().unwrap_or_default();
        let found = text(&value["metadata"]["namespace"]);
        if !found.is_empty() && found != namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if !namespace.is_empty() {
            value["metadata"]["namespace"] = namespace.into();
        }
        if let Some(name) = &self.path.name {
            let found = text(&value["metadata"]["name"]);
            if !found.is_empty() && found != *name {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({found}) does not match the name on the URL ({name})"
                )));
            }
            value["metadata"]["name"] = name.as_str().into();
        }
        Ok(())
    }

    /// 400 as upstream gives it for an object of another kind than the path is about.
    fn other_kind(&self, api_version: &str, kind: &str) -> ApiError {
        let shown = |text: &str| -> String { text.chars().take(64).collect() };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        // Upstream's names of its packages.
        let package = |group: &str| match group.split('.').next() {
            None | Some("") => "core".to_owned(),
            Some(first) => first.to_owned(),
        };
        let wanted = &self.resource.kind;
        let why = match self.registry.by_kind(group, version, kind) {
            Some(_) => {
                let to = package(&self.resource.gvr.group);
                format!("converting ({version}.{kind}) to ({to}.{wanted}): unknown conversion")
            }
            None => format!(
                "no kind \"{}\" is registered for version \"{}\"",
                shown(kind),
                shown(api_version)
            ),
        };
        ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {wanted}: {why}",
            shown(kind),
            shown(version)
        ))
    }

    /// Turns what a client wants (in the version of the path) into what is stored: converted, pruned, defaulted, checked,
    /// with the server's own fields kept.
    pub(super) async fn prepare(&self, old: Option<&Value>, new: Value) -> Result<Prepared, ApiError> {
        let mut warnings: Vec<String> = self.resource.deprecated.iter().cloned().collect();
        let mut new = new;
        let unknown = schema::prune(&self.resource.schema, &mut new);
        // Before anything is changed in it: who changes a built-in object need not expect a text where an object should be.
        if !self.resource.custom
            && let Some(cause) = schema::mistyped(&self.resource.schema, &new)
        {
            return Err(self.undecodable(&cause));
        }
        self.tell_strictly(&unknown, &mut warnings)?;
        let resource = self.api.stored(&self.registry, &self.resource);
        let mut new = self.registry.to_stored(&self.resource, new)?;
        keep_server_fields(old, &mut new);
        self.keep_other_half(old, &mut new);
        if resource.custom {
            schema::default(&resource.schema, &mut new);
        } else {
            builtin::default(&resource, &mut new);
        }
        let write = super::Write {
            user: &self.request.user,
            resource: &resource,
            subresource: self.subresource(),
            old,
        };
        self.api.extension.admit(&write, &mut new).await?;
        let mut causes = meta::validate(&resource, old, &new);
        let found = schema::check(&resource.schema, &new, old);
        if !resource.custom
            && let Some(cause) = found.iter().find(|cause| cause.reason == "FieldValueTypeInvalid")
        {
            return Err(self.undecodable(cause));
        }
        if resource.custom {
            causes.extend(found);
        } else {
            // What is known of built-in kinds says it in upstream's words; of the rest, the schema tells.
            causes.extend(builtin::validate(&resource, old, &new));
            let told: Vec<String> = causes.iter().map(|cause| cause.field.clone()).collect();
            let within = |field: &str, told: &String| {
                told.strip_prefix(field)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let rest = found
                .into_iter()
                .filter(|cause| !told.iter().any(|told| within(&cause.field, told)));
            causes.extend(rest);
        }
        if certificates::concerns(&resource) {
            causes.extend(certificates::check(self.subresource(), old, &new));
        }
        if !causes.is_empty() {
            let name = new["metadata"]["name"].as_str().unwrap_or_default();
            return Err(ApiError::invalid(
                &resource.gvr.group,
                &resource.kind,
                name,
                causes,
            ));
        }
        if resource.status || resource.custom {
            new["metadata"]["generation"] = generation(old, &new, resource.status).into();
        }
        Ok(Prepared { value: new, warnings })
    }

    /// 400: upstream cannot decode a built-in object with a value of another type.
    fn undecodable(&self, cause: &Cause) -> ApiError {
        let kind = &self.resource.kind;
        let told = cause
            .message
            .split_once(": ")
            .map_or(cause.message.as_str(), |(_, told)| told);
        ApiError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: json: {told}",
            self.resource.gvr.version
        ))
    }

    /// Tells of fields that are not known, or were there twice, as `fieldValidation` says.
    fn tell_strictly(&self, unknown: &[String], warnings: &mut Vec<String>) -> Result<(), ApiError> {
        if self.options.validation == FieldValidation::Ignore {
            return Ok(());
        }
        let twice = self.twice();
        let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
        let told = twice.iter().cloned().chain(unknown);
        let told: Vec<String> = told.take(STRICT_TOLD_MAX).collect();
        if told.is_empty() {
            return Ok(());
        }
        if self.options.validation == FieldValidation::Warn {
            warnings.extend(told);
            return Ok(());
        }
        let why = format!("strict decoding error: {}", told.join(", "));
        let kind = &self.resource.kind;
        Err(match self.request.content_type().as_str() {
            "application/strategic-merge-patch+json" => {
                let patch = any_json(&self.request.body)?;
                patch::invalid(&schema::cause::go_value(&patch), &why)
            }
            "application/merge-patch+json" | "application/json-patch+json" => {
                patch::invalid(&String::from_utf8_lossy(&self.request.body), &why)
            }
            _ if self.applies() && !twice.is_empty() => {
                ApiError::bad_request(format!("error strict decoding YAML: {}", twice.join(", ")))
            }
            _ => ApiError::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: {why}",
                self.resource.gvr.version
            )),
        })
    }

    /// Fields that the body has twice: of these the last counts. YAML with such fields was refused when it was read.
    fn twice(&self) -> Vec<String> {
        let patch = if self.request.content_type() == "application/json-patch+json" {
            "json patch "
        } else {
            ""
        };
        let paths = schema::duplicates(&self.request.body).into_iter();
        paths
            .map(|path| format!("{patch}duplicate field \"{path}\""))
            .collect()
    }

    /// Notes in managedFields who changed what, in the version that is stored.
    pub(super) fn track(&self, before: Option<&Value>, after: Value) -> Value {
        let stored = self.api.stored(&self.registry, &self.resource);
        let writer = apply::Writer {
            manager: &self.manager(),
            schema: &stored.schema,
            api_version: &stored.api_version(),
            time: &self.time(),
            subresource: self.subresource(),
            has_status: stored.status,
        };
        apply::track(before, after, &writer)
    }

    /// Replaces `old` with `new`, unless they are the same; removes it, when it was only waiting for its last finalizer.
    pub(super) async fn replace(&self, old: &Object, new: Value) -> Result<Object, ApiError> {
        let mut same = old.value();
        same["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"].clone();
        if same == new {
            return Ok(old.clone());
        }
        let change = if over(&new) {
            Change::Delete {
                key: old.key().clone(),
                expected: old.version(),
            }
        } else {
            Change::Update {
                key: old.key().clone(),
                expected: old.version(),
                value: new,
            }
        };
        self.api.store.commit(change).await
    }

    /// The response to a dry run: what would have been stored.
    pub(super) fn dry(&self, status: u16, value: Value) -> Result<Response, ApiError> {
        Ok(self.value(status, self.registry.from_stored(&self.resource, value)?))
    }
}

impl super::Api {
    /// The version of `resource` that objects are stored in.
    pub(super) fn stored(
        &self,
        registry: &crate::Registry,
        resource: &std::sync::Arc<crate::Resource>,
    ) -> std::sync::Arc<crate::Resource> {
        let stored = registry.stored(&resource.kept_as());
        stored.unwrap_or(resource).clone()
    }
}

/// JSON of bounded depth (serde_json refuses more than 128 levels).
///
/// # Errors
/// `BadRequest` with what is wrong where.
pub(super) fn any_json(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("couldn't parse the body as JSON: {error}")))
}

/// As [`any_json`], but an object.
pub(super) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    match any_json(body)? {
        Value::Object(map) => Ok(Value::Object(map)),
        _ => Err(ApiError::bad_request("the body must be a JSON object")),
    }
}

/// Sets a field, or takes it away.
pub(super) fn set(value: &mut Value, field: &str, to: Option<Value>) {
    let Value::Object(map) = value else { return };
    match to {
        Some(to) => {
            map.insert(field.to_owned(), to);
        }
        None => {
            map.remove(field);
        }
    }
}

/// What only the server writes is what it was.
fn keep_server_fields(old: Option<&Value>, new: &mut Value) {
    let empty = Map::new();
    let kept = old.and_then(|old| old["metadata"].as_object()).unwrap_or(&empty);
    for field in SERVER_OWNED {
        set(&mut new["metadata"], field, kept.get(field).cloned());
    }
    // A client that sends no managedFields leaves them as they are; an empty list clears them.
    if new["metadata"].get("managedFields").is_none_or(Value::is_null) {
        set(
            &mut new["metadata"],
            "managedFields",
            kept.get("managedFields").cloned(),
        );
    }
}

/// `metadata.generation`: counts changes of what is desired.
fn generation(old: Option<&Value>, new: &Value, has_status: bool) -> i64 {
    let Some(old) = old else { return 1 };
    let wanted = |value: &Value| -> Map<String, Value> {
        let fields = value.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, _)| *name != "metadata" && !(has_status && *name == "status"));
        fields
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let last = old["metadata"]["generation"].as_i64().unwrap_or(1);
    last + i64::from(wanted(old) != wanted(new))
}

/// Whether an object that is being deleted has no finalizer left and no grace period to wait for.
pub(super) fn over(value: &Value) -> bool {
    let metadata = &value["metadata"];
    let finalizers = metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
    let spec_finalizers = value["kind"] == "Namespace"
        && value["spec"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    metadata["deletionTimestamp"].is_string() && finalizers && !spec_finalizers && grace == 0
}

/// The resource version that the client based its change on; `None` when it does not say.
pub(super) fn based_on(value: &Value) -> Result<Option<Version>, ApiError> {
    match value["metadata"]["resourceVersion"].as_str() {
        None | Some("") => Ok(None),
        Some(text) => super::options::version(text).map(Some),
    }
}
