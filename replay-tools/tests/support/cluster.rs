//! The control plane of a real cluster, as far as Ledge needs it: kube-apiserver with its etcd on loopback, with RBAC, no
//! controller manager and no scheduler. `LEDGE_KUBE_APISERVER` and `LEDGE_ETCD` name the programs (`.ci/run` builds them).

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::kubectl::Kubectl;
use super::programs;

/// How long the two may take to start on a busy machine.
const START: Duration = Duration::from_secs(120);
/// The administrator's token.
const ADMIN: &str = "administrator";
/// Every request, who sent it, and what came of it.
const AUDIT: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// A running API server. Dropping it ends it.
pub(crate) struct Cluster {
    dir: PathBuf,
    port: u16,
    etcd: Child,
    apiserver: Child,
}

impl Cluster {
    /// Starts one in a directory of its own in `place`, and kubectl for its administrator; `None`: `what` is skipped.
    pub(crate) async fn start(what: &str, place: &Path) -> Option<(Cluster, Kubectl)> {
        let [apiserver, etcd] = programs::or_skip(what, ["LEDGE_KUBE_APISERVER", "LEDGE_ETCD"])?;
        let began = Instant::now();
        for attempt in 0.. {
            let dir = place.join(format!("cluster-{attempt}"));
            fs::create_dir_all(&dir).unwrap();
            let mut cluster = Cluster::launch(&dir, &apiserver, &etcd);
            let admin = Kubectl::new(what, &cluster.kubeconfig("admin", ADMIN), place)?;
            match cluster.is_ready(&admin, began).await {
                Ok(()) => return Some((cluster, admin)),
                // Somebody else took a port between its being found free and its being used.
                Err(why) if attempt < 5 && why.contains("address already in use") => {}
                Err(why) => panic!("the real API server does not start: {why}"),
            }
        }
        None
    }

    fn launch(dir: &Path, apiserver: &Path, etcd: &Path) -> Cluster {
        let [client, peer, port] = free_ports();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let file = |name: &str| dir.join(name).display().to_string();
        let etcd = spawn(
            etcd,
            &dir.join("etcd.log"),
            &[
                format!("--listen-client-urls={}", url(client)),
                format!("--advertise-client-urls={}", url(client)),
                format!("--listen-peer-urls={}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
                format!("--initial-cluster=default={}", url(peer)),
                format!("--data-dir={}", file("etcd")),
                "--log-level=warn".to_owned(),
                // Nothing here outlives the test.
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join("sa.key"), key.serialize_pem()).unwrap();
        fs::write(dir.join("sa.pub"), key.public_key_pem()).unwrap();
        fs::write(
            dir.join("tokens"),
            format!("{ADMIN},administrator,1,\"system:masters\"\n"),
        )
        .unwrap();
        fs::write(dir.join("audit.yaml"), AUDIT).unwrap();
        let apiserver = spawn(
            apiserver,
            &dir.join("apiserver.log"),
            &[
                format!("--etcd-servers={}", url(client)),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                // It makes itself a certificate there.
                format!("--cert-dir={}", file("certs")),
                format!("--token-auth-file={}", file("tokens")),
                format!("--audit-policy-file={}", file("audit.yaml")),
                format!("--audit-log-path={}", file("audit.log")),
                // Loopback is no address for the Endpoints of `default/kubernetes`.
                "--endpoint-reconciler-type=none".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", file("sa.pub")),
                format!("--service-account-signing-key-file={}", file("sa.key")),
                // As kubeadm sets it up.
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                // It would refuse pods until a controller manager had made their service account.
                "--disable-admission-plugins=ServiceAccount".to_owned(),
            ],
        );
        Cluster {
            dir: dir.to_owned(),
            port,
            etcd,
            apiserver,
        }
    }

    async fn is_ready(&mut self, admin: &Kubectl, began: Instant) -> Result<(), String> {
        loop {
            let ended =
                [&mut self.etcd, &mut self.apiserver].map(|child| child.try_wait().unwrap().is_some());
            if ended.contains(&true) || began.elapsed() > START {
                let said = ["etcd.log", "apiserver.log"].map(|log| last_words(&self.dir.join(log)));
                return Err(said.concat());
            }
            if admin.run("get --raw /readyz").await.out == "ok" {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A kubeconfig for whoever has `token`.
    pub(crate) fn kubeconfig(&self, user: &str, token: &str) -> PathBuf {
        let path = self.dir.join(format!("{user}.kubeconfig"));
        let cluster = json!({
            "server": format!("https://127.0.0.1:{}", self.port),
            "certificate-authority": self.dir.join("certs/apiserver.crt"),
        });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": user}}],
        });
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// How many requests there were so far.
    pub(crate) fn audited(&self) -> usize {
        self.requests().len()
    }

    fn requests(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.dir.join("audit.log")).unwrap();
        let lines = log.lines().map(serde_json::from_str);
        // The last one may be half there.
        lines.filter_map(Result::ok).collect()
    }

    /// What the API server refused to `user` for want of rights, as long as he spoke for himself, from the request with that
    /// number on.
    pub(crate) fn refused_to(&self, user: &str, from: usize) -> Vec<String> {
        let requests = self.requests().into_iter().skip(from);
        requests
            .filter(|request| {
                request["user"]["username"] == user
                    && request["impersonatedUser"].is_null()
                    && request["responseStatus"]["code"] == 403
            })
            .map(|request| format!("{} {}", request["verb"], request["requestURI"]))
            .collect()
    }
}

fn spawn(program: &Path, log: &Path, args: &[String]) -> Child {
    let output = File::create(log).unwrap();
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Ports that nobody listens on at this moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
