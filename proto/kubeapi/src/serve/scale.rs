//! The `scale` subresource: how many replicas, whatever the kind.

use serde_json::{Value, json};

use super::Call;
use super::respond::Response;
use super::write::{any_json, based_on, parse};
use crate::error::{ApiError, Reason};
use crate::object::Object;
use crate::patch;
use crate::resource::Scale;

impl Call<'_> {
    pub(super) async fn scale(&self, verb: &str) -> Result<Response, ApiError> {
        // The path was checked: it names an object, and the resource has the subresource.
        let paths = self.resource.scale.as_ref().ok_or_else(ApiError::no_such_path)?;
        let current = self.current().await?;
        let object = self.value_of(&current)?;
        let shown = scale_of(&current, &object, paths);
        let wanted = match verb {
            "get" => return Ok(Response::json(200, &shown)),
            "update" => self.body()?,
            "patch" => match self.request.content_type().as_str() {
                "application/json-patch+json" => patch::json(&shown, &any_json(&self.request.body)?)?,
                "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                    patch::merge(&shown, &parse(&self.request.body)?)?
                }
                _ => {
                    let told = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";
                    return Err(ApiError::new(Reason::UnsupportedMediaType, told));
                }
            },
            _ => return Err(super::method_not_allowed()),
        };
        patch::check_object(&wanted)?;
        let resource = self.resource.group_resource();
        let name = &current.key().name;
        if based_on(&wanted)?.is_some_and(|version| version != current.version()) {
            return Err(ApiError::modified(&resource, name));
        }
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        if !(0..=i64::from(i32::MAX)).contains(&replicas) {
            let cause = crate::error::Cause {
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
                field: "spec.replicas".to_owned(),
            };
            return Err(ApiError::invalid("autoscaling", "Scale", name, vec![cause]));
        }
        let mut new = object.clone();
        put(&mut new, &paths.spec_replicas, replicas.into());
        let old = current.value();
        let prepared = self.prepare(Some(&old), new).await?;
        let new = self.track(Some(&old), prepared.value);
        if self.options.dry_run {
            let new = self.registry.from_stored(&self.resource, new)?;
            return Ok(Response::json(200, &scale_of(&current, &new, paths)));
        }
        let object = self.replace(&current, new).await?;
        let shown = scale_of(&object, &self.value_of(&object)?, paths);
        Ok(Response::json(200, &shown).with_warnings(&prepared.warnings))
    }
}

fn scale_of(object: &Object, value: &Value, paths: &Scale) -> Value {
    let number = |path: &str| at(value, path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": object.key().name,
            "uid": object.uid(),
            "resourceVersion": object.version().to_string(),
            "creationTimestamp": value["metadata"]["creationTimestamp"],
        },
        "spec": { "replicas": number(&paths.spec_replicas) },
        "status": { "replicas": number(&paths.status_replicas) },
    });
    if !object.key().namespace.is_empty() {
        scale["metadata"]["namespace"] = object.key().namespace.as_str().into();
    }
    let selector = paths.selector.as_deref().and_then(|path| at(value, path));
    match selector {
        Some(Value::String(text)) => scale["status"]["selector"] = text.as_str().into(),
        Some(object @ Value::Object(_)) => {
            if let Ok(selector) = crate::selector::LabelSelector::of_object(object) {
                scale["status"]["selector"] = selector.to_string().into();
            }
        }
        _ => {}
    }
    scale
}

/// What stands at a path such as `.spec.replicas`.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let names = path.split('.').filter(|name| !name.is_empty());
    names.into_iter().try_fold(value, |value, name| value.get(name))
}

fn put(value: &mut Value, path: &str, to: Value) {
    let mut place = value;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[name];
    }
    *place = to;
}
