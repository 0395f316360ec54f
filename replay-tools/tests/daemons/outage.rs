//! Devices through an outage, a hundred of them and a few. Once the node is there, and once the link is back, the API shows
//! every one of them as it is, at once: none waits for its report cycle.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ledge::quickstart::probe;
use ledge::quickstart::relay::Relay;
use serde_json::Value;

use crate::support::kubectl::{Kubectl, condition, twin};
use crate::support::place::{Place, until};

/// All devices are one: each reads this register, and multiplies it with its own factor.
const REGISTER: u16 = 11;
/// As long as a report cycle can be for who writes the status.
const REPORT_CYCLE: Duration = Duration::from_secs(60);
/// Whoever waited for the report cycle would come too late for this, counted from when the link is there.
const AT_ONCE: Duration = Duration::from_secs(40);

fn manifests(device: SocketAddr, count: u16) -> String {
    let mut all = "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {name: tank, namespace: dev}\nspec:\n  \
                   protocol: modbus\n  properties: [{name: level, type: INT, accessMode: ReadOnly}]\n"
        .to_owned();
    let (ip, port, cycle) = (device.ip(), device.port(), REPORT_CYCLE.as_millis());
    for number in 0..count {
        let factor = number + 1;
        write!(
            all,
            "---\napiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: tank-{number}, namespace: dev}}\nspec:\n  \
             deviceModelRef: {{name: tank}}\n  nodeName: edge-1\n  protocol:\n    protocolName: modbus\n    \
             configData: {{communicateMode: TCP, ip: {ip}, port: {port}, slaveID: 1}}\n  properties:\n  - name: level\n    \
             collectCycle: 1000\n    reportCycle: {cycle}\n    visitors:\n      protocolName: modbus\n      \
             configData: {{register: HoldingRegister, offset: {REGISTER}, limit: 1, scale: {factor}}}\n"
        )
        .unwrap();
    }
    all
}

/// How many of `count` devices are shown as they are when the register holds `raw`.
fn current(statuses: &Value, count: u16, raw: u32) -> u16 {
    let shown = |number: u16| {
        let name = format!("tank-{number}");
        let all = statuses["items"].as_array()?;
        let status = all
            .iter()
            .find(|status| status["metadata"]["name"] == name.as_str())?;
        twin(status, "level", "reported")
    };
    let right = |number: u16| shown(number) == Some((raw * (u32::from(number) + 1)).to_string().as_str());
    (0..count).map(|number| u16::from(right(number))).sum()
}

async fn statuses(kubectl: &Kubectl) -> Value {
    let text = kubectl.ok("get devicestatuses -n dev -o json").await;
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn after_an_outage_a_hundred_devices_are_shown_as_they_are_now() {
    Box::pin(through_an_outage("a hundred devices through an outage", 100)).await;
}

/// What they have to tell is too little for anything to be sent ahead of it.
#[tokio::test]
async fn after_an_outage_a_few_devices_are_shown_as_they_are_now() {
    Box::pin(through_an_outage("a few devices through an outage", 5)).await;
}

async fn through_an_outage(what: &str, all: u16) {
    let place = Place::new().await;
    let kubeconfig = place.site.cloud_dir().join("kubeconfig");
    let Some(kubectl) = Kubectl::new(what, &kubeconfig, &place.path("")) else {
        return;
    };
    let (_simulator, device) = place.site.start_device().await.unwrap();
    let turn = async |raw: u16| probe::write_register(device, REGISTER, raw).await.unwrap();
    turn(5).await;
    let cloud = place.start_cloud().await;
    kubectl.ok("create namespace dev").await;
    kubectl.feed("create -f -", &manifests(device, all)).await;
    let relay = Relay::start(cloud.hub).await.unwrap();
    let edge = place.start_edge(relay.address()).await;
    let linked = async |times: usize| {
        let seen = || place.edge_said().matches("link to cloudcore established").count();
        until("the link", || seen() >= times).await;
        Instant::now()
    };
    let shown = async |since: Instant, raw: u32| {
        loop {
            let right = current(&statuses(&kubectl).await, all, raw);
            if right == all {
                println!(
                    "{all} devices are shown as they are {:?} after the link is there",
                    since.elapsed()
                );
                return;
            }
            assert!(
                since.elapsed() < AT_ONCE,
                "{right} of {all} devices are shown as they are:\n{}",
                place.cloud_said()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    shown(linked(1).await, 5).await;

    relay.cut();
    let away = |devices: &Value| {
        let devices = devices["items"].as_array().into_iter().flatten();
        let lost = devices.filter(|device| condition(device, "Ready")["reason"] == "NodeUnreachable");
        lost.count() == usize::from(all)
    };
    kubectl.sees("the link lost", "devices -n dev", away).await;
    for raw in [6, 7, 8] {
        turn(raw).await;
        let before = place.edge_records();
        // Every reading is a record here: each device was read since, at least twice.
        until("every device to be read", || {
            place.edge_records() >= before + 3 * u64::from(all)
        })
        .await;
    }
    assert_eq!(
        current(&statuses(&kubectl).await, all, 5),
        all,
        "nobody knows yet"
    );
    relay.restore();
    shown(linked(2).await, 8).await;
    kubectl
        .sees("nothing to be behind", "devices -n dev", |devices| {
            let devices = devices["items"].as_array().into_iter().flatten();
            let well = devices.filter(|device| {
                condition(device, "Ready")["status"] == "True"
                    && device["status"].get("behindSince").is_none()
            });
            well.count() == usize::from(all)
        })
        .await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}
