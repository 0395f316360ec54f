//! What tests ask of the definitions.

use ledge_kubeapi::{Resource, crd, schema};
use serde_json::Value;

pub(crate) fn resource(kind: &str, version: &str) -> Resource {
    let definitions = ledge_crds::definitions();
    let mut all = definitions
        .iter()
        .flat_map(|definition| crd::resources(definition).unwrap());
    all.find(|resource| resource.kind == kind && resource.gvr.version == version)
        .unwrap()
}

/// What is wrong with an object: field and message of each cause.
pub(crate) fn faults(kind: &str, version: &str, object: &Value) -> Vec<String> {
    let schema = resource(kind, version).schema;
    let mut object = object.clone();
    let unknown = schema::prune(&schema, &mut object);
    let unknown = unknown.into_iter().map(|path| format!("unknown {path}"));
    let wrong = schema::check(&schema, &object, None);
    unknown
        .chain(
            wrong
                .into_iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message)),
        )
        .collect()
}
