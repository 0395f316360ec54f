//! Certificate signing requests: who asks is noted by the server, who approves writes `approval`, who signs writes `status`.
//! Source: `k8s.io/kubernetes/pkg/registry/certificates`, `pkg/apis/certificates/validation`.

use serde_json::{Value, json};

use super::request::User;
use super::write::set;
use crate::error::Cause;
use crate::resource::Resource;

/// Conditions that `approval` may write, and nothing else.
const DECIDED: [&str; 2] = ["Approved", "Denied"];

/// Whether `resource` is what this is about.
pub(super) fn concerns(resource: &Resource) -> bool {
    resource.gvr.group == "certificates.k8s.io" && resource.kind == "CertificateSigningRequest"
}

/// Leaves in `new` what a write through `subresource` may change.
pub(super) fn keep(subresource: &str, old: Option<&Value>, new: &mut Value, user: &User, time: &str) {
    let Some(old) = old else {
        let spec = &mut new["spec"];
        let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
        set(spec, "username", text(&user.name));
        set(spec, "uid", text(&user.uid));
        set(spec, "groups", Some(json!(user.groups)));
        set(spec, "extra", (!user.extra.is_empty()).then(|| json!(user.extra)));
        set(new, "status", Some(json!({})));
        return;
    };
    match subresource {
        "" => set(new, "spec", old.get("spec").cloned()),
        "approval" => {
            let certificate = old["status"].get("certificate").cloned();
            set(&mut new["status"], "certificate", certificate);
        }
        _ => {}
    }
    let before = conditions(old);
    let Some(after) = new["status"]["conditions"].as_array_mut() else {
        return;
    };
    for condition in after {
        let same = before
            .iter()
            .find(|old| old["type"] == condition["type"] && old["status"] == condition["status"]);
        if subresource == "status"
            && let Some(same) = same
            && is_decision(condition)
        {
            *condition = (*same).clone();
        }
        if !condition["lastUpdateTime"].is_string() {
            condition["lastUpdateTime"] = time.into();
        }
        if !condition["lastTransitionTime"].is_string() {
            let before = same.and_then(|same| same["lastTransitionTime"].as_str());
            condition["lastTransitionTime"] = before.unwrap_or(time).into();
        }
    }
}

/// What is wrong with a change through `subresource`.
pub(super) fn check(subresource: &str, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let Some(old) = old else { return Vec::new() };
    let mut causes = Vec::new();
    let mut forbid = |field: &str, message: String| {
        causes.push(Cause {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {message}"),
            field: field.to_owned(),
        });
    };
    let field = "status.conditions";
    let (before, after) = (conditions(old), conditions(new));
    let of = |list: &[&Value], kind: &str| -> Vec<Value> {
        let list = list.iter().filter(|condition| condition["type"] == kind);
        list.map(|condition| (*condition).clone()).collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let (before, after) = (of(&before, kind), of(&after, kind));
        if after.len() < before.len() {
            forbid(
                field,
                format!("updates may not remove a condition of type \"{kind}\""),
            );
        } else if subresource != "approval" && DECIDED.contains(&kind) {
            if after.len() > before.len() {
                forbid(
                    field,
                    format!("updates may not add a condition of type \"{kind}\""),
                );
            } else if before != after {
                forbid(
                    field,
                    format!("updates may not modify a condition of type \"{kind}\""),
                );
            }
        }
    }
    let both = |list: &[&Value]| DECIDED.iter().all(|kind| !of(list, kind).is_empty());
    if both(&after) && !both(&before) {
        causes.push(Cause {
            reason: "FieldValueInvalid",
            message: "Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
                .to_owned(),
            field: field.to_owned(),
        });
    }
    causes
}

fn is_decision(condition: &Value) -> bool {
    condition["type"]
        .as_str()
        .is_some_and(|kind| DECIDED.contains(&kind))
}

fn conditions(request: &Value) -> Vec<&Value> {
    let list = request["status"]["conditions"].as_array();
    list.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn who_asks_is_noted() {
        let mut request =
            json!({"spec": {"username": "root", "request": "x"}, "status": {"certificate": "y"}});
        let user = User::new("bob", ["dev"]);
        keep("", None, &mut request, &user, NOW);
        let expected = json!({"spec": {"username": "bob", "groups": ["dev"], "request": "x"}, "status": {}});
        assert_eq!(request, expected);
        let mut changed = json!({"spec": {"username": "root"}, "status": {}});
        keep("", Some(&request), &mut changed, &user, NOW);
        assert_eq!(changed["spec"], request["spec"]);
    }

    #[test]
    fn decisions_are_made_once_and_in_one_place() {
        let user = User::default();
        let old = json!({"spec": {}, "status": {"certificate": "c"}});
        let approved =
            json!({"spec": {}, "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        let mut new = approved.clone();
        keep("approval", Some(&old), &mut new, &user, NOW);
        assert_eq!(new["status"]["certificate"], "c");
        assert_eq!(new["status"]["conditions"][0]["lastTransitionTime"], NOW);
        assert_eq!(check("approval", Some(&old), &new), []);
        assert_eq!(check("status", Some(&old), &approved).len(), 1);
        // Taking it back, or the other decision beside it.
        assert_eq!(check("approval", Some(&approved), &old).len(), 1);
        let mut both = approved.clone();
        both["status"]["conditions"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "Denied", "status": "True"}));
        assert_eq!(check("approval", Some(&approved), &both).len(), 1);
        // Who signs leaves the decision as it is.
        let mut signed = new.clone();
        signed["status"]["certificate"] = "d".into();
        signed["status"]["conditions"][0]["message"] = "mine".into();
        keep("status", Some(&new), &mut signed, &user, NOW);
        assert_eq!(check("status", Some(&new), &signed), []);
        assert_eq!(signed["status"]["certificate"], "d");
    }
}
