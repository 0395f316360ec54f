//! Nobody grants what he may not do himself, unless he has the verb `escalate` for the role, or `bind`.
//! Source: `k8s.io/kubernetes/pkg/registry/rbac`.

use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::serve::Write;
use ledge_kubeapi::serve::request::User;
use ledge_kubeapi::{ApiError, ObjectKey};
use serde_json::Value;

use crate::access::Access;
use crate::rbac::{GROUP, MASTERS, Question, allows};

/// Most single permissions of a role that are compared: rules multiply.
const PERMISSIONS_MAX: usize = 10_000;
/// Most of them that a message tells.
const TOLD_MAX: usize = 8;

/// Checks a role or a binding that is about to be stored.
///
/// # Errors
/// `Forbidden`; `NotFound` for a binding to a role that is not there.
pub async fn check(access: &Access, write: &Write<'_>, new: &Value) -> Result<(), ApiError> {
    let user = write.user;
    if write.resource.gvr.group != GROUP || user.groups.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&new["metadata"]["namespace"]);
    let (verb, role, rules) = match write.resource.kind.as_str() {
        "Role" | "ClusterRole" => {
            if write.old.is_some_and(|old| old["rules"] == new["rules"]) {
                return Ok(());
            }
            let role = (
                write.resource.gvr.resource.clone(),
                text(&new["metadata"]["name"]),
            );
            ("escalate", role, Some(new["rules"].clone()))
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let same = |old: &Value| old["roleRef"] == new["roleRef"] && old["subjects"] == new["subjects"];
            if write.old.is_some_and(same) {
                return Ok(());
            }
            let resource = match new["roleRef"]["kind"].as_str() {
                Some("Role") => "roles",
                _ => "clusterroles",
            };
            ("bind", (resource.to_owned(), text(&new["roleRef"]["name"])), None)
        }
        _ => return Ok(()),
    };
    let question = Question {
        verb,
        group: GROUP,
        resource: role.0.clone(),
        name: &role.1,
        namespace: &namespace,
        ..Question::default()
    };
    if access.decide(user, &question).await?.allowed {
        return Ok(());
    }
    let rules = match rules {
        Some(rules) => rules,
        None => {
            let key = ObjectKey {
                namespace: if role.0 == "roles" {
                    namespace.clone()
                } else {
                    String::new()
                },
                resource: GroupResource {
                    group: GROUP.to_owned(),
                    resource: role.0.clone(),
                },
                name: role.1.clone(),
            };
            access.rbac().role(&key).await?["rules"].take()
        }
    };
    let name = text(&new["metadata"]["name"]);
    let refuse = |why: &str| Err(ApiError::forbidden(&write.resource.group_resource(), &name, why));
    let Some(wanted) = permissions(&rules) else {
        return refuse("the role has too many permissions to be compared with those of its writer");
    };
    let own = access.rbac().rules(user, &namespace).await?;
    let missing: Vec<String> = wanted
        .iter()
        .filter(|wanted| !own.iter().any(|own| allows(&own.rule, &wanted.question())))
        .map(Permission::told)
        .take(TOLD_MAX)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    refuse(&format!(
        "{} is attempting to grant RBAC permissions not currently held:\n{}",
        told(user),
        missing.join("\n")
    ))
}

fn told(user: &User) -> String {
    let groups: Vec<String> = user.groups.iter().map(|group| format!("\"{group}\"")).collect();
    format!("user \"{}\" (groups=[{}])", user.name, groups.join(" "))
}

/// One verb on one thing.
struct Permission {
    verb: String,
    group: String,
    resource: String,
    name: String,
    path: Option<String>,
}

impl Permission {
    fn question(&self) -> Question<'_> {
        Question {
            verb: &self.verb,
            group: &self.group,
            resource: self.resource.clone(),
            name: &self.name,
            path: self.path.as_deref(),
            ..Question::default()
        }
    }

    fn told(&self) -> String {
        let Permission {
            verb,
            group,
            resource,
            name,
            path,
        } = self;
        match path {
            Some(path) => format!("{{NonResourceURLs:[\"{path}\"], Verbs:[\"{verb}\"]}}"),
            None if name.is_empty() => {
                format!("{{APIGroups:[\"{group}\"], Resources:[\"{resource}\"], Verbs:[\"{verb}\"]}}")
            }
            None => format!(
                "{{APIGroups:[\"{group}\"], Resources:[\"{resource}\"], ResourceNames:[\"{name}\"], Verbs:[\"{verb}\"]}}"
            ),
        }
    }
}

/// Rules one by one; `None` when there are too many.
fn permissions(rules: &Value) -> Option<Vec<Permission>> {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut out = Vec::new();
    let mut add = |permission| {
        out.push(permission);
        (out.len() <= PERMISSIONS_MAX).then_some(())
    };
    for rule in rules.as_array().into_iter().flatten() {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for verb in texts(&rule["verbs"]) {
            for path in texts(&rule["nonResourceURLs"]) {
                add(Permission {
                    verb: verb.clone(),
                    group: String::new(),
                    resource: String::new(),
                    name: String::new(),
                    path: Some(path),
                })?;
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for name in &names {
                        add(Permission {
                            verb: verb.clone(),
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                            path: None,
                        })?;
                    }
                }
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn covered(own: &Value, wanted: &Value) -> bool {
        let wanted = permissions(&json!([wanted])).unwrap();
        wanted.iter().all(|wanted| allows(own, &wanted.question()))
    }

    #[test]
    fn what_one_has_and_what_one_grants() {
        let rule = |verbs: &[&str], resources: &[&str], names: &[&str]| json!({"apiGroups": [""], "verbs": verbs, "resources": resources, "resourceNames": names});
        let own = rule(&["get", "list"], &["pods", "pods/log"], &[]);
        assert!(covered(&own, &rule(&["get"], &["pods"], &[])));
        assert!(covered(&own, &rule(&["get", "list"], &["pods/log"], &["p"])));
        assert!(!covered(&own, &rule(&["*"], &["pods"], &[])));
        assert!(!covered(&own, &rule(&["get"], &["*"], &[])));
        assert!(!covered(&own, &rule(&["get"], &["secrets"], &[])));
        let named = rule(&["*"], &["*"], &["p"]);
        assert!(covered(&named, &rule(&["*"], &["pods"], &["p"])));
        assert!(!covered(&named, &rule(&["get"], &["pods"], &[])));
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]});
        assert!(covered(
            &paths,
            &json!({"verbs": ["get"], "nonResourceURLs": ["/api/v1"]})
        ));
        assert!(!covered(
            &paths,
            &json!({"verbs": ["get"], "nonResourceURLs": ["*"]})
        ));
    }

    #[test]
    fn rules_that_multiply_are_not_followed() {
        let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let rule = json!([{"apiGroups": [""], "verbs": many, "resources": many}]);
        assert!(permissions(&rule).is_none());
    }
}
