//! Who may do what: impersonation, service accounts' tokens, reviews, nodes.

use serde_json::{Value, json};

use crate::place::{Place, Ran};

const ACCOUNT: &str = "---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: default}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: robot-reads, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: robot, namespace: default}]
";

const NODE: &str = "---
{apiVersion: v1, kind: Node, metadata: {name: n1}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}}
---
{apiVersion: v1, kind: Secret, metadata: {name: used}}
---
{apiVersion: v1, kind: Secret, metadata: {name: unused}}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: n1
  containers: [{name: c, image: i, env: [{name: E, valueFrom: {secretKeyRef: {name: used, key: k}}}]}]
";

impl Place {
    /// Posts an object as it is, and gives the answer.
    pub(crate) async fn post(&self, path: &str, object: &Value, more: &[&str]) -> Result<Value, Ran> {
        let file = self.file("post.json", &object.to_string());
        let mut args = vec!["create", "--raw", path, "-f", &file];
        args.extend_from_slice(more);
        let ran = self.run(&args).await;
        if ran.code == 0 {
            Ok(serde_json::from_str(&ran.out).unwrap())
        } else {
            Err(ran)
        }
    }
}

const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/robot/token";

/// kubectl insists on credentials of some form: the API knows no passwords.
const NOBODY: [&str; 2] = ["--username=x", "--password=y"];

fn token_request(spec: Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

fn review(token: &str) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}})
}

/// A kubeconfig without a certificate of its own, for requests with a token.
fn without_certificate(place: &Place) -> String {
    let config = std::fs::read_to_string(place.dir.path().join("kubeconfig")).unwrap();
    let lines = config.lines().filter(|line| !line.contains("client-"));
    let text: Vec<&str> = lines.collect();
    place.file(
        "plain.kubeconfig",
        &text.join("\n").replace("  user:\n", "  user: {}\n"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_acts_with_its_token() {
    let Some(place) = Place::new() else { return };
    let account = place.file("account.yaml", ACCOUNT);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let token = place
        .serve(async {
            place.ok(&["apply", "-f", &account]).await;
            let made = place.post(TOKEN, &token_request(json!({})), &[]).await.unwrap();
            assert_eq!(made["spec"]["expirationSeconds"], 3600);
            let token = made["status"]["token"].as_str().unwrap().to_owned();
            let told = place.post(reviews, &review(&token), &[]).await.unwrap();
            assert_eq!(told["status"]["authenticated"], true);
            assert_eq!(
                told["status"]["user"]["username"],
                "system:serviceaccount:default:robot"
            );
            let short = place
                .post(TOKEN, &token_request(json!({"expirationSeconds": 5})), &[])
                .await;
            let short = short.unwrap_err();
            assert!(
                short
                    .err
                    .contains("may not specify a duration less than 10 minutes"),
                "{short:?}"
            );
            token
        })
        .await;
    // Over a restart the key is the same one.
    place
        .serve(async {
            let config = without_certificate(&place);
            let as_robot = |args: &'static [&'static str]| {
                let all = [args, &["--kubeconfig", &config, "--token", &token]].concat();
                let place = &place;
                async move { place.run(&all).await }
            };
            let listed = as_robot(&["get", "configmaps"]).await;
            assert_eq!(listed.code, 0, "{listed:?}");
            let refused = as_robot(&["get", "secrets"]).await;
            assert_eq!(
                refused.err.trim(),
                "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:default:robot\" \
                 cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
            );
            place.ok(&["delete", "serviceaccount", "robot"]).await;
            let gone = as_robot(&["get", "configmaps"]).await;
            assert!(gone.err.contains("Unauthorized"), "{gone:?}");
            let told = place.post(reviews, &review(&token), &[]).await.unwrap();
            let why = "[invalid bearer token, serviceaccounts \"robot\" not found]";
            assert_eq!(told["status"]["error"], why);
            let told = place.post(reviews, &review("abc"), &[]).await.unwrap();
            assert_eq!(told["status"], json!({"user": {}, "error": "invalid bearer token"}));
            // Nobody at all sees versions, and no objects.
            let anonymous = place.run(&[&["get", "--raw", "/version", "--kubeconfig", &config][..], &NOBODY].concat()).await;
            assert_eq!(anonymous.code, 0, "{anonymous:?}");
            let anonymous = place.run(&[&["get", "--raw", "/api/v1/pods", "--kubeconfig", &config][..], &NOBODY].concat()).await;
            assert!(anonymous.err.contains("system:anonymous"), "{anonymous:?}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_somebody_else() {
    let Some(place) = Place::new() else { return };
    let account = place.file("account.yaml", ACCOUNT);
    place
        .serve(async {
            place.ok(&["apply", "-f", &account]).await;
            let robot = "--as=system:serviceaccount:default:robot";
            place.ok(&["get", "configmaps", robot]).await;
            let refused = place.run(&["get", "nodes", robot]).await;
            assert!(
                refused.err.contains("cannot list resource \"nodes\""),
                "{refused:?}"
            );
            place
                .ok(&["get", "nodes", "--as=bob", "--as-group=system:masters"])
                .await;
            // Who may not act as others is told so: bob acts as robot, who wants to act as nobody else.
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"verb": "impersonate", "resource": "users", "name": "bob"}},
            });
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let told = place.post(path, &review, &[robot]).await.unwrap();
            assert_eq!(told["status"], json!({"allowed": false}));
            let told = place.post(path, &review, &[]).await.unwrap();
            assert_eq!(told["status"], json!({"allowed": true}));
            let senseless = place.run(&["get", "nodes", "--as-group=x"]).await;
            assert_eq!(senseless.code, 1, "{senseless:?}");
            let whoami = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
            let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
            let more = ["--as=bob", "--as-uid=7", "--as-group=g"];
            let told = place.post(path, &whoami, &more).await.unwrap();
            assert_eq!(
                told["status"]["userInfo"],
                json!({"username": "bob", "uid": "7", "groups": ["g", "system:authenticated"]})
            );
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_tell_who_may_what_and_why() {
    let Some(place) = Place::new() else { return };
    let account = place.file("account.yaml", ACCOUNT);
    place
        .serve(async {
            place.ok(&["apply", "-f", &account]).await;
            let kind = |kind: &str, spec: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
            let ask = json!({
                "user": "system:serviceaccount:default:robot",
                "resourceAttributes": {"verb": "get", "resource": "configmaps", "namespace": "default"},
            });
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let told = place.post(path, &kind("SubjectAccessReview", ask.clone()), &[]).await.unwrap();
            assert_eq!(
                told["status"],
                json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"robot-reads/default\" of Role \"reader\" to ServiceAccount \"robot/default\""})
            );
            let local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
            let told = place.post(local, &kind("LocalSubjectAccessReview", ask.clone()), &[]).await.unwrap();
            assert_eq!(told["status"]["allowed"], true);
            let elsewhere = local.replace("default", "kube-system");
            let refused = place.post(&elsewhere, &kind("LocalSubjectAccessReview", ask), &[]).await.unwrap_err();
            assert!(refused.err.contains("must match metadata.namespace"), "{refused:?}");
            let refused = place.post(path, &kind("SubjectAccessReview", json!({})), &[]).await.unwrap_err();
            assert!(refused.err.contains("at least one of user or group must be specified"), "{refused:?}");
            let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
            let ask = kind("SelfSubjectRulesReview", json!({"namespace": "default"}));
            let told = place.post(rules, &ask, &["--as=system:serviceaccount:default:robot"]).await.unwrap();
            let list = told["status"]["resourceRules"].as_array().unwrap();
            assert!(list.iter().any(|rule| rule["resources"] == json!(["configmaps"])), "{told}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sees_what_concerns_it() {
    let Some(place) = Place::new() else { return };
    let objects = place.file("node.yaml", NODE);
    place
        .serve(async {
            place.ok(&["apply", "-f", &objects]).await;
            let node = ["--as=system:node:n1", "--as-group=system:nodes"];
            let run = |args: &'static [&'static str]| {
                let all = [args, &node].concat();
                let place = &place;
                async move { place.run(&all).await }
            };
            for allowed in [
                &["get", "node", "n1"][..],
                &["get", "pods", "-A", "--field-selector=spec.nodeName=n1"],
                &["get", "secret", "used"],
                &["get", "services", "-A"],
                &["label", "node", "n1", "example.com/a=b"],
            ] {
                let ran = run(allowed).await;
                assert_eq!(ran.code, 0, "{allowed:?}: {ran:?}");
            }
            for (refused, why) in [
                (
                    &["get", "node", "n2"][..],
                    "node 'n1' cannot read 'n2', only its own Node object",
                ),
                (
                    &["get", "pods"],
                    "can only list/watch pods with spec.nodeName field selector",
                ),
                (
                    &["get", "secret", "unused"],
                    "no relationship found between node 'n1' and this object",
                ),
                (&["get", "secrets"], "No Object name found"),
                (&["get", "deployments"], "cannot list resource \"deployments\""),
                (
                    &["label", "node", "n1", "kubernetes.io/foo=b"],
                    "is not allowed to modify labels: kubernetes.io/foo",
                ),
                (&["delete", "node", "n1"], "cannot delete resource \"nodes\""),
            ] {
                let ran = run(refused).await;
                assert_eq!(ran.code, 1, "{refused:?}: {ran:?}");
                assert!(ran.err.contains(why), "{refused:?}: {ran:?}");
            }
        })
        .await;
}
