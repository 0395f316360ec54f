//! Commands whose objects kubectl makes itself (and sends in Kubernetes' protobuf encoding), and those that go on after an
//! answer: edit, wait, rollout, explain.

use crate::place::Place;

#[tokio::test(flavor = "multi_thread")]
async fn objects_made_by_kubectl_itself() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            place.ok(&["create", "namespace", "dev"]).await;
            let made = place
                .ok(&["create", "configmap", "c", "-n", "dev", "--from-literal=a=b", "--from-literal=e="])
                .await;
            assert_eq!(made.trim(), "configmap/c created");
            let data = place
                .ok(&["get", "cm", "c", "-n", "dev", "-o", "jsonpath={.data}"])
                .await;
            assert_eq!(data, r#"{"a":"b","e":""}"#);
            place
                .ok(&["create", "secret", "generic", "s", "--from-literal=k=v"])
                .await;
            let kept = ["get", "secret", "s", "-o", "jsonpath={.data.k} {.type}"];
            assert_eq!(place.ok(&kept).await, "dg== Opaque");
            place
                .ok(&["create", "deployment", "web", "--image=nginx:1", "--replicas=2", "--port=80"])
                .await;
            let path = "jsonpath={.spec.replicas} {.spec.selector.matchLabels.app} {.spec.strategy.type} \
                        {.spec.template.spec.containers[0].ports[0].containerPort} {.metadata.managedFields[0].manager}";
            assert_eq!(
                place.ok(&["get", "deployment", "web", "-o", path]).await,
                "2 web RollingUpdate 80 kubectl-create"
            );
            place.ok(&["create", "serviceaccount", "robot"]).await;
            place
                .ok(&["create", "role", "r", "--verb=get,list", "--resource=configmaps"])
                .await;
            place
                .ok(&["create", "rolebinding", "b", "--role=r", "--serviceaccount=default:robot"])
                .await;
            place
                .ok(&["create", "service", "clusterip", "web", "--tcp=80:8080"])
                .await;
            place
                .ok(&["create", "job", "j", "--image=busybox", "--", "true"])
                .await;
            place
                .ok(&["create", "cronjob", "cj", "--image=busybox", "--schedule=*/5 * * * *", "--", "true"])
                .await;
            place.ok(&["run", "pod", "--image=nginx:1"]).await;
            place.ok(&["expose", "deployment", "web", "--name=web2"]).await;
            let again = place.run(&["create", "namespace", "dev"]).await;
            assert_eq!(
                again.err.trim(),
                "Error from server (AlreadyExists): namespaces \"dev\" already exists"
            );
            let strict = place
                .run(&["create", "configmap", "UPPER", "--from-literal=a=b"])
                .await;
            assert!(strict.err.contains("a lowercase RFC 1123 subdomain"), "{strict:?}");

            let token = place
                .ok(&["create", "token", "robot", "--duration=20m"])
                .await;
            assert_eq!(token.trim().split('.').count(), 3, "{token}");
            let robot = "--as=system:serviceaccount:default:robot";
            assert_eq!(place.ok(&["auth", "can-i", "get", "configmaps", robot]).await.trim(), "yes");
            let no = place.run(&["auth", "can-i", "delete", "configmaps", robot]).await;
            assert_eq!((no.code, no.out.trim()), (1, "no"), "{no:?}");
            assert_eq!(place.ok(&["auth", "can-i", "*", "*"]).await.trim(), "yes");
            let list = place.ok(&["auth", "can-i", "--list", robot]).await;
            assert!(list.contains("configmaps"), "{list}");
            let who = place.ok(&["auth", "whoami", robot]).await;
            assert!(who.contains("system:serviceaccount:default:robot"), "{who}");
        })
        .await;
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: 'nginx:1'}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_not_known_is_told_as_upstream_tells_it() {
    let Some(place) = Place::new() else { return };
    place
        .serve(async {
            let file = place.file(
                "gadget.yaml",
                "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: g}\n",
            );
            let ran = place.run(&["apply", "-f", &file]).await;
            assert_eq!(ran.code, 1);
            let told = r#"no matches for kind "Gadget" in version "example.com/v1""#;
            assert!(ran.err.contains(told), "{}", ran.err);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_rollout_wait_and_explain() {
    let Some(place) = Place::new() else { return };
    let file = place.file("web.yaml", WEB);
    place
        .serve(async {
            place.ok(&["apply", "-f", &file]).await;
            let mut edit = place.command(&["edit", "deployment", "web"]);
            let edited = edit
                .env("KUBE_EDITOR", "sed -i 's/nginx:1/nginx:2/'")
                .output()
                .await
                .unwrap();
            assert!(edited.status.success(), "{edited:?}");
            let image = "jsonpath={.spec.template.spec.containers[0].image} {.metadata.generation}";
            let web = "deployment/web";
            assert_eq!(place.ok(&["get", web, "-o", image]).await, "nginx:2 2");

            let early = place.run(&["rollout", "status", web, "--timeout=1s"]).await;
            assert_ne!(early.code, 0, "{early:?}");
            let status = r#"{"status":{"observedGeneration":2,"replicas":2,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2,
                "conditions":[{"type":"Available","status":"True","reason":"MinimumReplicasAvailable","message":""}]}}"#;
            let wait = ["wait", "--for=condition=Available", web, "--timeout=60s"];
            let waiting = place.run(&wait);
            let patch = ["patch", web, "--subresource=status", "--type=merge", "-p", status];
            let (waited, _) = tokio::join!(waiting, place.ok(&patch));
            assert_eq!(waited.code, 0, "{waited:?}");
            let rolled = place.ok(&["rollout", "status", web, "--timeout=60s"]).await;
            assert!(rolled.contains("successfully rolled out"), "{rolled}");
            place.ok(&["rollout", "restart", web]).await;
            place.ok(&["set", "image", web, "c=nginx:3"]).await;
            assert!(place.ok(&["get", web, "-o", image]).await.starts_with("nginx:3"));
            place.ok(&["annotate", web, "a=b"]).await;
            place.ok(&["label", web, "a=b"]).await;

            let told = place.ok(&["explain", "deployment.spec.replicas"]).await;
            assert!(told.contains("<integer>"), "{told}");
            let kinds = place.ok(&["api-resources", "-o", "name"]).await;
            for kind in ["pods", "deployments.apps", "leases.coordination.k8s.io", "events.events.k8s.io"] {
                assert!(kinds.lines().any(|line| line == kind), "{kind}: {kinds}");
            }
            let versions = place.ok(&["api-versions"]).await;
            assert!(versions.lines().any(|line| line == "apps/v1"), "{versions}");

            let changed = place.file("changed.yaml", &WEB.replace("replicas: 2", "replicas: 5"));
            let differs = place.run(&["diff", "-f", &changed]).await;
            assert_eq!(differs.code, 1, "{differs:?}");
            assert!(differs.out.contains("+  replicas: 5"), "{differs:?}");
            let dry = place.ok(&["apply", "--dry-run=server", "-f", &changed]).await;
            assert!(dry.contains("configured (server dry run)"), "{dry}");
            place.ok(&["replace", "-f", &file]).await;
            place.ok(&["delete", "-f", &file, "--wait=true", "--timeout=20s"]).await;
        })
        .await;
}
