//! What is there from the beginning: namespaces, roles, and the definitions of Ledge's kinds.

use ledge_kubeapi::serve::Api;
use ledge_kubeapi::serve::request::{self, Method, Request};
use ledge_kubeapi::serve::respond::Body;
use serde_json::{Value, json};

/// Why the beginning failed.
#[derive(Debug, thiserror::Error)]
#[error("the Kubernetes API cannot make {what}: {why}")]
pub struct BootstrapError {
    what: String,
    why: String,
}

/// Makes what is not there yet, and brings definitions up to this version.
///
/// # Errors
/// When something is refused or cannot be stored.
pub async fn run(api: &Api, definitions: &[Value]) -> Result<(), BootstrapError> {
    for name in [
        "default",
        "kube-system",
        "kube-public",
        "kube-node-lease",
        "kubeedge",
    ] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(api, "/api/v1/namespaces", &namespace).await?;
    }
    for (kind, plural, objects) in roles() {
        for mut object in objects {
            object["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
            object["kind"] = kind.into();
            create(
                api,
                &format!("/apis/rbac.authorization.k8s.io/v1/{plural}"),
                &object,
            )
            .await?;
        }
    }
    for definition in definitions {
        apply(
            api,
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            definition,
        )
        .await?;
    }
    Ok(())
}

/// Upstream's default roles, as far as something here is for them.
fn roles() -> [(&'static str, &'static str, Vec<Value>); 2] {
    let everything = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let discovery = json!([{
        "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"],
        "verbs": ["get"],
    }]);
    let public = json!([{
        "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"],
        "verbs": ["get"],
    }]);
    let oneself = json!([
        {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
    ]);
    let view = json!([{
        "apiGroups": ["", "apps", "batch", "discovery.k8s.io", "devices.kubeedge.io", "apps.kubeedge.io", "rules.kubeedge.io"],
        "resources": ["*"],
        "verbs": ["get", "list", "watch"],
    }]);
    let role = |name: &str, rules: &Value| json!({"metadata": {"name": name}, "rules": rules});
    let binding = |role: &str, groups: &[&str]| {
        let subjects = groups
            .iter()
            .map(|group| json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group}));
        json!({
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": subjects.collect::<Vec<_>>(),
        })
    };
    [
        (
            "ClusterRole",
            "clusterroles",
            vec![
                role("cluster-admin", &everything),
                role("system:discovery", &discovery),
                role("system:public-info-viewer", &public),
                role("system:basic-user", &oneself),
                role("ledge:viewer", &view),
                role("view", &user_facing(User::Viewer)),
                role("edit", &user_facing(User::Editor)),
                role("admin", &user_facing(User::Administrator)),
            ],
        ),
        (
            "ClusterRoleBinding",
            "clusterrolebindings",
            vec![
                binding("cluster-admin", &["system:masters"]),
                binding("system:discovery", &["system:authenticated"]),
                binding(
                    "system:public-info-viewer",
                    &["system:authenticated", "system:unauthenticated"],
                ),
                binding("system:basic-user", &["system:authenticated"]),
            ],
        ),
    ]
}

/// For whom a role of a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum User {
    Viewer,
    Editor,
    Administrator,
}

/// Upstream's roles for people, of the kinds that are served: who views sees no secrets, and only who administers gives rights
/// to others.
fn user_facing(user: User) -> Value {
    const OURS: [&str; 3] = ["devices.kubeedge.io", "apps.kubeedge.io", "rules.kubeedge.io"];
    const READ: [&str; 3] = ["get", "list", "watch"];
    const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
    let core = [
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "serviceaccounts",
        "services",
    ];
    let seen = [
        "namespaces",
        "persistentvolumeclaims/status",
        "pods/log",
        "pods/status",
    ];
    let apps = [
        "daemonsets",
        "deployments",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
        "statefulsets",
        "statefulsets/scale",
    ];
    let (viewed, all) = ([&core[..], &seen].concat(), [&READ[..], &WRITE].concat());
    let mut rules = vec![
        json!({"apiGroups": [""], "resources": viewed, "verbs": READ}),
        json!({"apiGroups": ["apps"], "resources": apps, "verbs": READ}),
        json!({"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": READ}),
        json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ}),
        json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": READ}),
        json!({"apiGroups": OURS, "resources": ["*"], "verbs": READ}),
    ];
    if user >= User::Editor {
        rules.extend([
            json!({"apiGroups": [""], "resources": core, "verbs": WRITE}),
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": all}),
            json!({"apiGroups": [""], "resources": ["pods/eviction", "serviceaccounts/token"], "verbs": ["create"]}),
            json!({"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}),
            json!({"apiGroups": ["apps"], "resources": apps, "verbs": WRITE}),
            json!({"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": WRITE}),
            json!({"apiGroups": OURS, "resources": ["*"], "verbs": WRITE}),
        ]);
    }
    if user == User::Administrator {
        rules.extend([
            json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings", "roles"], "verbs": all}),
            json!({"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]}),
        ]);
    }
    rules.into()
}

async fn create(api: &Api, path: &str, object: &Value) -> Result<(), BootstrapError> {
    match send(api, Method::Post, path, "application/json", object).await {
        (201 | 409, _) => Ok(()),
        (_, why) => Err(failed(path, object, why)),
    }
}

async fn apply(api: &Api, path: &str, object: &Value) -> Result<(), BootstrapError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{path}/{name}");
    match send(api, Method::Patch, &path, "application/apply-patch+yaml", object).await {
        (200 | 201, _) => Ok(()),
        (_, why) => Err(failed(&path, object, why)),
    }
}

fn failed(path: &str, object: &Value, why: String) -> BootstrapError {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    BootstrapError {
        what: format!("{path} {name}"),
        why,
    }
}

/// A request of the server to itself, with all checks a client's would meet.
async fn send(api: &Api, method: Method, path: &str, media: &str, object: &Value) -> (u16, String) {
    let request = Request {
        method,
        path: path.to_owned(),
        query: "fieldManager=cloudcore&force=true&fieldValidation=Strict".to_owned(),
        headers: vec![("content-type".to_owned(), media.to_owned())],
        body: serde_json::to_vec(object).unwrap_or_default().into(),
        user: request::User::new("system:cloudcore", ["system:masters"]),
    };
    let response = api.serve(request).await;
    let told = match response.body {
        Body::Whole(bytes) => {
            let status: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            status["message"].as_str().unwrap_or_default().to_owned()
        }
        Body::Stream(_) => String::new(),
    };
    (response.status, told)
}
