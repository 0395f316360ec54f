//! Kinds that users define: CustomResourceDefinitions as [`Resource`]s. Source: `apiextensions.k8s.io/v1`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::{ApiError, Cause};
use crate::resource::{Gvr, Resource, Scale, Scope};
use crate::schema::{Schema, cause};
use crate::table;

/// Most versions of one definition.
const VERSIONS_MAX: usize = 32;

/// The kinds that a definition describes, one for each version that is served or stored.
///
/// # Errors
/// What is wrong with it, field by field.
pub fn resources(definition: &Value) -> Result<Vec<Resource>, Vec<Cause>> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let names = &spec["names"];
    let mut causes = check_names(definition);
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    if versions.is_empty() || versions.len() > VERSIONS_MAX {
        causes.push(cause::required("spec.versions", ""));
    }
    let stored = versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count();
    if stored != 1 && !versions.is_empty() {
        causes.push(cause::invalid(
            "spec.versions",
            &Value::Null,
            "must have exactly one version marked as storage version",
        ));
    }
    let kind = text(&names["kind"]);
    let list_kind = match names["listKind"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => format!("{kind}List"),
    };
    let singular = match names["singular"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => kind.to_lowercase(),
    };
    let mut out: Vec<Resource> = Vec::new();
    for (n, version) in versions.iter().enumerate() {
        let place = format!("spec.versions[{n}]");
        let raw = &version["schema"]["openAPIV3Schema"];
        if !raw.is_object() {
            causes.push(cause::required(
                format!("{place}.schema.openAPIV3Schema"),
                "schemas are required",
            ));
            continue;
        }
        let schema = match Schema::parse(raw) {
            Ok(schema) => schema,
            Err(found) => {
                let found = found.into_iter().map(|found| Cause {
                    field: format!(
                        "{place}.schema.openAPIV3Schema{}{}",
                        if found.field.is_empty() { "" } else { "." },
                        found.field
                    ),
                    ..found
                });
                causes.extend(found);
                continue;
            }
        };
        if version["served"] != true && version["storage"] != true {
            continue;
        }
        // Versions that say the same are one in memory.
        let same = out
            .iter()
            .find(|other| other.published.as_deref() == Some(raw))
            .map(|other| (Arc::clone(&other.schema), other.published.clone()));
        let (schema, published) = same.unwrap_or_else(|| (Arc::new(schema), Some(Arc::new(raw.clone()))));
        let subresources = &version["subresources"];
        let scale = &subresources["scale"];
        out.push(Resource {
            view: None,
            gvr: Gvr {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                resource: text(&names["plural"]),
            },
            kind: kind.clone(),
            list_kind: list_kind.clone(),
            singular: singular.clone(),
            short_names: list(&names["shortNames"]),
            categories: list(&names["categories"]),
            scope: if spec["scope"] == "Cluster" {
                Scope::Cluster
            } else {
                Scope::Namespaced
            },
            status: subresources.get("status").is_some_and(Value::is_object),
            scale: scale.is_object().then(|| Scale {
                spec_replicas: text(&scale["specReplicasPath"]),
                status_replicas: text(&scale["statusReplicasPath"]),
                selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
            }),
            verbs: Vec::new(),
            schema,
            published,
            columns: table::custom_columns(version),
            selectable: selectable(&version["selectableFields"]),
            storage: version["storage"] == true,
            custom: true,
            deprecated: (version["deprecated"] == true).then(|| {
                let told = version["deprecationWarning"].as_str().map(str::to_owned);
                told.unwrap_or_else(|| {
                    format!(
                        "{}/{} {kind} is deprecated",
                        text(&spec["group"]),
                        text(&version["name"])
                    )
                })
            }),
        });
    }
    if causes.is_empty() { Ok(out) } else { Err(causes) }
}

fn check_names(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    for (field, value) in [
        ("spec.group", &spec["group"]),
        ("spec.scope", &spec["scope"]),
        ("spec.names.plural", &spec["names"]["plural"]),
        ("spec.names.kind", &spec["names"]["kind"]),
    ] {
        if value.as_str().unwrap_or_default().is_empty() {
            causes.push(cause::required(field, ""));
        }
    }
    let (plural, group) = (&spec["names"]["plural"], &spec["group"]);
    if let (Some(plural), Some(group)) = (plural.as_str(), group.as_str()) {
        let wanted = format!("{plural}.{group}");
        let name = &definition["metadata"]["name"];
        if *name != wanted.as_str() {
            causes.push(cause::invalid(
                "metadata.name",
                name,
                "must be spec.names.plural+\".\"+spec.group",
            ));
        }
    }
    causes
}

fn selectable(fields: &Value) -> Vec<String> {
    let fields = fields.as_array().into_iter().flatten();
    let paths = fields.filter_map(|field| field["jsonPath"].as_str());
    paths
        .map(|path| path.trim_start_matches('.').to_owned())
        .collect()
}

/// Whether `new` is a definition that can take effect in the place of `old`.
///
/// # Errors
/// `Invalid`, field by field.
pub fn check(new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let mut causes = resources(new).err().unwrap_or_default();
    if let Some(old) = old {
        for field in ["group", "scope"] {
            if old["spec"][field] != new["spec"][field] {
                causes.push(cause::invalid(
                    format!("spec.{field}"),
                    &new["spec"][field],
                    "field is immutable",
                ));
            }
        }
        for field in ["plural", "kind"] {
            let (before, now) = (&old["spec"]["names"][field], &new["spec"]["names"][field]);
            if before != now {
                causes.push(cause::invalid(
                    format!("spec.names.{field}"),
                    now,
                    "field is immutable",
                ));
            }
        }
    }
    if new["spec"]["conversion"]["strategy"] == "Webhook" {
        causes.push(cause::invalid(
            "spec.conversion.strategy",
            &new["spec"]["conversion"]["strategy"],
            "this API calls no webhooks: use None",
        ));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    Err(ApiError::invalid(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        name,
        causes,
    ))
}

/// Fills in what upstream's controllers say of a definition that is accepted: it takes effect with its being stored.
pub fn establish(definition: &mut Value, time: &str) {
    let names = definition["spec"]["names"].clone();
    let kind = names["kind"].as_str().unwrap_or_default();
    let mut accepted = names.clone();
    if names["singular"].as_str().is_none_or(str::is_empty) {
        accepted["singular"] = kind.to_lowercase().into();
    }
    if names["listKind"].as_str().is_none_or(str::is_empty) {
        accepted["listKind"] = format!("{kind}List").into();
    }
    definition["spec"]["names"] = accepted.clone();
    let condition = |kind: &str, reason: &str, message: &str| {
        let before = definition["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten();
        let since = before.filter(|one| one["type"] == kind && one["status"] == "True");
        let since = since
            .filter_map(|one| one["lastTransitionTime"].as_str())
            .next()
            .unwrap_or(time);
        json!({
            "lastTransitionTime": since,
            "message": message,
            "reason": reason,
            "status": "True",
            "type": kind,
        })
    };
    let conditions = [
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition(
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ),
    ];
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone());
    let mut stored = definition["status"]["storedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for version in storage.collect::<Vec<_>>() {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    definition["status"] = json!({
        "acceptedNames": accepted,
        "conditions": conditions,
        "storedVersions": stored,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widgets() -> Value {
        json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com",
                "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
                "versions": [{
                    "name": "v1",
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
                    "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}],
                    "schema": {"openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}},
                    }},
                }],
            },
        })
    }

    #[test]
    fn a_definition_is_a_resource() {
        let found = resources(&widgets()).unwrap();
        assert_eq!(found.len(), 1);
        let widget = &found[0];
        assert_eq!(
            (widget.list_kind.as_str(), widget.singular.as_str()),
            ("WidgetList", "widget")
        );
        assert!(widget.status && widget.custom && widget.storage && widget.namespaced());
        assert_eq!(widget.columns.len(), 2);
        assert_eq!(widget.scale.as_ref().unwrap().spec_replicas, ".spec.n");
    }

    #[test]
    fn mistakes_are_named() {
        let mut wrong = widgets();
        wrong["metadata"]["name"] = "widget.example.com".into();
        wrong["spec"]["versions"][0]["storage"] = false.into();
        let fields: Vec<String> = resources(&wrong)
            .unwrap_err()
            .into_iter()
            .map(|cause| cause.field)
            .collect();
        assert_eq!(fields, ["metadata.name", "spec.versions"]);
        let mut moved = widgets();
        moved["spec"]["scope"] = "Cluster".into();
        assert_eq!(check(&moved, Some(&widgets())).unwrap_err().reason.code(), 422);
    }

    #[test]
    fn what_is_accepted_is_established_once() {
        let mut definition = widgets();
        establish(&mut definition, "2026-01-01T00:00:00Z");
        let first = definition.clone();
        establish(&mut definition, "2027-01-01T00:00:00Z");
        assert_eq!(first, definition);
        assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(definition["spec"]["names"]["singular"], "widget");
    }
}
