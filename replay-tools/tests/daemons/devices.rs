//! Devices by kubectl: what a user applies and patches reaches a device behind real daemons, and what the device says is
//! seen where the user looks. `LEDGE_KUBECTL` names the program; without it a line says that it was skipped,
//! or the test fails where `CI` or `LEDGE_REQUIRE_KUBERNETES` is set.

use std::net::SocketAddr;

use ledge::quickstart::probe;
use ledge::quickstart::relay::Relay;
use serde_json::{Value, json};

use crate::support::kubectl::{Kubectl, condition, twin};
use crate::support::place::Place;

const SETPOINT: &str = "alarm_threshold";

/// The manifests of a site, for another way than its directory: removed from there, in the namespace `dev`.
pub(super) fn taken_out(place: &Place, device: SocketAddr) -> Vec<String> {
    place.site.write_manifests(device, 30.0).unwrap();
    let take = |name: &str| {
        let path = place.path("manifests").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let out = place.path(name);
        std::fs::write(&out, text.replace("namespace: default", "namespace: dev")).unwrap();
        out.to_str().unwrap().to_owned()
    };
    // The device first: its model comes later.
    vec![take("device.yaml"), take("model.yaml")]
}

#[tokio::test]
async fn a_wish_by_kubectl_reaches_the_device_and_is_seen_again() {
    let place = Place::new().await;
    let kubeconfig = place.site.cloud_dir().join("kubeconfig");
    let Some(kubectl) = Kubectl::new("devices by kubectl", &kubeconfig, &place.path("")) else {
        return;
    };
    let (_simulator, device) = place.site.start_device().await.unwrap();
    let files = taken_out(&place, device);
    let cloud = place.start_cloud().await;
    kubectl.ok("create namespace dev").await;
    for file in &files {
        kubectl.ok(&format!("apply -f {file}")).await;
    }
    // All of it was written before the node ever connected.
    let relay = Relay::start(cloud.hub).await.unwrap();
    let edge = place.start_edge(relay.address()).await;
    place.edge_writes(device, 300).await;
    let as_wished = |wish: &'static str| {
        move |status: &Value| {
            twin(status, SETPOINT, "observedDesired") == Some(wish)
                && twin(status, SETPOINT, "reported") == Some(wish)
        }
    };
    let status = kubectl
        .sees(
            "the device as it is",
            "devicestatus boiler -n dev",
            as_wished("30"),
        )
        .await;
    assert!(twin(&status, "temperature", "reported").is_some(), "{status:#}");
    let ready = |device: &Value| condition(device, "Ready")["status"] == "True";
    kubectl
        .sees("the device is ready", "device boiler -n dev", ready)
        .await;
    let table = kubectl.ok("get devices -A").await;
    let (head, row) = table.split_once('\n').unwrap();
    let columns: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(
        columns,
        [
            "NAMESPACE",
            "NAME",
            "NODE",
            "MODEL",
            "STATE",
            "LAG",
            "REPORTED",
            "AGE"
        ]
    );
    assert!(row.contains("boiler-model") && row.contains("online"), "{table}");

    // The user wishes for another value.
    let wish = |value: &str| {
        let patch = json!([{"op": "replace", "path": "/spec/properties/1/desired/value", "value": value}]);
        format!("patch device boiler -n dev --type=json -p {patch}")
    };
    kubectl.ok(&wish("35.5")).await;
    place.edge_writes(device, 355).await;
    kubectl
        .sees(
            "the wish carried out",
            "devicestatus boiler -n dev",
            as_wished("35.5"),
        )
        .await;

    // Without a link the wish waits, the device is what it was, and the user sees that this is old.
    relay.cut();
    let lost = |device: &Value| {
        condition(device, "Ready")["reason"] == "NodeUnreachable"
            && device["status"]["behindSince"].is_string()
    };
    kubectl
        .sees("the link is lost", "device boiler -n dev", lost)
        .await;
    kubectl.ok(&wish("40")).await;
    assert_eq!(
        probe::read_register(device, place.site.registers().setpoint)
            .await
            .unwrap(),
        355
    );
    relay.restore();
    place.edge_writes(device, 400).await;
    kubectl
        .sees(
            "the wish of meanwhile",
            "devicestatus boiler -n dev",
            as_wished("40"),
        )
        .await;
    kubectl
        .sees("the link is back", "device boiler -n dev", |device| {
            ready(device) && device["status"].get("behindSince").is_none()
        })
        .await;

    // And the device is taken away.
    kubectl.ok("delete device boiler -n dev --wait=true").await;
    kubectl
        .sees(
            "its status is gone with it",
            "devicestatus boiler -n dev",
            Value::is_null,
        )
        .await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}
