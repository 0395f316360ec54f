//! `events.k8s.io/v1`: the events of the core group under the names of the newer one. They are one resource; what is
//! written in one form is read in the other. Source: `k8s.io/kubernetes/pkg/apis/events/v1/conversion.go`.

use serde_json::Value;

use crate::resource::{GroupResource, View};

/// Names of `events.k8s.io` with those of the core group. All other fields have one name.
const FIELDS: [(&str, &str); 7] = [
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

/// Fields that a field selector may name, with what they are called in the stored form.
const SELECTABLE: [(&str, &str); 10] = [
    ("reason", "reason"),
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

/// How `events.k8s.io/v1` sees the events of the core group.
pub(super) fn view() -> View {
    View {
        of: GroupResource {
            group: String::new(),
            resource: "events".to_owned(),
        },
        to_stored: |event| renamed(event, "v1", |new, old| (new, old)),
        from_stored: |event| renamed(event, "events.k8s.io/v1", |new, old| (old, new)),
        field: |path| {
            let found = SELECTABLE.iter().find(|(name, _)| *name == path);
            found.map(|(_, stored)| *stored)
        },
    }
}

fn renamed(
    mut event: Value,
    api_version: &str,
    direction: fn(&'static str, &'static str) -> (&'static str, &'static str),
) -> Value {
    let Value::Object(map) = &mut event else {
        return event;
    };
    for (new, old) in FIELDS {
        let (from, to) = direction(new, old);
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let stored = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"},
            "message": "m", "count": 2, "source": {"component": "c"}, "reportingComponent": "r", "type": "Normal",
        });
        let shown = (view().from_stored)(stored.clone());
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "regarding": {"kind": "Pod"},
            "note": "m", "deprecatedCount": 2, "deprecatedSource": {"component": "c"}, "reportingController": "r",
            "type": "Normal",
        });
        assert_eq!(shown, expected);
        assert_eq!((view().to_stored)(shown), stored);
    }
}
