//! Kills the daemons with SIGKILL at seeded random moments of the story, again and again, and checks every claim.
//!
//! `LEDGE_KILL_ROUNDS` sets the number of rounds (50 in CI, 6 otherwise), `LEDGE_SEED` the seed, which is printed.
//! `LEDGE_KEEP=DIR` keeps the data directories.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use ledge::quickstart::claims::{self, Claim, Side};
use ledge::quickstart::daemons::{Daemon, find_programs};
use ledge::quickstart::probe;
use ledge::quickstart::relay::Relay;
use ledge::quickstart::site::{COUNTER, DEVICE, NODE, Pace, RegisterMap, Site, address};
use ledge_log::{DiskStorage, FindingKind, verify};
use ledge_proto::ids::Scope;
use tokio::time::sleep;

const CATCH_UP: Duration = Duration::from_secs(20);

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Loop {
    site: Site,
    scope: Scope,
    relay: Relay,
    device: SocketAddr,
    edge: Option<Daemon>,
    cloud: Option<Daemon>,
    edge_kills: usize,
    setpoint: u16,
}

impl Loop {
    async fn restart_cloud(&mut self) {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let cloud = self.site.cloudcore(any).unwrap().start().await.unwrap();
        self.relay.retarget(address(&cloud, "edges on ").unwrap());
        self.cloud = Some(cloud);
    }

    async fn restart_edge(&mut self) {
        self.edge = Some(
            self.site
                .edgecore(self.relay.address())
                .unwrap()
                .start()
                .await
                .unwrap(),
        );
    }

    async fn kill_edge(&mut self) {
        self.edge.take().unwrap().kill().await.unwrap();
        self.edge_kills += 1;
    }

    async fn round(&mut self, random: &mut Random) -> String {
        let mut told = Vec::new();
        if random.chance(50) {
            self.setpoint = 200 + u16::try_from(random.below(300)).unwrap();
            self.site
                .write_manifests(self.device, f64::from(self.setpoint) / 10.0)
                .unwrap();
            told.push(format!("desired {}", self.setpoint));
        }
        if random.chance(40) {
            self.relay.cut();
            told.push("link cut".to_owned());
        }
        sleep(Duration::from_millis(random.below(400))).await;
        let (edge, cloud) = match random.below(4) {
            0 | 1 => (true, false),
            2 => (false, true),
            _ => (true, true),
        };
        let before = acked(&self.site.cloud_dir(), &self.scope);
        if edge {
            self.kill_edge().await;
            told.push("edgecore killed".to_owned());
        }
        if cloud {
            self.cloud.take().unwrap().kill().await.unwrap();
            told.push("cloudcore killed".to_owned());
        }
        for dir in [self.site.edge_dir(), self.site.cloud_dir()] {
            nothing_damaged(&dir);
        }
        if edge {
            self.restart_edge().await;
        }
        if cloud {
            self.restart_cloud().await;
        }
        sleep(Duration::from_millis(random.below(300))).await;
        self.relay.restore();
        let after = acked(&self.site.cloud_dir(), &self.scope);
        assert!(
            after >= before,
            "the cloud held {before} records before, {after} after: acknowledged records are lost"
        );
        told.join(", ")
    }

    /// Everything the edge holds now reaches the cloud, and the desired value the device.
    async fn settle(&self) {
        let held = acked(&self.site.edge_dir(), &self.scope);
        let began = Instant::now();
        loop {
            let there = acked(&self.site.cloud_dir(), &self.scope);
            let register = probe::read_register(self.device, self.site.registers().setpoint)
                .await
                .unwrap();
            if there >= held && register == self.setpoint {
                return;
            }
            assert!(
                began.elapsed() < CATCH_UP,
                "the cloud holds {there} of {held} records, the device {register} where {} is desired",
                self.setpoint
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn acked(dir: &Path, scope: &Scope) -> u64 {
    claims::records_up(dir, scope).unwrap()
}

/// After SIGKILL the log may end in a torn block; nothing else may be wrong with it.
fn nothing_damaged(dir: &Path) {
    let report = verify(&DiskStorage, &dir.join("log")).unwrap();
    let bad: Vec<_> = report
        .findings
        .iter()
        .filter(|finding| finding.kind != FindingKind::TornTail)
        .collect();
    assert!(bad.is_empty(), "{}: {bad:#?}", dir.display());
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_breaks_a_claim() {
    let in_ci = std::env::var_os("CI").is_some();
    let rounds = setting("LEDGE_KILL_ROUNDS").unwrap_or(if in_ci { 50 } else { 6 });
    let seed = setting("LEDGE_SEED").unwrap_or(20_261_123);
    println!("kill loop: {rounds} rounds, LEDGE_SEED={seed}");
    let mut random = Random(seed);
    let temporary = tempfile::tempdir().unwrap();
    let dir = std::env::var_os("LEDGE_KEEP").map_or(temporary.path().to_owned(), Into::into);
    let programs = find_programs().await.unwrap();
    let ledge = programs.join("ledge");
    let pace = Pace {
        heartbeat: Duration::from_millis(100),
        reconnect: Duration::from_millis(200),
        collect: Duration::from_millis(20),
        segment_bytes: 8 << 20,
    };
    let registers = RegisterMap {
        temperature: 0,
        setpoint: 10,
        counter: Some(2),
    };
    let site = Site::prepare(&dir, programs, ledge, pace, registers).unwrap();
    let (simulator, device) = site.start_device().await.unwrap();
    site.write_manifests(device, 30.0).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let cloud = site.cloudcore(any).unwrap().start().await.unwrap();
    let relay = Relay::start(address(&cloud, "edges on ").unwrap()).await.unwrap();
    let edge = site.edgecore(relay.address()).unwrap().start().await.unwrap();
    let scope = Scope::node(NODE).unwrap();
    let mut kills = Loop {
        site,
        scope,
        relay,
        device,
        edge: Some(edge),
        cloud: Some(cloud),
        edge_kills: 0,
        setpoint: 300,
    };
    kills.settle().await;
    for round in 1..=rounds {
        let began = Instant::now();
        let told = kills.round(&mut random).await;
        // Not every round: kills must also hit a link that is still catching up.
        if random.chance(50) || round == rounds {
            kills.settle().await;
        }
        println!("round {round}: {told} ({} ms)", began.elapsed().as_millis());
    }
    let Loop {
        site,
        scope,
        edge,
        cloud,
        edge_kills,
        ..
    } = kills;
    edge.unwrap().stop().await.unwrap();
    cloud.unwrap().stop().await.unwrap();
    drop(simulator);
    let counter = format!("{DEVICE}/{COUNTER}");
    let edge = Side::read(&site.edge_dir(), &scope, &counter).unwrap();
    let cloud = Side::read(&site.cloud_dir(), &scope, &counter).unwrap();
    let handed_out = claims::handed_out(&site.device_journal()).unwrap();
    let claims = [
        claims::nothing_lost_or_doubled(&edge, &cloud),
        claims::device_agrees(&handed_out, &cloud, edge_kills + 1),
        claims::same_hash(&edge, &cloud, &scope),
    ];
    for Claim { claim, seen, .. } in &claims {
        println!("{claim}: {seen}");
    }
    for dir in [site.edge_dir(), site.cloud_dir()] {
        let report = verify(&DiskStorage, &dir.join("log")).unwrap();
        assert!(
            report.findings.is_empty(),
            "{}: {:#?}",
            dir.display(),
            report.findings
        );
    }
    assert!(claims.iter().all(|claim| claim.holds), "{claims:#?}");
}
