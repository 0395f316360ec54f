//! A real cluster's API server instead of the embedded API: cloudcore as a user with the rights of `docs/cloudcore-rbac.yaml`
//! and no others, a real edgecore with its device, and kubectl on both ends.

use std::path::Path;

use ledge::quickstart::relay::Relay;
use ledge::quickstart::site::address;
use serde_json::Value;

use super::devices::taken_out;
use crate::support::cluster::Cluster;
use crate::support::kubectl::{condition, twin};
use crate::support::place::{ANY, Place, with};

const WHAT: &str = "cloudcore in a real cluster";
const SETPOINT: &str = "alarm_threshold";
const HALL: &str = include_str!("hall.yaml");
const EVENT: &str = "apiVersion: v1\nkind: Event\nmetadata: {name: web.pulled, namespace: dev}\nreason: Pulled\nmessage: the image is here\n\
     type: Normal\ninvolvedObject: {apiVersion: v1, kind: Pod, namespace: dev, name: web}\n";

#[tokio::test]
async fn cloudcore_works_with_the_rights_that_are_documented() {
    let place = Place::new().await;
    let Some((cluster, admin)) = Cluster::start(WHAT, &place.path("")).await else {
        return;
    };
    admin.ok("create namespace ledge").await;
    admin.ok("create serviceaccount cloudcore -n ledge").await;
    let token = admin.ok("create token cloudcore -n ledge").await;
    let kubeconfig = cluster.kubeconfig("cloudcore", token.trim());
    let (_simulator, device) = place.site.start_device().await.unwrap();
    let files = taken_out(&place, device);
    let launch = with(
        place.site.cloudcore(ANY).unwrap(),
        &[("--kubeconfig", &kubeconfig)],
    );
    let cloud = launch.start().await.unwrap();

    // Without rights it says what it is refused, and tries again: then it makes its definitions itself.
    place
        .cloud_says(&["the API server refuses the definition", "is forbidden"])
        .await;
    let rights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cloudcore-rbac.yaml");
    admin.ok(&format!("apply -f {}", rights.display())).await;
    admin
        .until(
            "the definitions",
            "wait --for=condition=Established --timeout=60s crd/devices.devices.kubeedge.io \
             crd/devicemodels.devices.kubeedge.io crd/nodegroups.apps.kubeedge.io crd/edgeapplications.apps.kubeedge.io",
            |ran| ran.ok,
        )
        .await;
    let beginning = cluster.audited();
    admin.ok("create namespace dev").await;
    for file in &files {
        admin.ok(&format!("apply -f {file}")).await;
    }
    admin.feed("apply -f -", HALL).await;

    // All of it was there before the node.
    let relay = Relay::start(address(&cloud, "edges on ").unwrap()).await.unwrap();
    let edge = place.start_edge(relay.address()).await;
    place.edge_writes(device, 300).await;
    let as_wished = |wish: &'static str| {
        move |status: &Value| {
            twin(status, SETPOINT, "observedDesired") == Some(wish)
                && twin(status, SETPOINT, "reported") == Some(wish)
        }
    };
    let status = "devicestatus boiler -n dev";
    admin.sees("the device as it is", status, as_wished("30")).await;
    let patch = r#"[{"op":"replace","path":"/spec/properties/1/desired/value","value":"35.5"}]"#;
    admin
        .ok(&format!("patch device boiler -n dev --type=json -p {patch}"))
        .await;
    place.edge_writes(device, 355).await;
    admin
        .sees("the wish carried out", status, as_wished("35.5"))
        .await;

    // The node, its group, and the application in it.
    let ready = |wanted: &'static str| move |node: &Value| condition(node, "Ready")["status"] == wanted;
    admin.sees("the node", "node edge-1", ready("True")).await;
    admin
        .sees("the group", "nodegroup hall", |group| {
            group["status"]["nodeStatuses"][0]["readyStatus"] == "Ready"
        })
        .await;
    for made in ["deployment shop-hall -n dev", "configmap shop -n dev"] {
        admin.sees(made, made, Value::is_object).await;
    }
    admin.ok("delete edgeapplication shop -n dev --wait=false").await;
    admin.ok("delete nodegroup hall").await;
    admin
        .sees("the label to go", "node edge-1", |node| {
            node["metadata"]["labels"]["apps.kubeedge.io/belonging-to"].is_null()
        })
        .await;

    // On the node: its pod, what the pod refers to, and what comes up again.
    let node = admin.at(address(&edge, "MetaServer on ").unwrap());
    node.sees("the pod", "pod web -n dev", Value::is_object).await;
    assert_eq!(
        node.ok("get cm settings -n dev -o jsonpath={.data.key}").await,
        "one"
    );
    let running = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    node.ok(&format!(
        "patch pod web -n dev --subresource=status --type=merge -p {running}"
    ))
    .await;
    admin
        .sees("the status", "pod web -n dev", |pod| {
            pod["status"]["phase"] == "Running"
        })
        .await;
    node.feed("create -f -", EVENT).await;
    admin
        .until("the event", "get events -n dev", |ran| {
            ran.out.contains("the image is here")
        })
        .await;
    node.ok("label node edge-1 floor=2").await;
    admin
        .sees("the label", "node edge-1", |node| {
            node["metadata"]["labels"]["floor"] == "2"
        })
        .await;
    let complaint = node.refused("label cm settings -n dev color=red").await;
    assert!(
        complaint.contains("(Forbidden)") && complaint.contains("system:node:edge-1"),
        "{complaint}"
    );
    assert_eq!(node.ok("auth can-i get pod/web -n dev").await.trim(), "yes");
    let complaint = node.refused("get cronjobs -n dev").await;
    assert!(complaint.contains("(Forbidden)"), "{complaint}");
    node.ok("delete pod web -n dev --wait=false").await;
    let ended = r#"{"status":{"phase":"Succeeded"}}"#;
    node.ok(&format!(
        "patch pod web -n dev --subresource=status --type=merge -p {ended}"
    ))
    .await;
    admin
        .until("the pod to go", "get pod web -n dev", |ran| {
            ran.err.contains("NotFound")
        })
        .await;

    // A link that is lost and comes back.
    relay.cut();
    admin.sees("the node away", "node edge-1", ready("Unknown")).await;
    relay.restore();
    admin.sees("the node back", "node edge-1", ready("True")).await;
    admin.ok("delete device boiler -n dev").await;

    let refused = cluster.refused_to("system:serviceaccount:ledge:cloudcore", beginning);
    assert!(refused.is_empty(), "{refused:#?}");
    edge.stop().await.unwrap();
    cloud.stop().await.unwrap();
    place.assert_sound();
}
