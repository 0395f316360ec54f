//! What every object's metadata must be. Source: `k8s.io/apimachinery/pkg/api/validation` and `pkg/util/validation`.

use serde_json::Value;

use crate::error::Cause;
use crate::resource::Resource;

/// Most bytes of all annotations of an object.
const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What a name has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Subdomain,
    Label,
    Service,
    PathSegment,
}

/// A moment as Kubernetes writes it: RFC 3339 in UTC, whole seconds.
pub fn time(us: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(us).unwrap_or_default();
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Longest grace period, seconds; a longer one is taken for it. Times stay within what can be written.
pub const GRACE_MAX_S: i64 = i32::MAX as i64;

/// The moment so many seconds after `now_us`, at most [`GRACE_MAX_S`]; both ends are microseconds since 1970.
pub fn after(now_us: i64, seconds: i64) -> i64 {
    now_us.saturating_add(seconds.clamp(0, GRACE_MAX_S) * 1_000_000)
}

/// Microseconds since 1970 of a moment in RFC 3339; `None` when it is none.
pub fn time_us(text: &str) -> Option<i64> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(time.timestamp_micros())
}

/// What is wrong with the metadata of `new`, which replaces `old`.
pub fn validate(resource: &Resource, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &new["metadata"];
    check_name(resource, metadata, &mut causes);
    check_texts(metadata, "labels", &mut causes);
    check_texts(metadata, "annotations", &mut causes);
    check_finalizers(metadata, &mut causes);
    check_owners(metadata, &mut causes);
    if let Some(old) = old {
        check_transition(&old["metadata"], metadata, &mut causes);
    }
    causes
}

fn invalid(field: impl Into<String>, value: &str, why: &str) -> Cause {
    let shown: String = value.chars().take(300).collect();
    Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {}: {why}", Value::from(shown)),
        field: field.into(),
    }
}

fn required(field: impl Into<String>, why: &str) -> Cause {
    Cause {
        reason: "FieldValueRequired",
        message: if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        },
        field: field.into(),
    }
}

fn check_name(resource: &Resource, metadata: &Value, causes: &mut Vec<Cause>) {
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(required("metadata.name", "name or generateName is required"));
        return;
    }
    let rule = match (resource.gvr.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => Names::Label,
        ("", "Service") => Names::Service,
        ("rbac.authorization.k8s.io", _) => Names::PathSegment,
        _ => Names::Subdomain,
    };
    let label = |text: &str| {
        let ends = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        ends(bytes.first())
            && ends(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    let (ok, why, most) = match rule {
        Names::Subdomain => (name.split('.').all(label), SUBDOMAIN, 253),
        Names::Label => (label(name), LABEL, 63),
        Names::Service => (
            label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
            SERVICE,
            63,
        ),
        Names::PathSegment => {
            let ok = !matches!(name, "." | "..") && !name.contains(['/', '%']);
            (ok, "may not be '.', '..', or contain '/' or '%'", 253)
        }
    };
    if name.len() > most {
        causes.push(invalid(
            "metadata.name",
            name,
            &format!("must be no more than {most} characters"),
        ));
    }
    if !ok {
        causes.push(invalid("metadata.name", name, why));
    }
}

/// Whether `key` is a qualified name: an optional DNS prefix and a name.
pub(crate) fn qualified(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let subdomain = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text.split('.').all(|part| {
                part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            })
    };
    if prefix.is_some_and(|prefix| !subdomain(prefix)) {
        return Some(
            "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        );
    }
    if name.is_empty() {
        return Some("name part must be non-empty");
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes");
    }
    (!word(name)).then_some(QUALIFIED)
}

fn word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// What is wrong with the value of a label.
pub(crate) fn label_value(text: &str) -> Option<&'static str> {
    if text.len() > 63 {
        return Some("must be no more than 63 bytes");
    }
    (!text.is_empty() && !word(text)).then_some(LABEL_VALUE)
}

fn check_texts(metadata: &Value, what: &str, causes: &mut Vec<Cause>) {
    let field = format!("metadata.{what}");
    let map = match &metadata[what] {
        Value::Null => return,
        Value::Object(map) => map,
        _ => return causes.push(invalid(field, "", "must be a map of strings")),
    };
    let mut bytes = 0;
    for (key, value) in map {
        // Keys of annotations are compared without regard to case.
        let lower = key.to_lowercase();
        let key_shown = if what == "annotations" { &lower } else { key };
        if let Some(why) = qualified(key_shown) {
            causes.push(invalid(&field, key, why));
        }
        let Some(text) = value.as_str() else {
            causes.push(invalid(
                format!("{field}[{key}]"),
                &value.to_string(),
                "must be a string",
            ));
            continue;
        };
        bytes += key.len() + text.len();
        if what == "labels"
            && let Some(why) = label_value(text)
        {
            causes.push(invalid(&field, text, why));
        }
    }
    if what == "annotations" && bytes > ANNOTATIONS_MAX_BYTES {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {ANNOTATIONS_MAX_BYTES} bytes"),
            field,
        });
    }
}

fn check_finalizers(metadata: &Value, causes: &mut Vec<Cause>) {
    let finalizers = metadata["finalizers"].as_array().into_iter().flatten();
    for (n, finalizer) in finalizers.enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        if let Some(why) = qualified(name) {
            causes.push(invalid(format!("metadata.finalizers[{n}]"), name, why));
        }
    }
}

fn check_owners(metadata: &Value, causes: &mut Vec<Cause>) {
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let mut controllers = 0;
    for (n, owner) in owners.enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let why = if field == "uid" {
                    "uid must not be empty"
                } else {
                    "must not be empty"
                };
                causes.push(invalid(format!("metadata.ownerReferences[{n}].{field}"), "", why));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        causes.push(invalid(
            "metadata.ownerReferences",
            "",
            "Only one reference can have Controller set to true",
        ));
    }
}

fn check_transition(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if text(&old["name"]) != text(&new["name"]) {
        causes.push(invalid(
            "metadata.name",
            &text(&new["name"]),
            "field is immutable",
        ));
    }
    if !old["deletionTimestamp"].is_string() {
        return;
    }
    let of = |metadata: &Value| metadata["finalizers"].as_array().cloned().unwrap_or_default();
    let before = of(old);
    let added: Vec<Value> = of(new).into_iter().filter(|one| !before.contains(one)).collect();
    if !added.is_empty() {
        let shown: Vec<String> = added.iter().map(|one| one.to_string()).collect();
        causes.push(Cause {
            reason: "FieldValueForbidden",
            message: format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                shown.join(", ")
            ),
            field: "metadata.finalizers".to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(kind: &str, metadata: Value) -> Vec<String> {
        let resource = Resource {
            kind: kind.to_owned(),
            ..crate::resource::tests::widgets()
        };
        let causes = validate(&resource, None, &json!({ "metadata": metadata }));
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn names() {
        assert!(wrong("Pod", json!({"name": "a.b-1"})).is_empty());
        for name in ["", "A", "-a", "a-", "a..b", "a_b", "a/b"] {
            assert_eq!(wrong("Pod", json!({ "name": name })), ["metadata.name"], "{name}");
        }
        assert!(wrong("Pod", json!({"name": "a".repeat(253)})).is_empty());
        assert_eq!(wrong("Pod", json!({"name": "a".repeat(254)})), ["metadata.name"]);
    }

    #[test]
    fn labels_annotations_finalizers_owners() {
        let good = json!({
            "name": "a",
            "labels": {"app.kubernetes.io/name": "x", "empty": ""},
            "annotations": {"Example.COM/Some_thing": "anything at all\n"},
            "finalizers": ["example.com/stay"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true}],
        });
        assert_eq!(wrong("Pod", good), Vec::<String>::new());
        assert_eq!(
            wrong("Pod", json!({"name": "a", "labels": {"a/b/c": "x"}})),
            ["metadata.labels"]
        );
        assert_eq!(
            wrong("Pod", json!({"name": "a", "labels": {"a": "-"}})),
            ["metadata.labels"]
        );
        assert_eq!(
            wrong("Pod", json!({"name": "a", "labels": {"a": 1}})),
            ["metadata.labels[a]"]
        );
        assert_eq!(
            wrong(
                "Pod",
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]})
            ),
            ["metadata.ownerReferences[0].uid"]
        );
        let big = "x".repeat(ANNOTATIONS_MAX_BYTES);
        assert_eq!(
            wrong("Pod", json!({"name": "a", "annotations": {"a": big}})),
            ["metadata.annotations"]
        );
    }

    #[test]
    fn times() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_795_480_000_999_999), "2026-11-24T00:26:40Z");
    }
}
