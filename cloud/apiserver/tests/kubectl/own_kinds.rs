//! What users do with a device: look at it in every way, edit it, compare it.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::place::Place;

const PUMP: &str = "
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: pump}
spec:
  protocol: modbus
  properties: [{name: speed, type: INT, accessMode: ReadWrite, unit: rpm, minimum: '0', maximum: '3000'}]
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: pump-1, labels: {site: north}}
spec:
  deviceModelRef: {name: pump}
  nodeName: edge-1
  protocol: {protocolName: modbus, configData: {ip: 192.0.2.1, port: 502, slaveID: 1}}
  properties:
  - name: speed
    desired: {value: '1200'}
    collectCycle: 1000
    reportToCloud: true
    visitors: {protocolName: modbus, configData: {register: HoldingRegister, offset: 1, limit: 1}}
";

/// What `kubectl describe` says, without the spaces that make columns of it.
fn plain(told: &str) -> String {
    let lines = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

fn column(table: &str, name: &str) -> String {
    let [head, row] = [0, 1].map(|nth| table.lines().nth(nth).unwrap());
    let from = head.find(name).unwrap();
    row[from..].split("  ").next().unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_looked_at_edited_and_compared() {
    let Some(place) = Place::with_ledges_kinds() else {
        return;
    };
    let file = place.file("pump.yaml", PUMP);
    place
        .serve(async {
            place.ok(&["apply", "-f", &file]).await;
            let watch = ["get", "devices", "-w", "--no-headers", "--output-watch-events"];
            let mut watch = place.command(&watch).stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
            let mut next = async || lines.next_line().await.unwrap().unwrap();
            let line = next().await;
            assert!(line.starts_with("ADDED") && line.contains("pump-1"), "{line}");

            // What the cloud says of it is written with the object itself: the kind has no status of its own.
            let status =
                r#"{"status":{"node":"edge-1","state":"online","reportedAt":"2026-01-01T00:00:00Z"}}"#;
            place
                .ok(&["patch", "device", "pump-1", "--type=merge", "-p", status])
                .await;
            let line = next().await;
            assert!(line.starts_with("MODIFIED") && line.contains("online"), "{line}");
            let table = place.ok(&["get", "devices", "-l", "site=north"]).await;
            let told = ["NODE", "MODEL", "STATE", "LAG"].map(|name| column(&table, name));
            assert_eq!(told, ["edge-1", "pump", "online", ""], "{table}");
            assert!(!column(&table, "REPORTED").is_empty(), "{table}");

            let told = plain(&place.ok(&["describe", "device", "pump-1"]).await);
            for line in [
                "Name: pump-1",
                "Labels: site=north",
                "Node Name:",
                "Desired:",
                "Events: <none>",
            ] {
                assert!(told.contains(line), "{line}: {told}");
            }
            let told = place
                .ok(&["explain", "device.spec.properties.collectCycle"])
                .await;
            assert!(
                told.contains("<integer>") && told.contains("GROUP:      devices.kubeedge.io"),
                "{told}"
            );
            let told = place
                .ok(&["explain", "devicemodel.spec.properties", "--recursive"])
                .await;
            assert!(told.contains("accessMode") && told.contains("enum: "), "{told}");

            let mut edit = place.command(&["edit", "device", "pump-1"]);
            let edited = edit
                .env("KUBE_EDITOR", "sed -i 's/1200/1300/'")
                .output()
                .await
                .unwrap();
            assert!(edited.status.success(), "{edited:?}");
            let desired = "jsonpath={.spec.properties[0].desired.value} {.metadata.generation}";
            assert_eq!(
                place.ok(&["get", "device", "pump-1", "-o", desired]).await,
                "1300 3"
            );
            let line = next().await;
            assert!(line.starts_with("MODIFIED"), "{line}");
            // An edit that is refused is told with the field, and changes nothing.
            // kubectl tells it in the text that it has edited again: the editor leaves a copy.
            let text = place.dir.path().join("text");
            let editor = format!(
                "sed -i -e 's/collectCycle: 1000/collectCycle: -1/' -e 'w {}'",
                text.display()
            );
            let mut edit = place.command(&["edit", "device", "pump-1"]);
            let refused = edit
                .env("KUBE_EDITOR", editor)
                .env("TMPDIR", place.dir.path())
                .output()
                .await
                .unwrap();
            assert!(!refused.status.success(), "{refused:?}");
            let told = std::fs::read_to_string(text).unwrap();
            let why = "# * spec.properties[0].collectCycle: Invalid value: -1";
            assert!(told.contains(why), "{told}");
            assert_eq!(
                place.ok(&["get", "device", "pump-1", "-o", desired]).await,
                "1300 3"
            );

            let changed = place.file("changed.yaml", &PUMP.replace("'1200'", "'1400'"));
            let differs = place.run(&["diff", "-f", &changed]).await;
            assert_eq!(differs.code, 1, "{differs:?}");
            for line in ["-      value: \"1300\"", "+      value: \"1400\""] {
                assert!(differs.out.contains(line), "{differs:?}");
            }
            assert!(!differs.out.contains("online"), "{differs:?}");
            place.ok(&["delete", "device", "pump-1", "--timeout=60s"]).await;
            let line = next().await;
            assert!(line.starts_with("DELETED"), "{line}");
            watch.kill().await.unwrap();
        })
        .await;
}

const NODE_AND_POD: &str = "
apiVersion: v1
kind: Node
metadata: {name: edge-1, labels: {node-role.kubernetes.io/edge: '', kubernetes.io/hostname: edge-1}}
spec: {taints: [{key: dedicated, value: line, effect: NoSchedule}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: edge-1
  containers:
  - name: c
    image: nginx:1
    ports: [{containerPort: 80}]
    resources: {requests: {cpu: 250m, memory: 64Mi}}
    env: [{name: MODE, value: fast}]
";

const NODE_STATUS: &str = r#"{"status":{
    "capacity":{"cpu":"4","memory":"4Gi","pods":"20"},"allocatable":{"cpu":"4","memory":"4Gi","pods":"20"},
    "addresses":[{"type":"InternalIP","address":"192.0.2.7"}],
    "conditions":[{"type":"Ready","status":"True","reason":"EdgeReady","message":"edge is posting ready status"}],
    "nodeInfo":{"kubeletVersion":"v1.34.0-ledge","osImage":"Debian","kernelVersion":"6.1.0","containerRuntimeVersion":"process://1",
        "architecture":"arm64","operatingSystem":"linux","bootID":"b","machineID":"m","systemUUID":"s","kubeProxyVersion":""}}}"#;

const POD_STATUS: &str = r#"{"status":{"phase":"Running","podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}],
    "conditions":[{"type":"Ready","status":"True"}],
    "containerStatuses":[{"name":"c","image":"nginx:1","imageID":"i","containerID":"process://x","ready":true,"restartCount":3,
        "state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}}}]}}"#;

const POD_EVENT: &str = "
apiVersion: v1
kind: Event
metadata: {name: web.1, namespace: default}
involvedObject: {apiVersion: v1, kind: Pod, name: web, namespace: default, uid: UID}
reason: Started
message: Started container c
type: Normal
source: {component: edgecore, host: edge-1}
count: 1
";

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_pods_are_described_and_shown_wide() {
    let Some(place) = Place::new() else { return };
    let file = place.file("web.yaml", NODE_AND_POD);
    place
        .serve(async {
            place.ok(&["apply", "-f", &file]).await;
            for (object, status) in [("node/edge-1", NODE_STATUS), ("pod/web", POD_STATUS)] {
                let patch = [
                    "patch",
                    object,
                    "--subresource=status",
                    "--type=merge",
                    "-p",
                    status,
                ];
                place.ok(&patch).await;
            }
            let uid = place
                .ok(&["get", "pod", "web", "-o", "jsonpath={.metadata.uid}"])
                .await;
            let event = place.file("event.yaml", &POD_EVENT.replace("UID", &uid));
            place.ok(&["create", "-f", &event]).await;

            let table = place.ok(&["get", "nodes", "-o", "wide"]).await;
            let names = [
                "STATUS",
                "ROLES",
                "VERSION",
                "INTERNAL-IP",
                "EXTERNAL-IP",
                "OS-IMAGE",
                "KERNEL-VERSION",
                "CONTAINER-RUNTIME",
            ];
            assert_eq!(
                names.map(|name| column(&table, name)),
                [
                    "Ready",
                    "edge",
                    "v1.34.0-ledge",
                    "192.0.2.7",
                    "<none>",
                    "Debian",
                    "6.1.0",
                    "process://1"
                ],
                "{table}"
            );
            let table = place.ok(&["get", "pods", "-o", "wide"]).await;
            let names = [
                "READY",
                "STATUS",
                "RESTARTS",
                "IP",
                "NODE",
                "NOMINATED NODE",
                "READINESS GATES",
            ];
            assert_eq!(
                names.map(|name| column(&table, name)),
                ["1/1", "Running", "3", "10.1.2.3", "edge-1", "<none>", "<none>"],
                "{table}"
            );

            let told = plain(&place.ok(&["describe", "node", "edge-1"]).await);
            for part in [
                "Roles: edge",
                "Taints: dedicated=line:NoSchedule",
                "EdgeReady",
                "InternalIP: 192.0.2.7",
                "Container Runtime Version: process://1",
                "Non-terminated Pods: (1 in total)",
                // The pod's requests, and what part of the node that is.
                "250m (6%)",
                "64Mi (1%)",
            ] {
                assert!(told.contains(part), "{part}: {told}");
            }
            let told = plain(&place.ok(&["describe", "pod", "web"]).await);
            for part in [
                "Node: edge-1/",
                "IP: 10.1.2.3",
                "Restart Count: 3",
                "MODE: fast",
                "Started container c",
            ] {
                assert!(told.contains(part), "{part}: {told}");
            }
            let told = place.ok(&["events", "--for", "pod/web"]).await;
            assert!(told.contains("Started container c"), "{told}");
        })
        .await;
}
