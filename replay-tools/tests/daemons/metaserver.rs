//! kubectl on a node: the real one against MetaServer of a real edgecore, whose cloudcore serves the embedded API. What was
//! made before the node ever connected is there, with and without a link; writes are carried out, refused, or wait.
//!
//! `plant.yaml` is what there is, `plant_rights.yaml` what the nodes may do beyond what every node may.

use std::net::SocketAddr;
use std::process::Stdio;

use ledge::quickstart::daemons::Daemon;
use ledge::quickstart::relay::Relay;
use ledge::quickstart::site::address;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::devices::taken_out;
use crate::support::kubectl::Kubectl;
use crate::support::place::{Cloud, Place};

const PLANT: &str = include_str!("plant.yaml");
const RIGHTS: &str = include_str!("plant_rights.yaml");
const RECIPE: &str = "apiVersion: example.com/v1\nkind: Recipe\nmetadata: {name: stew, namespace: plant}\nspec: {liters: 42}\n";
/// A plant with its node, and kubectl on both ends.
struct Plant {
    place: Place,
    _simulator: Daemon,
    device: SocketAddr,
    cloud: Cloud,
    relay: Relay,
    edge: Daemon,
    /// The user of the cloud's API.
    admin: Kubectl,
    /// Somebody on the node.
    node: Kubectl,
}

impl Plant {
    /// Everything is made first, the node connects afterwards. `None`: skipped.
    async fn start(what: &str, rights: bool) -> Option<Plant> {
        let place = Place::new().await;
        let kubeconfig = place.site.cloud_dir().join("kubeconfig");
        let admin = Kubectl::new(what, &kubeconfig, &place.path(""))?;
        let (simulator, device) = place.site.start_device().await.unwrap();
        let files = taken_out(&place, device);
        let cloud = place.start_cloud().await;
        admin.feed("apply -f -", PLANT).await;
        admin
            .ok("wait crd/recipes.example.com --for=condition=Established")
            .await;
        admin.feed("apply -f -", RECIPE).await;
        admin.ok("create namespace dev").await;
        for file in files {
            admin.ok(&format!("apply -f {file}")).await;
        }
        if rights {
            admin.feed("apply -f -", RIGHTS).await;
        }
        let relay = Relay::start(cloud.hub).await.unwrap();
        let edge = place.start_edge(relay.address()).await;
        let node = admin.at(address(&edge, "MetaServer on ").unwrap());
        let plant = Plant {
            place,
            _simulator: simulator,
            device,
            cloud,
            relay,
            edge,
            admin,
            node,
        };
        for held in [
            "pod web -n plant",
            "pv plant-data",
            "sa reader -n plant",
            "node edge-1",
            "svc web -n plant",
        ] {
            plant.node.sees(held, held, Value::is_object).await;
        }
        Some(plant)
    }

    async fn without_link(&self) {
        self.relay.cut();
        self.node
            .until(
                "the node to notice",
                "get --raw /apis/batch/v1/namespaces/plant/jobs",
                |ran| ran.err.contains("no link to the cloud"),
            )
            .await;
    }

    async fn restart_node(mut self) -> Plant {
        self.edge.stop().await.unwrap();
        self.edge = self.place.start_edge(self.relay.address()).await;
        self.node = self.admin.at(address(&self.edge, "MetaServer on ").unwrap());
        self
    }

    async fn stop(self) {
        self.edge.stop().await.unwrap();
        self.cloud.daemon.stop().await.unwrap();
        self.place.assert_sound();
    }
}

#[tokio::test]
async fn what_was_made_before_the_node_connected_is_there_without_asking() {
    let Some(plant) = Plant::start("kubectl on a node: reads", false).await else {
        return;
    };
    plant.place.edge_writes(plant.device, 300).await;
    // What is read from here on, nobody can fetch.
    plant.without_link().await;
    let node = &plant.node;
    let ran = node.run("get pods -A -o wide").await;
    assert!(
        ran.ok && ran.out.contains("edge-1") && !ran.out.contains("elsewhere"),
        "{ran:?}"
    );
    assert!(
        ran.err.contains("Warning: node edge-1 shows its own pods"),
        "{ran:?}"
    );
    assert_eq!(node.ok("get pods -n plant -l app=db -o name").await, "pod/db\n");
    let yaml = node.ok("get pod web -n plant -o yaml").await;
    assert!(
        yaml.contains("serviceAccountName: reader") && yaml.contains("claimName: data"),
        "{yaml}"
    );
    assert_eq!(
        node.ok("get cm settings -n plant -o jsonpath={.data.key}").await,
        "one"
    );
    assert_eq!(
        node.ok("get secret door -n plant -o jsonpath={.data.password}")
            .await,
        "c2VzYW1l"
    );
    node.ok("get sa reader -n plant").await;
    let claim = node.ok("get pvc data -n plant").await;
    assert!(claim.contains("Bound") && claim.contains("plant-data"), "{claim}");
    let volume = node.ok("get pv plant-data -o wide").await;
    assert!(volume.contains("plant/data"), "{volume}");
    assert!(node.ok("get ns").await.contains("plant"));
    let services = node.ok("get svc,endpoints,endpointslices -n plant").await;
    assert!(services.contains("service/web"), "{services}");
    let nodes = node.ok("get nodes").await;
    assert!(nodes.contains("edge-1") && nodes.contains(" Ready "), "{nodes}");
    let described = node.ok("describe pod web -n plant").await;
    assert!(
        described.contains("example.com/web:1") && described.contains("reader"),
        "{described}"
    );
    let explained = node.ok("explain recipes.spec").await;
    assert!(
        explained.contains("liters") && explained.contains("How much is made"),
        "{explained}"
    );
    let kinds = node.ok("api-resources").await;
    assert!(
        kinds.contains("edge.ledge/v1alpha1") && kinds.contains("example.com/v1"),
        "{kinds}"
    );
    // What nobody asked for while there was a link is not known here, which is not the same as that it does not exist.
    let complaint = node.refused("get recipes -n plant").await;
    assert!(complaint.contains("was never fetched"), "{complaint}");
    let complaint = node.refused("get ns nowhere").await;
    assert!(complaint.contains("NotFound"), "{complaint}");

    // With a link the API server says what a node may not.
    plant.relay.restore();
    let forbidden = async |words: &str| {
        let what = format!("{words} to be forbidden");
        node.until(&what, words, |ran| ran.err.contains("Forbidden"))
            .await;
    };
    forbidden("get recipes -n plant").await;
    forbidden("get secrets -n plant").await;
    forbidden("delete secret door -n plant").await;
    forbidden("label cm settings -n plant color=red").await;
    assert!(
        node.refused("auth can-i patch configmaps -n plant")
            .await
            .is_empty()
    );
    assert_eq!(node.ok("auth can-i get pod/web -n plant").await.trim(), "yes");
    plant.stop().await;
}

fn config_map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: plant}}\ndata: {{key: {value}}}\n"
    )
}

/// Pods of `app` that the node has, by name, once there are `count`.
async fn pods(node: &Kubectl, app: &str, count: usize) -> Vec<String> {
    let words = format!("get pods -n plant -l app={app} -o name");
    let all = node
        .until("the pods", &words, |ran| ran.out.lines().count() == count)
        .await;
    all.lines()
        .map(|line| line.trim_start_matches("pod/").to_owned())
        .collect()
}

#[tokio::test]
async fn a_node_changes_what_it_may() {
    let Some(plant) = Plant::start("kubectl on a node: writes", true).await else {
        return;
    };
    let (node, admin) = (&plant.node, &plant.admin);
    let key = "get cm settings -n plant -o jsonpath={.data.key}";
    for (kind, patch, value) in [
        (
            "json",
            r#"[{"op":"replace","path":"/data/key","value":"two"}]"#,
            "two",
        ),
        ("merge", r#"{"data":{"key":"three"}}"#, "three"),
        ("strategic", r#"{"data":{"key":"four"}}"#, "four"),
    ] {
        node.ok(&format!("patch cm settings -n plant --type={kind} -p {patch}"))
            .await;
        // The answer is the API server's, and the node shows what it accepted.
        assert_eq!(admin.ok(key).await, value);
        node.until(kind, key, |ran| ran.out == value).await;
    }
    let edited = node
        .command("edit cm settings -n plant")
        .env("KUBE_EDITOR", "sed -i s/four/five/")
        .output()
        .await
        .unwrap();
    assert!(edited.status.success(), "{edited:?}");
    assert_eq!(admin.ok(key).await, "five");
    let complaint = node
        .refused_feed("apply --server-side -f -", &config_map("settings", "six"))
        .await;
    assert!(complaint.contains("conflict"), "{complaint}");
    node.feed(
        "apply --server-side --force-conflicts -f -",
        &config_map("settings", "six"),
    )
    .await;
    assert_eq!(admin.ok(key).await, "six");
    node.ok("label cm settings -n plant color=red").await;
    node.ok("annotate cm settings -n plant why=that").await;
    node.until("the label", "get cm -n plant -l color=red -o name", |ran| {
        ran.out == "configmap/settings\n"
    })
    .await;
    node.feed("apply --server-side -f -", &config_map("made", "one"))
        .await;
    node.sees("what was made", "cm made -n plant", Value::is_object)
        .await;
    node.feed("diff --server-side -f -", &config_map("made", "one"))
        .await;
    let difference = node
        .refused_feed("diff --server-side -f -", &config_map("made", "two"))
        .await;
    assert!(
        difference.contains("-  key: one") && difference.contains("+  key: two"),
        "{difference}"
    );
    node.ok("delete cm made -n plant").await;
    let complaint = node.refused("get cm made -n plant").await;
    assert!(complaint.contains("NotFound"), "{complaint}");
    let complaint = node.refused("delete secret door -n plant").await;
    assert!(
        complaint.contains("(Forbidden)") && complaint.contains("system:node:edge-1"),
        "{complaint}"
    );

    // A rollout, with the test in the place of what runs containers: it says that they run.
    node.ok("scale deployment pump -n plant --replicas 2").await;
    for pod in pods(node, "pump", 2).await {
        let running = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
        node.ok(&format!(
            "patch pod {pod} -n plant --subresource=status --type=merge -p {running}"
        ))
        .await;
    }
    let rolled = node
        .ok("rollout status deployment pump -n plant --timeout=90s")
        .await;
    assert!(rolled.contains("successfully rolled out"), "{rolled}");
    let table = node.ok("get deployment pump -n plant").await;
    assert!(table.contains("2/2"), "{table}");

    // A pod that is deleted goes once the node says that it ended.
    node.ok("delete pod db -n plant --wait=false").await;
    let ended = r#"{"status":{"phase":"Succeeded"}}"#;
    node.ok(&format!(
        "patch pod db -n plant --subresource=status --type=merge -p {ended}"
    ))
    .await;
    for end in [admin, node] {
        end.until("the pod to go", "get pods -n plant -l app=db -o name", |ran| {
            ran.ok && ran.out.is_empty()
        })
        .await;
    }

    // An event of the node is seen from both ends.
    let uid = node.ok("get pod web -n plant -o jsonpath={.metadata.uid}").await;
    let event = format!(
        "apiVersion: v1\nkind: Event\nmetadata: {{name: web.pulled, namespace: plant}}\ntype: Normal\nreason: Pulled\n\
         message: the image is here\ninvolvedObject: {{apiVersion: v1, kind: Pod, namespace: plant, name: web, uid: {uid}}}\n"
    );
    node.feed("create -f -", &event).await;
    for end in [admin, node] {
        end.until("the event", "describe pod web -n plant", |ran| {
            ran.out.contains("the image is here")
        })
        .await;
    }

    // A watch shows what comes.
    let mut watch = node
        .command("get pods -n plant -w -o name")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let late = "apiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: plant}\n\
        spec: {nodeName: edge-1, containers: [{name: main, image: example.com/late:1}]}\n";
    admin.feed("apply -f -", late).await;
    while lines.next_line().await.unwrap().unwrap() != "pod/late" {}
    watch.kill().await.unwrap();
    // Whoever waited has the answer: nothing is left to be told.
    node.until("writes to be forgotten", "get writes", |ran| {
        ran.ok && ran.out.is_empty()
    })
    .await;
    plant.stop().await;
}

fn state_of<'a>(writes: &'a Value, method: &str, path: &str) -> Option<&'a str> {
    let all = writes["items"].as_array()?;
    let write = all.iter().find(|write| {
        write["spec"]["method"] == method
            && write["spec"]["path"]
                .as_str()
                .is_some_and(|found| found.ends_with(path))
    })?;
    write["status"]["state"].as_str()
}

#[tokio::test]
async fn without_a_link_reads_go_on_and_writes_wait() {
    let Some(plant) = Plant::start("kubectl on a node: without a link", true).await else {
        return;
    };
    // Somebody asked for these once; they stay current from then on.
    plant.node.ok("get cronjobs -n plant").await;
    let recipes = plant.node.ok("get recipes -n plant").await;
    assert!(recipes.contains("LITERS") && recipes.contains("42"), "{recipes}");
    plant.node.ok("get devices -n dev").await;
    plant.node.ok("get deployment pump -n plant").await;
    let more = RECIPE.replace("stew", "soup");
    plant.admin.feed("apply -f -", &more).await;
    plant
        .node
        .sees("the recipe made since", "recipe soup -n plant", Value::is_object)
        .await;

    plant.without_link().await;
    let plant = plant.restart_node().await;
    let node = &plant.node;
    let held = async |node: &Kubectl| {
        let cronjobs = node.ok("get cronjobs -n plant -o wide").await;
        assert!(cronjobs.contains("nightly"), "{cronjobs}");
        let recipes = node.ok("get recipes -n plant").await;
        assert!(recipes.contains("stew") && recipes.contains("soup"), "{recipes}");
        let device = node.ok("get device boiler -n dev").await;
        assert!(device.contains("boiler-model"), "{device}");
        node.ok("describe pod web -n plant").await;
        let complaint = node.refused("get jobs -n plant").await;
        assert!(complaint.contains("was never fetched"), "{complaint}");
    };
    held(node).await;

    // Writes wait, the same one once, whether they will be permitted or not.
    let patch = r#"patch cm settings -n plant --type=merge -p {"data":{"key":"offline"}}"#;
    for _ in 0..2 {
        let complaint = node.refused(patch).await;
        assert!(
            complaint.contains("the write is in this node's log") && complaint.contains("no link"),
            "{complaint}"
        );
    }
    node.refused("scale deployment pump -n plant --replicas 3").await;
    node.refused("delete secret door -n plant").await;
    let complaint = node.refused("auth can-i list pods").await;
    assert!(complaint.contains("nothing was stored"), "{complaint}");
    let plant = plant.restart_node().await;
    let node = &plant.node;
    held(node).await;
    let key = "get cm settings -n plant -o jsonpath={.data.key}";
    assert_eq!(
        node.ok(key).await,
        "one",
        "reads show what the API server accepted"
    );
    let table = node.ok("get writes").await;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(table.matches("Pending").count(), 3, "{table}");

    plant.relay.restore();
    let writes = node
        .sees("what became of them", "writes", |writes| {
            [
                ("PATCH", "/configmaps/settings", "Done"),
                ("PATCH", "/deployments/pump/scale", "Done"),
                ("DELETE", "/secrets/door", "Refused"),
            ]
            .iter()
            .all(|(method, path, state)| state_of(writes, method, path) == Some(state))
        })
        .await;
    assert_eq!(writes["items"].as_array().unwrap().len(), 3, "{writes:#}");
    let wide = node.ok("get writes -o wide").await;
    assert!(wide.contains("403") && wide.contains("is forbidden"), "{wide}");
    assert_eq!(plant.admin.ok(key).await, "offline");
    node.until("the change to come back", key, |ran| ran.out == "offline")
        .await;
    let scaled = "get deployment pump -n plant -o jsonpath={.spec.replicas}";
    assert_eq!(plant.admin.ok(scaled).await, "3");
    plant.admin.ok("get secret door -n plant").await;
    plant.stop().await;
}
