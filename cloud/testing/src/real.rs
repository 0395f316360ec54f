//! A real kube-apiserver with its etcd, on loopback, with certificates of its own and RBAC.
//!
//! One per test binary: starting takes seconds. A watchman ends both programs and removes their files when the test's
//! process has gone, however it went: values in statics are not dropped, and a killed test drops nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use ledge_apiserver::pki;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::programs;

/// How long the two may take to start on a busy machine.
const START: Duration = Duration::from_secs(120);

/// Ends what it was told of, a line each, when its standard input is closed, and removes the directory. What ends the
/// test, such as Ctrl-C, does not end the watchman before that.
const WATCHMAN: &str = r#"trap '' TERM INT HUP
pids=
while read -r pid; do pids="$pids $pid"; done
kill -9 $pids 2>/dev/null
rm -rf "$1""#;

/// The programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `LEDGE_KUBE_APISERVER`
    pub apiserver: PathBuf,
    /// `LEDGE_ETCD`
    pub etcd: PathBuf,
}

impl Programs {
    /// Those that the environment names. `None`, and one line that says so, where there are none.
    ///
    /// # Panics
    /// When there are none where they are required: `CI` or `LEDGE_REQUIRE_KUBERNETES` is set.
    pub fn or_skip() -> Option<Programs> {
        let names = ["LEDGE_KUBE_APISERVER", "LEDGE_ETCD"];
        let [apiserver, etcd] = programs::or_skip("a real API server", names)?;
        Some(Programs { apiserver, etcd })
    }
}

/// How etcd writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As it does for its users: what is answered was synced.
    Synced,
    /// No syncs: tests that do not measure need none.
    Unsynced,
}

/// The API server and its etcd. Clones are the same; the last one dropped ends them.
#[derive(Debug, Clone)]
pub struct Real(Arc<Running>);

#[derive(Debug)]
struct Running {
    kubeconfig: PathBuf,
    config: Config,
    pids: Pids,
    processes: Mutex<Processes>,
}

/// Processes, for those who measure them.
#[derive(Debug, Clone, Copy)]
pub struct Pids {
    /// kube-apiserver
    pub apiserver: u32,
    /// etcd
    pub etcd: u32,
}

impl Real {
    /// The one of this process, started at the first call. `None`, and one line that says so, where there are no programs.
    ///
    /// # Panics
    /// When it does not start, or is missing though it is required.
    pub async fn shared() -> Option<Real> {
        static SHARED: OnceCell<Option<Real>> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                let programs = Programs::or_skip()?;
                Some(Real::start(&programs, Durability::Unsynced).await)
            })
            .await
            .clone()
    }

    /// Starts one and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(programs: &Programs, durability: Durability) -> Real {
        rustls::crypto::ring::default_provider().install_default().ok();
        let deadline = Instant::now() + START;
        loop {
            match attempt(programs, durability, deadline).await {
                Ok(real) => return real,
                // Somebody else took a port between its being found free and its being used.
                Err(why) if Instant::now() < deadline && why.contains("address already in use") => {}
                Err(why) => panic!("the real API server does not start: {why}"),
            }
        }
    }

    /// A client of the administrator, on the runtime of the caller.
    ///
    /// # Panics
    /// When its certificates cannot be used.
    pub fn client(&self, namespace: &str) -> Client {
        let mut config = self.0.config.clone();
        namespace.clone_into(&mut config.default_namespace);
        Client::try_from(config).unwrap()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.0.kubeconfig
    }

    /// Its processes.
    pub fn pids(&self) -> Pids {
        self.0.pids
    }

    /// Runs a controller manager on it with `settings`, and waits until it is ready. They end together.
    pub(crate) async fn manage(&self, program: &Path, settings: &[&str]) {
        let deadline = Instant::now() + START;
        loop {
            match self.attempt_to_manage(program, settings, deadline).await {
                Ok(()) => return,
                Err(why) if Instant::now() < deadline && why.contains("address already in use") => {}
                Err(why) => panic!("the real controller manager does not start: {why}"),
            }
        }
    }

    async fn attempt_to_manage(
        &self,
        program: &Path,
        settings: &[&str],
        deadline: Instant,
    ) -> Result<(), String> {
        let [port] = free_ports();
        let dir = self.0.processes.lock().unwrap().dir.clone();
        let pki = dir.join("pki");
        let mut args: Vec<OsString> = settings.iter().map(OsString::from).collect();
        args.extend(
            [
                // There is no other one.
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
            ]
            .map(OsString::from),
        );
        for (name, file) in [
            ("--kubeconfig=", self.0.kubeconfig.clone()),
            ("--tls-cert-file=", pki.join("server.crt")),
            ("--tls-private-key-file=", pki.join("server.key")),
            ("--root-ca-file=", pki.join("ca.crt")),
            ("--service-account-private-key-file=", pki.join("server.key")),
        ] {
            args.push(flag(name, &file));
        }
        let mut manager = self.0.processes.lock().unwrap().spawn(program, &args);
        let mut config = self.0.config.clone();
        config.cluster_url = format!("https://127.0.0.1:{port}").parse().unwrap();
        manager.until_ready(config, "/healthz", deadline, || None).await
    }
}

/// The processes of an attempt: they end with it.
#[derive(Debug)]
struct Processes {
    dir: PathBuf,
    /// Its standard input is closed with it.
    watchman: Child,
}

impl Processes {
    fn new() -> Processes {
        // The watchman removes it.
        let dir = TempDir::with_prefix("ledge-kubernetes-").unwrap().keep();
        let watchman = Command::new("sh")
            .args(["-c", WATCHMAN, "watchman"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Processes { dir, watchman }
    }

    fn spawn(&mut self, program: &Path, args: &[OsString]) -> Process {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let log = self.dir.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let watchman = self.watchman.stdin.as_mut().unwrap();
        writeln!(watchman, "{}", child.id()).unwrap();
        Process { name, log, child }
    }
}

struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// What it last said, if it has ended.
    fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().unwrap()?;
        Some(format!(
            "{} ended with {status}: {}",
            self.name,
            self.last_words()
        ))
    }

    /// Waits until it answers at `path`, or it or what it stands on has ended.
    async fn until_ready(
        &mut self,
        config: Config,
        path: &str,
        deadline: Instant,
        mut below: impl FnMut() -> Option<String>,
    ) -> Result<(), String> {
        let client = Client::try_from(config).unwrap();
        loop {
            if let Some(why) = below().or_else(|| self.ended()) {
                return Err(why);
            }
            if is_ready(&client, path).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("not ready in {START:?}: {}", self.last_words()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

async fn attempt(programs: &Programs, durability: Durability, deadline: Instant) -> Result<Real, String> {
    let mut processes = Processes::new();
    let dir = processes.dir.clone();
    let [client, peer, secure] = free_ports();
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let mut etcd: Vec<OsString> = [
        format!("--listen-client-urls={}", url(client)),
        format!("--advertise-client-urls={}", url(client)),
        format!("--listen-peer-urls={}", url(peer)),
        format!("--initial-advertise-peer-urls={}", url(peer)),
        format!("--initial-cluster=default={}", url(peer)),
        "--log-level=warn".to_owned(),
    ]
    .map(OsString::from)
    .to_vec();
    etcd.push(flag("--data-dir=", &dir.join("etcd")));
    if durability == Durability::Unsynced {
        etcd.push("--unsafe-no-fsync".into());
    }
    let mut etcd = processes.spawn(&programs.etcd, &etcd);

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, secure));
    let pki_dir = dir.join("pki");
    pki::open(&pki_dir, address, &[]).unwrap();
    let kubeconfig = dir.join("kubeconfig");
    pki::write_kubeconfig(&kubeconfig, &pki_dir, address).unwrap();
    let mut apiserver: Vec<OsString> = [
        format!("--etcd-servers={}", url(client)),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // Loopback is no address for the Endpoints of `default/kubernetes`.
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        // It would refuse pods until a controller manager had made their service account.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
    .map(OsString::from)
    .to_vec();
    for (name, file) in [
        ("--client-ca-file=", "ca.crt"),
        ("--tls-cert-file=", "server.crt"),
        ("--tls-private-key-file=", "server.key"),
        ("--service-account-key-file=", "server.crt"),
        ("--service-account-signing-key-file=", "server.key"),
    ] {
        apiserver.push(flag(name, &pki_dir.join(file)));
    }
    apiserver.push(flag("--cert-dir=", &dir.join("certs")));
    let mut apiserver = processes.spawn(&programs.apiserver, &apiserver);

    let text = Kubeconfig::read_from(&kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(text, &KubeConfigOptions::default())
        .await
        .unwrap();
    let ended = || etcd.ended();
    apiserver
        .until_ready(config.clone(), "/readyz", deadline, ended)
        .await?;
    Ok(Real(Arc::new(Running {
        kubeconfig,
        config,
        pids: Pids {
            apiserver: apiserver.child.id(),
            etcd: etcd.child.id(),
        },
        processes: Mutex::new(processes),
    })))
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

async fn is_ready(client: &Client, path: &str) -> bool {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(5), client.request_text(request));
    matches!(asked.await, Ok(Ok(text)) if text == "ok")
}

/// Ports that nobody listens on at this moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
