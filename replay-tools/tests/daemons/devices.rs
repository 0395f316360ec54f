//! Devices by kubectl: what a user applies and patches reaches a device behind real daemons, and what the device says is
//! seen where the user looks. `LEDGE_KUBECTL` names the program; without it a line says that it was skipped,
//! or the test fails where `CI` or `LEDGE_REQUIRE_KUBERNETES` is set.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ledge::quickstart::probe;
use ledge::quickstart::relay::Relay;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::programs;
use crate::support::place::Place;

const SETPOINT: &str = "alarm_threshold";
const SOON: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// kubectl, for the API of a cloudcore.
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    fn of(place: &Place) -> Option<Kubectl> {
        let [program] = programs::or_skip("devices by kubectl", ["LEDGE_KUBECTL"])?;
        Some(Kubectl {
            program,
            kubeconfig: place.site.cloud_dir().join("kubeconfig"),
            home: place.path("home"),
        })
    }

    async fn run(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.program)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(said + &String::from_utf8_lossy(&output.stderr))
        }
    }

    async fn ok(&self, args: &[&str]) -> String {
        self.run(args)
            .await
            .unwrap_or_else(|err| panic!("kubectl {args:?}: {err}"))
    }

    /// Looks at an object in the namespace `dev` until `good` says so.
    async fn sees(&self, kind: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let found = self
                .run(&["get", kind, "boiler", "-n", "dev", "-o", "json"])
                .await;
            let object: Value = found
                .as_deref()
                .map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
            if good(&object) {
                return object;
            }
            assert!(began.elapsed() < SOON, "waited for {what}: {found:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn twin<'a>(status: &'a Value, property: &str, part: &str) -> Option<&'a str> {
    let twins = status["status"]["twins"].as_array()?;
    let twin = twins.iter().find(|twin| twin["propertyName"] == property)?;
    twin[part]["value"].as_str()
}

fn condition<'a>(device: &'a Value, kind: &str) -> &'a Value {
    let all = device["status"]["conditions"].as_array();
    let mut all = all.into_iter().flatten();
    all.find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// The manifests of a site, for another way than its directory: removed from there, in the namespace `dev`.
fn taken_out(place: &Place, device: SocketAddr) -> Vec<String> {
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
    let Some(kubectl) = Kubectl::of(&place) else {
        return;
    };
    let (_simulator, device) = place.site.start_device().await.unwrap();
    let files = taken_out(&place, device);
    let cloud = place.start_cloud().await;
    kubectl.ok(&["create", "namespace", "dev"]).await;
    for file in &files {
        kubectl.ok(&["apply", "-f", file]).await;
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
        .sees("devicestatus", "the device as it is", as_wished("30"))
        .await;
    assert!(twin(&status, "temperature", "reported").is_some(), "{status:#}");
    let ready = |device: &Value| condition(device, "Ready")["status"] == "True";
    kubectl.sees("device", "the device is ready", ready).await;
    let table = kubectl.ok(&["get", "devices", "-A"]).await;
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
        json!([{"op": "replace", "path": "/spec/properties/1/desired/value", "value": value}]).to_string()
    };
    let patch = wish("35.5");
    kubectl
        .ok(&[
            "patch",
            "device",
            "boiler",
            "-n",
            "dev",
            "--type=json",
            "-p",
            &patch,
        ])
        .await;
    place.edge_writes(device, 355).await;
    kubectl
        .sees("devicestatus", "the wish carried out", as_wished("35.5"))
        .await;

    // Without a link the wish waits, the device is what it was, and the user sees that this is old.
    relay.cut();
    let lost = |device: &Value| {
        condition(device, "Ready")["reason"] == "NodeUnreachable"
            && device["status"]["behindSince"].is_string()
    };
    kubectl.sees("device", "the link is lost", lost).await;
    let patch = wish("40");
    kubectl
        .ok(&[
            "patch",
            "device",
            "boiler",
            "-n",
            "dev",
            "--type=json",
            "-p",
            &patch,
        ])
        .await;
    assert_eq!(
        probe::read_register(device, place.site.registers().setpoint)
            .await
            .unwrap(),
        355
    );
    relay.restore();
    place.edge_writes(device, 400).await;
    kubectl
        .sees("devicestatus", "the wish of meanwhile", as_wished("40"))
        .await;
    kubectl
        .sees("device", "the link is back", |device| {
            ready(device) && device["status"].get("behindSince").is_none()
        })
        .await;

    // And the device is taken away.
    kubectl
        .ok(&["delete", "device", "boiler", "-n", "dev", "--wait=true"])
        .await;
    kubectl
        .sees("devicestatus", "its status is gone with it", Value::is_null)
        .await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}
