//! Who may do what, by the rbac.authorization.k8s.io objects, as upstream's RBAC authorizer decides.

use std::sync::Arc;

use ledge_kubeapi::resource::GroupResource;
use ledge_kubeapi::serve::request::User;
use ledge_kubeapi::store::{Selection, Store};
use ledge_kubeapi::{ApiError, Object, ObjectKey};
use serde_json::Value;

/// The group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";
/// Members may do everything, whatever the objects say: nobody can lock himself out.
pub const MASTERS: &str = "system:masters";

/// The RBAC authorizer over a store.
pub struct Rbac {
    store: Arc<dyn Store>,
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question<'a> {
    /// Such as `get`.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural name, with the subresource: `pods/log`.
    pub resource: String,
    /// Name of the object; empty when the question is about all.
    pub name: &'a str,
    /// Namespace; empty for the cluster.
    pub namespace: &'a str,
    /// Path, when it is not about a resource.
    pub path: Option<&'a str>,
    /// `fieldSelector`, as in a query.
    pub fields: &'a str,
}

/// A rule with where it holds.
pub struct Granted {
    /// The rule, as in a Role.
    pub rule: Value,
    /// Which binding gave it to whom, in upstream's words.
    pub by: Arc<str>,
}

impl Rbac {
    /// Decides by the objects in `store`.
    pub fn new(store: Arc<dyn Store>) -> Rbac {
        Rbac { store }
    }

    /// What allows `user` to do what is asked, in upstream's words; `None` when no role does.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn granted(&self, user: &User, question: &Question<'_>) -> Result<Option<String>, ApiError> {
        let rules = self.rules(user, question.namespace).await?;
        let found = rules.iter().find(|granted| allows(&granted.rule, question));
        Ok(found.map(|granted| format!("RBAC: allowed by {}", granted.by)))
    }

    /// Every rule that holds for `user` in `namespace` (or in the whole cluster, when it is empty).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn rules(&self, user: &User, namespace: &str) -> Result<Vec<Granted>, ApiError> {
        let mut granted = Vec::new();
        for binding in self.list("clusterrolebindings", None).await? {
            self.collect(user, &binding, "", &mut granted).await?;
        }
        if !namespace.is_empty() {
            for binding in self.list("rolebindings", Some(namespace)).await? {
                self.collect(user, &binding, namespace, &mut granted).await?;
            }
        }
        Ok(granted)
    }

    /// A role.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn role(&self, key: &ObjectKey) -> Result<Value, ApiError> {
        Ok(self.store.get(key).await?.value())
    }

    async fn list(&self, resource: &str, namespace: Option<&str>) -> Result<Vec<Object>, ApiError> {
        let selection = Selection {
            resource: resource_of(resource),
            namespace: namespace.map(str::to_owned),
        };
        Ok(self.store.list(&selection, None, None).await?.objects)
    }

    async fn collect(
        &self,
        user: &User,
        binding: &Object,
        namespace: &str,
        granted: &mut Vec<Granted>,
    ) -> Result<(), ApiError> {
        let binding = binding.value();
        let mut subjects = binding["subjects"].as_array().into_iter().flatten();
        let Some(subject) = subjects.find(|subject| names(subject, user, namespace)) else {
            return Ok(());
        };
        let role = &binding["roleRef"];
        let by: Arc<str> = describe(&binding, subject, namespace).into();
        let (resource, namespace) = match role["kind"].as_str() {
            Some("ClusterRole") => ("clusterroles", ""),
            Some("Role") => ("roles", namespace),
            _ => return Ok(()),
        };
        let key = ObjectKey {
            resource: resource_of(resource),
            namespace: namespace.to_owned(),
            name: role["name"].as_str().unwrap_or_default().to_owned(),
        };
        // A binding may be there before its role: then it grants nothing yet.
        let Ok(role) = self.store.get(&key).await else {
            return Ok(());
        };
        let rules = role.value()["rules"].as_array().cloned().unwrap_or_default();
        granted.extend(rules.into_iter().map(|rule| Granted {
            rule,
            by: Arc::clone(&by),
        }));
        Ok(())
    }
}

fn resource_of(name: &str) -> GroupResource {
    GroupResource {
        group: GROUP.to_owned(),
        resource: name.to_owned(),
    }
}

/// A binding and whom it names, in upstream's words.
fn describe(binding: &Value, subject: &Value, namespace: &str) -> String {
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let role = &binding["roleRef"];
    let role_kind = role["kind"].as_str().unwrap_or_default();
    let bound = match namespace {
        "" => format!("ClusterRoleBinding \"{}\"", name(&binding["metadata"])),
        namespace => format!("RoleBinding \"{}/{namespace}\"", name(&binding["metadata"])),
    };
    let subject_name = match subject["kind"].as_str() {
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(namespace);
            format!("{}/{namespace}", name(subject))
        }
        _ => name(subject),
    };
    let subject_kind = subject["kind"].as_str().unwrap_or_default();
    format!(
        "{bound} of {role_kind} \"{}\" to {subject_kind} \"{subject_name}\"",
        name(role)
    )
}

/// Whether a subject of a binding in `namespace` names `user`.
fn names(subject: &Value, user: &User, namespace: &str) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(namespace);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

/// Whether a rule allows what is asked.
pub(crate) fn allows(rule: &Value, question: &Question<'_>) -> bool {
    let texts = |field: &str| -> Vec<&str> {
        let list = rule[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).collect()
    };
    let has = |field: &str, wanted: &str| texts(field).iter().any(|one| *one == "*" || *one == wanted);
    if !has("verbs", question.verb) {
        return false;
    }
    if let Some(path) = question.path {
        return texts("nonResourceURLs")
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => *allowed == path,
            });
    }
    let names = texts("resourceNames");
    // `*/status` is a subresource of every resource.
    let any_with_sub = question
        .resource
        .split_once('/')
        .map(|(_, sub)| format!("*/{sub}"));
    let resource = has("resources", &question.resource)
        || any_with_sub.is_some_and(|any| texts("resources").contains(&any.as_str()));
    has("apiGroups", question.group) && resource && (names.is_empty() || names.contains(&question.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question<'a>(verb: &'a str, resource: &str, name: &'a str) -> Question<'a> {
        Question {
            verb,
            group: "",
            resource: resource.to_owned(),
            name,
            namespace: "a",
            ..Question::default()
        }
    }

    #[test]
    fn rules() {
        let rule = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/log"]});
        assert!(allows(&rule, &question("get", "pods", "p")));
        assert!(allows(&rule, &question("get", "pods/log", "p")));
        assert!(!allows(&rule, &question("get", "pods/exec", "p")));
        assert!(!allows(&rule, &question("delete", "pods", "p")));
        let named = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["p"]});
        assert!(allows(&named, &question("patch", "secrets", "p")));
        assert!(!allows(&named, &question("list", "secrets", "")));
        let path = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/openapi/*"]});
        let ask = |path| Question {
            path: Some(path),
            ..question("get", "", "")
        };
        assert!(allows(&path, &ask("/openapi/v3")));
        assert!(allows(&path, &ask("/healthz")));
        assert!(!allows(&path, &ask("/metrics")));
    }

    #[test]
    fn subjects() {
        let user = User::new("system:serviceaccount:a:b", ["system:serviceaccounts"]);
        assert!(names(
            &json!({"kind": "ServiceAccount", "name": "b", "namespace": "a"}),
            &user,
            ""
        ));
        assert!(names(&json!({"kind": "ServiceAccount", "name": "b"}), &user, "a"));
        assert!(names(
            &json!({"kind": "Group", "name": "system:serviceaccounts"}),
            &user,
            ""
        ));
        assert!(!names(&json!({"kind": "User", "name": "b"}), &user, ""));
    }
}
