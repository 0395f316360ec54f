//! A place of its own for each test: certificates, manifests, real daemons with their logs, a device, a link.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ledge::quickstart::claims;
use ledge::quickstart::daemons::{Daemon, Launch, find_programs};
use ledge::quickstart::probe;
use ledge::quickstart::relay::Relay;
use ledge::quickstart::site::{NODE, Pace, RegisterMap, Site, address};
use ledge_log::{DiskStorage, verify};
use ledge_proto::ids::Scope;
use ledge_replication::certs::{Authority, CertFiles};
use tempfile::TempDir;
use tokio::process::Command;

/// Bounds are generous: the machine may be slow and busy. Nothing waits this long when it works.
const SOON: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The smallest segments the daemons take.
pub(crate) const SEGMENT: u64 = 8 << 20;

/// Where nobody listens (the discard port, which needs root).
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// Any free port of loopback.
pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A prepared [`Site`] in a temporary directory.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) site: Site,
}

/// A running cloudcore and where it listens.
pub(crate) struct Cloud {
    pub(crate) daemon: Daemon,
    pub(crate) hub: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// All it said.
    pub(crate) said: String,
}

impl Place {
    pub(crate) async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let programs = find_programs().await.unwrap();
        let pace = Pace {
            heartbeat: Duration::from_millis(300),
            reconnect: Duration::from_millis(300),
            collect: Duration::from_millis(50),
            segment_bytes: SEGMENT,
        };
        let registers = RegisterMap {
            temperature: 0,
            setpoint: 10,
            counter: Some(2),
        };
        let ledge = programs.join("ledge");
        let site = Site::prepare(dir.path(), programs, ledge, pace, registers).unwrap();
        Place { dir, site }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.path("pki")
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority::load(&self.pki()).unwrap()
    }

    /// Makes a certificate for the node `name`, beside the others.
    pub(crate) fn issue_node(&self, name: &str) -> CertFiles {
        self.authority().issue_node(name, &self.pki()).unwrap()
    }

    /// How to start edgecore, without a cloud that answers.
    pub(crate) fn edge_alone(&self) -> Launch {
        self.site.edgecore(NOWHERE).unwrap()
    }

    pub(crate) fn cloud(&self) -> Launch {
        self.site.cloudcore(ANY).unwrap()
    }

    pub(crate) async fn start_cloud(&self) -> Cloud {
        let daemon = self.cloud().start().await.unwrap();
        let hub = address(&daemon, "edges on ").unwrap();
        let http = address(&daemon, "health on ").unwrap();
        Cloud { daemon, hub, http }
    }

    pub(crate) async fn start_edge(&self, cloud: SocketAddr) -> Daemon {
        self.site.edgecore(cloud).unwrap().start().await.unwrap()
    }

    /// A cloud, an edge, a device that it reads, and the link between them.
    pub(crate) async fn start_everything(&self) -> Everything {
        let (simulator, device) = self.site.start_device().await.unwrap();
        self.site.write_manifests(device, 30.0).unwrap();
        let cloud = self.start_cloud().await;
        let relay = Relay::start(cloud.hub).await.unwrap();
        let edge = self.start_edge(relay.address()).await;
        self.cloud_holds(10).await;
        Everything {
            simulator,
            device,
            cloud,
            relay,
            edge,
        }
    }

    /// All that edgecore has said.
    pub(crate) fn edge_said(&self) -> String {
        said(&self.path("edgecore.log"))
    }

    /// All that cloudcore has said.
    pub(crate) fn cloud_said(&self) -> String {
        said(&self.path("cloudcore.log"))
    }

    /// Waits until edgecore has said all of `words`, in one line.
    pub(crate) async fn edge_says(&self, words: &[&str]) {
        says(&self.path("edgecore.log"), words).await;
    }

    /// Waits until cloudcore has said all of `words`, in one line.
    pub(crate) async fn cloud_says(&self, words: &[&str]) {
        says(&self.path("cloudcore.log"), words).await;
    }

    pub(crate) fn edge_records(&self) -> u64 {
        records(&self.site.edge_dir())
    }

    pub(crate) fn cloud_records(&self) -> u64 {
        records(&self.site.cloud_dir())
    }

    /// Waits until the cloud holds `count` records of the node.
    pub(crate) async fn cloud_holds(&self, count: u64) {
        until("the records in the cloud", || {
            self.site.cloud_dir().join("log").is_dir() && self.cloud_records() >= count
        })
        .await;
    }

    /// Waits until the cloud has everything the edge holds now.
    pub(crate) async fn cloud_catches_up(&self) {
        self.cloud_holds(self.edge_records()).await;
    }

    /// Waits until edgecore has written `value` to the device's alarm threshold.
    pub(crate) async fn edge_writes(&self, device: SocketAddr, value: u16) {
        let register = self.site.registers().setpoint;
        let began = Instant::now();
        while probe::read_register(device, register).await.unwrap() != value {
            assert!(
                began.elapsed() < SOON,
                "the device does not hold {value}:\n{}",
                self.edge_said()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Neither daemon panicked, and both logs, where there are any, are whole and hold nothing torn.
    pub(crate) fn assert_sound(&self) {
        for text in [self.edge_said(), self.cloud_said()] {
            assert!(!text.contains("panicked"), "{text}");
        }
        for dir in [self.site.edge_dir(), self.site.cloud_dir()] {
            if dir.join("log").is_dir() {
                assert_whole(&dir);
            }
        }
    }
}

/// The parts of a running site. Dropping them ends them.
pub(crate) struct Everything {
    pub(crate) simulator: Daemon,
    pub(crate) device: SocketAddr,
    pub(crate) cloud: Cloud,
    pub(crate) relay: Relay,
    pub(crate) edge: Daemon,
}

/// The log in the data directory `dir` is as it was written, from the first to the last record.
pub(crate) fn assert_whole(dir: &Path) {
    let report = verify(&DiskStorage, &dir.join("log")).unwrap();
    assert!(
        report.findings.is_empty(),
        "{}: {:#?}",
        dir.display(),
        report.findings
    );
}

pub(crate) fn node() -> Scope {
    Scope::node(NODE).unwrap()
}

fn records(dir: &Path) -> u64 {
    claims::records_up(dir, &node()).unwrap()
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

async fn says(log: &Path, words: &[&str]) {
    let began = Instant::now();
    while !said(log)
        .lines()
        .any(|line| words.iter().all(|word| line.contains(word)))
    {
        assert!(began.elapsed() < SOON, "waited for {words:?} in:\n{}", said(log));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until `look` says yes.
pub(crate) async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let began = Instant::now();
    while !look() {
        assert!(began.elapsed() < SOON, "waited for {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Runs a program that must not get ready, to its end.
pub(crate) async fn ends(launch: &Launch) -> Ended {
    let run = Command::new(&launch.program)
        .args(&launch.args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SOON, run).await;
    let output = output
        .unwrap_or_else(|_| panic!("{launch:?} still runs"))
        .unwrap();
    let said = [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat();
    assert!(!said.contains("panicked"), "{said}");
    assert!(!said.contains(launch.ready), "{said}");
    Ended {
        code: output.status.code(),
        said,
    }
}

/// The program ends with exit code `code`, and its last words, the error, contain all of `words`.
pub(crate) async fn refuses(launch: &Launch, code: i32, words: &[&str]) -> Ended {
    let ended = ends(launch).await;
    assert_eq!(ended.code, Some(code), "{}", ended.said);
    let error = ended.said.split("error: ").last().unwrap_or_default();
    for word in words {
        assert!(
            error.contains(word),
            "`{word}` is not in: {error}\n\n{}",
            ended.said
        );
    }
    ended
}

/// `launch` with more flags; they win over its configuration file.
pub(crate) fn with(launch: Launch, flags: &[(&str, &Path)]) -> Launch {
    let mut launch = launch;
    for (flag, value) in flags {
        launch
            .args
            .extend([(*flag).to_owned(), value.display().to_string()]);
    }
    launch
}
