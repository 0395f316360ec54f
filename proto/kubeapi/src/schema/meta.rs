//! The schema of `metadata`, which is the same for every kind.

use std::sync::{Arc, LazyLock};

use super::{ListType, PatchStrategy, Schema, Type};

/// `k8s.io/apimachinery/pkg/apis/meta/v1.ObjectMeta`. Shared by all schemas.
pub fn object_meta() -> Arc<Schema> {
    static META: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(build()));
    Arc::clone(&META)
}

/// `apiVersion` and `kind`. Shared by all schemas.
pub(super) fn text() -> Arc<Schema> {
    static TEXT: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(scalar(Type::String, "")));
    Arc::clone(&TEXT)
}

fn scalar(kind: Type, format: &str) -> Schema {
    Schema {
        kind,
        format: format.to_owned(),
        ..Schema::default()
    }
}

fn map_of_texts() -> Schema {
    Schema {
        kind: Type::Object,
        additional: Some(text()),
        ..Schema::default()
    }
}

fn object(fields: Vec<(&str, Schema)>) -> Schema {
    let fields = fields.into_iter();
    Schema {
        kind: Type::Object,
        properties: fields
            .map(|(name, schema)| (name.to_owned(), Arc::new(schema)))
            .collect(),
        ..Schema::default()
    }
}

fn list(items: Schema, list: ListType, patch: PatchStrategy) -> Schema {
    Schema {
        kind: Type::Array,
        items: Some(Arc::new(items)),
        list,
        patch,
        ..Schema::default()
    }
}

fn merge(key: Option<&str>) -> PatchStrategy {
    PatchStrategy::Merge {
        key: key.map(str::to_owned),
        retain_keys: false,
    }
}

fn build() -> Schema {
    let texts = |names: &[&'static str]| -> Vec<(&'static str, Schema)> {
        names
            .iter()
            .map(|name| (*name, scalar(Type::String, "")))
            .collect()
    };
    let mut owner = texts(&["apiVersion", "kind", "name", "uid"]);
    owner.push(("blockOwnerDeletion", scalar(Type::Boolean, "")));
    owner.push(("controller", scalar(Type::Boolean, "")));
    let owner = Schema {
        atomic_map: true,
        required: ["apiVersion", "kind", "name", "uid"].map(str::to_owned).to_vec(),
        ..object(owner)
    };
    let mut entry = texts(&["apiVersion", "fieldsType", "manager", "operation", "subresource"]);
    entry.push(("time", scalar(Type::String, "date-time")));
    let fields = Schema {
        preserve_unknown: true,
        ..object(Vec::new())
    };
    entry.push(("fieldsV1", fields));
    let mut fields = texts(&[
        "generateName",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ]);
    fields.extend([
        ("annotations", map_of_texts()),
        ("labels", map_of_texts()),
        ("creationTimestamp", scalar(Type::String, "date-time")),
        ("deletionTimestamp", scalar(Type::String, "date-time")),
        ("deletionGracePeriodSeconds", scalar(Type::Integer, "int64")),
        ("generation", scalar(Type::Integer, "int64")),
        (
            "finalizers",
            list(scalar(Type::String, ""), ListType::Set, merge(None)),
        ),
        (
            "ownerReferences",
            list(owner, ListType::Map(vec!["uid".to_owned()]), merge(Some("uid"))),
        ),
        (
            "managedFields",
            list(object(entry), ListType::Atomic, PatchStrategy::Replace),
        ),
    ]);
    object(fields)
}
