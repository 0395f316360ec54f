//! What of a Deployment is different in one place.

use std::collections::BTreeSet;

use ledge_crds::apps::{
    CommandArgsOverrider, EnvOverrider, ImageOverrider, ListOperator, OverriderOperator, Overriders,
    ResourcesOverrider,
};
use serde_json::{Value, json};

use super::image;

/// Where a workload's containers are.
const CONTAINERS: &str = "/spec/template/spec/containers";

/// Applies `overriders` to a workload.
///
/// # Errors
/// What cannot be done, in words; the workload is not to be used then.
pub(super) fn apply(workload: &mut Value, overriders: &Overriders) -> Result<(), String> {
    if let Some(replicas) = overriders.replicas {
        let spec = workload.get_mut("spec").and_then(Value::as_object_mut);
        let spec = spec.ok_or("it has no spec")?;
        spec.insert("replicas".to_owned(), replicas.into());
    }
    for overrider in &overriders.image_overriders {
        images(workload, overrider)?;
    }
    for overrider in &overriders.env_overriders {
        for container in named(workload, &overrider.container_name)? {
            environment(container, overrider)?;
        }
    }
    for (field, overriders) in [
        ("command", &overriders.command_overriders),
        ("args", &overriders.args_overriders),
    ] {
        for overrider in overriders {
            for container in named(workload, &overrider.container_name)? {
                words(container, field, overrider)?;
            }
        }
    }
    for overrider in &overriders.resources_overriders {
        for container in named(workload, &overrider.container_name)? {
            resources(container, overrider)?;
        }
    }
    Ok(())
}

fn containers(workload: &mut Value) -> impl Iterator<Item = &mut Value> {
    let containers = workload.pointer_mut(CONTAINERS).and_then(Value::as_array_mut);
    containers.into_iter().flatten()
}

/// The containers of that name. One overrider that meets none is a mistake in it, which is told.
fn named<'a>(workload: &'a mut Value, name: &str) -> Result<Vec<&'a mut Value>, String> {
    let named: Vec<&mut Value> = containers(workload)
        .filter(|container| container.get("name").and_then(Value::as_str) == Some(name))
        .collect();
    match named.is_empty() {
        true => Err(format!("it has no container {name:?}")),
        false => Ok(named),
    }
}

fn images(workload: &mut Value, overrider: &ImageOverrider) -> Result<(), String> {
    let change = |field: &mut Value| {
        let name = field.as_str().ok_or("it has an image that is not a string")?;
        *field = image::overridden(name, overrider)?.into();
        Ok(())
    };
    if let Some(predicate) = &overrider.predicate {
        let path = &predicate.path;
        let field = workload.pointer_mut(path);
        return change(field.ok_or_else(|| format!("it has no {path:?}"))?);
    }
    containers(workload)
        .filter_map(|container| container.get_mut("image"))
        .try_for_each(change)
}

/// The list in `field` of a container, which is made if there is none.
fn list<'a>(container: &'a mut Value, field: &str) -> Result<&'a mut Vec<Value>, String> {
    let container = container
        .as_object_mut()
        .ok_or("it has a container that is no object")?;
    let list = container.entry(field).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut()
        .ok_or_else(|| format!("its {field} is no list"))
}

fn environment(container: &mut Value, overrider: &EnvOverrider) -> Result<(), String> {
    let list = list(container, "env")?;
    let name_of = |variable: &Value| variable.get("name").and_then(Value::as_str).map(str::to_owned);
    match overrider.operator {
        OverriderOperator::Remove => {
            let names: BTreeSet<&str> = overrider
                .value
                .iter()
                .map(|variable| variable.name.as_str())
                .collect();
            list.retain(|variable| name_of(variable).is_none_or(|name| !names.contains(name.as_str())));
        }
        operator => {
            for variable in &overrider.value {
                let value = serde_json::to_value(variable).map_err(|error| error.to_string())?;
                let same = list
                    .iter_mut()
                    .find(|other| name_of(other).as_deref() == Some(&variable.name));
                match same.filter(|_| operator == OverriderOperator::Replace) {
                    Some(same) => *same = value,
                    None => list.push(value),
                }
            }
        }
    }
    Ok(())
}

fn words(container: &mut Value, field: &str, overrider: &CommandArgsOverrider) -> Result<(), String> {
    let list = list(container, field)?;
    match overrider.operator {
        ListOperator::Add => list.extend(overrider.value.iter().map(|word| Value::from(word.as_str()))),
        ListOperator::Remove => list.retain(|word| {
            let word = word.as_str();
            word.is_none_or(|word| !overrider.value.iter().any(|removed| removed == word))
        }),
    }
    Ok(())
}

fn resources(container: &mut Value, overrider: &ResourcesOverrider) -> Result<(), String> {
    let value = overrider
        .value
        .as_ref()
        .ok_or("a resources overrider needs a value")?;
    let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
    let container = container
        .as_object_mut()
        .ok_or("it has a container that is no object")?;
    container.insert("resources".to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Value {
        json!({
            "spec": {"replicas": 1, "template": {"spec": {"containers": [
                {"name": "a", "image": "r.io/a:1", "args": ["x", "y"], "env": [{"name": "P", "value": "1"}]},
                {"name": "b", "image": "b:1"},
            ]}}},
        })
    }

    fn overridden(overriders: Value) -> Result<Value, String> {
        let overriders: Overriders = serde_json::from_value(overriders).unwrap();
        let mut workload = workload();
        apply(&mut workload, &overriders)?;
        Ok(workload)
    }

    fn container(workload: &Value, index: usize) -> Value {
        workload.pointer(CONTAINERS).unwrap()[index].clone()
    }

    #[test]
    fn replicas_and_images() {
        let all = json!({"component": "Tag", "operator": "replace", "value": "2"});
        let path = format!("{CONTAINERS}/1/image");
        let one =
            json!({"component": "Registry", "operator": "add", "value": "q.io", "predicate": {"path": path}});
        let workload = overridden(json!({"replicas": 5, "imageOverriders": [all, one]})).unwrap();
        assert_eq!(workload["spec"]["replicas"], 5);
        assert_eq!(container(&workload, 0)["image"], "r.io/a:2");
        assert_eq!(container(&workload, 1)["image"], "q.io/b:2");
    }

    #[test]
    fn environments() {
        let overrider = |operator: &str, value: Value| json!({"envOverriders": [{"containerName": "a", "operator": operator, "value": value}]});
        let two = json!([{"name": "P", "value": "2"}, {"name": "Q", "value": "3"}]);
        let env = |overriders| container(&overridden(overriders).unwrap(), 0)["env"].clone();
        assert_eq!(env(overrider("replace", two.clone())), two);
        assert_eq!(
            env(overrider("add", json!([{"name": "Q"}]))),
            json!([{"name": "P", "value": "1"}, {"name": "Q"}])
        );
        assert_eq!(env(overrider("remove", json!([{"name": "P"}]))), json!([]));
    }

    #[test]
    fn words_and_resources() {
        let workload = overridden(json!({
            "commandOverriders": [{"containerName": "b", "operator": "add", "value": ["run"]}],
            "argsOverriders": [
                {"containerName": "a", "operator": "remove", "value": ["x"]},
                {"containerName": "a", "operator": "add", "value": ["z"]},
            ],
            "resourcesOverriders": [{"containerName": "a", "value": {"limits": {"cpu": "1"}}}],
        }))
        .unwrap();
        assert_eq!(container(&workload, 1)["command"], json!(["run"]));
        assert_eq!(container(&workload, 0)["args"], json!(["y", "z"]));
        assert_eq!(
            container(&workload, 0)["resources"],
            json!({"limits": {"cpu": "1"}})
        );
    }

    #[test]
    fn what_meets_nothing_is_told() {
        let unknown = json!({"envOverriders": [{"containerName": "c", "operator": "remove"}]});
        assert_eq!(overridden(unknown).unwrap_err(), "it has no container \"c\"");
        let path = json!({"imageOverriders": [
            {"component": "Tag", "operator": "remove", "predicate": {"path": "/spec/image"}},
        ]});
        assert_eq!(overridden(path).unwrap_err(), "it has no \"/spec/image\"");
    }
}
