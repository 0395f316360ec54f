//! The document of a group of custom kinds.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder`.

use serde_json::{Map, Value, json};

use crate::builtin;
use crate::resource::Resource;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
    convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
    from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// A document with these kinds, of one group and version. `None` without any.
pub(super) fn document<'r>(resources: impl Iterator<Item = &'r Resource>) -> Option<Value> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let mut scaled = false;
    for resource in resources {
        let name = schema_name(resource);
        schemas.insert(name.clone(), schema(resource));
        schemas.insert(format!("{name}List"), list_schema(resource, &name));
        scaled |= resource.scale.is_some();
        add_paths(&mut paths, resource, &name);
    }
    if paths.is_empty() {
        return None;
    }
    // What every kind refers to stands in the documents of the built-in kinds.
    let wanted = ["ListMeta", "ObjectMeta", "DeleteOptions", "Patch", "Status"];
    let wanted = wanted.iter().map(|name| format!("{META}.{name}")).collect();
    borrow(&mut schemas, "apis/coordination.k8s.io/v1", wanted);
    if scaled {
        borrow(&mut schemas, "apis/apps/v1", vec![SCALE.to_owned()]);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes CRD Swagger", "version": "v0.1.0" },
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// The name of a kind's schema: its group backwards, such as `com.example.v1.Widget`.
fn schema_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> = resource.gvr.group.split('.').rev().collect();
    parts.extend([resource.gvr.version.as_str(), resource.kind.as_str()]);
    parts.join(".")
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn gvk(resource: &Resource, kind: &str) -> Value {
    json!({ "group": resource.gvr.group, "version": resource.gvr.version, "kind": kind })
}

/// The published schema, with what every object has.
fn schema(resource: &Resource) -> Value {
    let mut out = match resource.published.as_deref() {
        Some(published @ Value::Object(_)) => published.clone(),
        _ => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
    };
    spell_out(&mut out);
    if !out["properties"].is_object() {
        out["properties"] = json!({});
    }
    out["properties"]["apiVersion"] = json!({ "description": API_VERSION, "type": "string" });
    out["properties"]["kind"] = json!({ "description": KIND, "type": "string" });
    out["properties"]["metadata"] = json!({
        "description": METADATA,
        "allOf": [reference(&format!("{META}.ObjectMeta"))],
    });
    out["x-kubernetes-group-version-kind"] = json!([gvk(resource, &resource.kind)]);
    out
}

/// Says in plain OpenAPI what an integer or a string is. As deep as JSON is decoded, which is bounded.
fn spell_out(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
                && !fields.contains_key("anyOf")
            {
                let either = json!([{ "type": "integer" }, { "type": "string" }]);
                fields.insert("anyOf".to_owned(), either);
            }
            for (name, inner) in fields.iter_mut() {
                match (name.as_str(), inner) {
                    ("properties", Value::Object(properties)) => properties.values_mut().for_each(spell_out),
                    ("items" | "additionalProperties", inner) => spell_out(inner),
                    _ => {}
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(spell_out),
        _ => {}
    }
}

fn list_schema(resource: &Resource, name: &str) -> Value {
    json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "description": API_VERSION, "type": "string" },
            "kind": { "description": KIND, "type": "string" },
            "metadata": {
                "description": "Standard list metadata.",
                "allOf": [reference(&format!("{META}.ListMeta"))],
            },
            "items": {
                "description": format!("List of {}.", resource.gvr.resource),
                "type": "array",
                "items": reference(name),
            },
        },
        "x-kubernetes-group-version-kind": [gvk(resource, &resource.list_kind)],
    })
}

/// Adds schemas of a built-in document, and those they refer to.
fn borrow(schemas: &mut Map<String, Value>, path: &str, mut wanted: Vec<String>) {
    let document: Value = builtin::document(path)
        .and_then(|document| serde_json::from_slice(&document).ok())
        .unwrap_or_default();
    while let Some(name) = wanted.pop() {
        if schemas.contains_key(&name) {
            continue;
        }
        let found = &document["components"]["schemas"][&name];
        references(found, &mut wanted);
        schemas.insert(name, found.clone());
    }
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                out.extend(reference.rsplit_once('/').map(|(_, name)| name.to_owned()));
            }
            fields.values().for_each(|value| references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, name: &str) {
    let (group, version) = (&resource.gvr.group, &resource.gvr.version);
    let plural = &resource.gvr.resource;
    let prefix = format!("/apis/{group}/{version}");
    let collection = match resource.namespaced() {
        true => format!("{prefix}/namespaces/{{namespace}}/{plural}"),
        false => format!("{prefix}/{plural}"),
    };
    let list = format!("{name}List");
    let operations = Operations { resource, name };
    if resource.namespaced() {
        let all = json!({
            "get": operations.operation("list", "list", &list, LIST),
            "parameters": [parameter("query", "pretty", "string")],
        });
        paths.insert(format!("{prefix}/{plural}"), all);
    }
    let item = format!("{collection}/{{name}}");
    let of_collection = json!({
        "get": operations.operation("list", "list", &list, LIST),
        "post": operations.write("post", "create", name, &resource.kind),
        "delete": operations.delete("deletecollection", "deleteCollection", LIST),
        "parameters": operations.common(false),
    });
    let of_item = json!({
        "get": operations.operation("get", "read", name, &[("resourceVersion", "string")]),
        "put": operations.write("put", "replace", name, &resource.kind),
        "patch": operations.patch("patch", name, &gvk(resource, &resource.kind)),
        "delete": operations.delete("delete", "delete", DELETE),
        "parameters": operations.common(true),
    });
    paths.insert(collection, of_collection);
    if resource.status {
        let status = json!({
            "get": operations.operation("get", "readStatus", name, &[("resourceVersion", "string")]),
            "put": operations.write("put", "replaceStatus", name, &resource.kind),
            "patch": operations.patch("patchStatus", name, &gvk(resource, &resource.kind)),
            "parameters": operations.common(true),
        });
        paths.insert(format!("{item}/status"), status);
    }
    if resource.scale.is_some() {
        let kind = json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" });
        let scale = json!({
            "get": operations.operation("get", "readScale", SCALE, &[("resourceVersion", "string")]),
            "put": operations.write("put", "replaceScale", SCALE, "Scale"),
            "patch": operations.patch("patchScale", SCALE, &kind),
            "parameters": operations.common(true),
        });
        paths.insert(format!("{item}/scale"), scale);
    }
    paths.insert(item, of_item);
}

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

fn parameter(place: &str, name: &str, kind: &str) -> Value {
    let mut out = json!({ "name": name, "in": place, "schema": { "type": kind, "uniqueItems": true } });
    if place == "path" {
        out["required"] = true.into();
    }
    out
}

fn content(schema: &str) -> Value {
    json!({ "application/json": { "schema": reference(schema) } })
}

/// The operations on a kind.
struct Operations<'r> {
    resource: &'r Resource,
    /// The name of its schema.
    name: &'r str,
}

impl Operations<'_> {
    /// Parameters of all operations of a path.
    fn common(&self, named: bool) -> Value {
        let mut out = Vec::new();
        if named {
            out.push(parameter("path", "name", "string"));
        }
        if self.resource.namespaced() {
            out.push(parameter("path", "namespace", "string"));
        }
        out.push(parameter("query", "pretty", "string"));
        out.into()
    }

    fn operation(&self, action: &str, verb: &str, returns: &str, parameters: &[(&str, &str)]) -> Value {
        let kind = &self.resource.kind;
        let parameters = parameters
            .iter()
            .map(|(name, kind)| parameter("query", name, kind));
        json!({
            "description": format!("{verb} {kind}"),
            "operationId": format!("{verb}_{}", self.name),
            "parameters": parameters.collect::<Vec<_>>(),
            "responses": {
                "200": { "description": "OK", "content": content(returns) },
                "401": { "description": "Unauthorized" },
            },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(self.resource, kind),
        })
    }

    fn write(&self, action: &str, verb: &str, schema: &str, kind: &str) -> Value {
        let mut out = self.operation(action, verb, schema, WRITE);
        out["requestBody"] = json!({ "content": content(schema), "required": true });
        if kind != self.resource.kind {
            out["x-kubernetes-group-version-kind"] =
                json!({ "group": "autoscaling", "version": "v1", "kind": kind });
        }
        out
    }

    /// Without strategic merge patches, which custom kinds do not have: kubectl would compute one.
    fn patch(&self, verb: &str, returns: &str, gvk: &Value) -> Value {
        let mut out = self.operation("patch", verb, returns, WRITE);
        if let Value::Array(parameters) = &mut out["parameters"] {
            parameters.push(parameter("query", "force", "boolean"));
        }
        let schema = json!({ "schema": reference(&format!("{META}.Patch")) });
        let content = json!({
            "application/apply-patch+yaml": schema,
            "application/json-patch+json": schema,
            "application/merge-patch+json": schema,
        });
        out["requestBody"] = json!({ "content": content, "required": true });
        out["x-kubernetes-group-version-kind"] = gvk.clone();
        out
    }

    fn delete(&self, action: &str, verb: &str, parameters: &[(&str, &str)]) -> Value {
        let mut out = self.operation(action, verb, &format!("{META}.Status"), parameters);
        out["requestBody"] = json!({ "content": content(&format!("{META}.DeleteOptions")) });
        out
    }
}
