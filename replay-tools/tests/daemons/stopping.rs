//! SIGTERM, whatever is going on: everything is let go in order and the exit code is 0, within ten seconds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ledge::quickstart::daemons::{Daemon, Launch};
use ledge::quickstart::site::address;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::place::{NOWHERE, Place, until};

const LIMIT: Duration = Duration::from_secs(10);

async fn stops_in_time(daemon: Daemon) {
    let began = Instant::now();
    daemon.stop().await.unwrap();
    let took = began.elapsed();
    println!("stopped after {took:?}");
    assert!(took < LIMIT, "{took:?}");
}

/// The next start of edgecore finds that the log was closed in order.
async fn was_closed_in_order(place: &Place) {
    let edge = place.start_edge(NOWHERE).await;
    let said = place.edge_said();
    let opened = said.lines().rfind(|line| line.contains("log open")).unwrap();
    assert!(opened.contains("clean: true"), "{opened}");
    edge.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn with_a_link_the_cloud_gets_the_last_word() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    stops_in_time(all.edge).await;
    assert_eq!(place.cloud_records(), place.edge_records());
    assert!(
        place.edge_said().contains("the cloud has everything"),
        "{}",
        place.edge_said()
    );
    stops_in_time(all.cloud.daemon).await;
    was_closed_in_order(&place).await;
}

#[tokio::test]
async fn while_the_link_is_cut() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    all.relay.cut();
    // At once: neither side has noticed yet.
    stops_in_time(all.edge).await;
    let edge = place.start_edge(all.relay.address()).await;
    place.edge_says(&["no link"]).await;
    stops_in_time(edge).await;
    stops_in_time(all.cloud.daemon).await;
    was_closed_in_order(&place).await;
}

#[tokio::test]
async fn while_the_cloud_has_an_edge() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    // Clients of the HTTP face that never finish, and one that never asks.
    let mut slow = TcpStream::connect(all.cloud.http).await.unwrap();
    slow.write_all(b"GET /v1/nodes HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let _idle = TcpStream::connect(all.cloud.http).await.unwrap();
    stops_in_time(all.cloud.daemon).await;
    place.edge_says(&["no link"]).await;
    stops_in_time(all.edge).await;
    place.start_cloud().await.daemon.stop().await.unwrap();
    let said = place.cloud_said();
    let opened = said.lines().rfind(|line| line.contains("log open")).unwrap();
    assert!(opened.contains("clean: true"), "{opened}");
    was_closed_in_order(&place).await;
}

async fn sick_device(place: &Place, flags: &[&str]) -> (Daemon, SocketAddr) {
    let launch = Launch {
        program: place.site.ledge().to_owned(),
        args: ["sim", "modbus", "--listen", "127.0.0.1:0"]
            .iter()
            .chain(flags)
            .map(|arg| (*arg).to_owned())
            .collect(),
        log: place.path("device.log"),
        ready: "modbus device ready",
    };
    let device = launch.start().await.unwrap();
    let address = address(&device, "ready on ").unwrap();
    (device, address)
}

#[tokio::test]
async fn while_a_device_hangs() {
    for flags in [&["--fault", "silent"], &["--delay-ms", "100000"]] {
        let place = Place::new().await;
        let (_device, device) = sick_device(&place, flags).await;
        place.site.write_manifests(device, 30.0).unwrap();
        let cloud = place.start_cloud().await;
        let edge = place.start_edge(cloud.hub).await;
        // It is asked, and does not answer: the stop comes in the middle of waiting for it.
        place.edge_says(&["device table read", "devices=1"]).await;
        stops_in_time(edge).await;
        stops_in_time(cloud.daemon).await;
        was_closed_in_order(&place).await;
    }
}

#[tokio::test]
async fn while_both_the_device_and_the_link_hang() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    // A device behind a dead radio: packets vanish, nothing is refused.
    let pid = rustix::process::Pid::from_raw(i32::try_from(all.simulator.pid().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    all.relay.cut();
    place.edge_says(&["no link"]).await;
    stops_in_time(all.edge).await;
    stops_in_time(all.cloud.daemon).await;
    was_closed_in_order(&place).await;
}

/// The earlier the signal, the less there is to let go; but it is never too early to be heard.
#[tokio::test]
async fn at_any_moment_of_the_start() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    let records = place.edge_records();
    stops_in_time(all.edge).await;
    stops_in_time(all.cloud.daemon).await;
    for launch in [place.edge_alone(), place.cloud()] {
        for delay_ms in [30, 60, 90, 130, 180, 250, 400] {
            let mut child = tokio::process::Command::new(&launch.program)
                .args(&launch.args)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
            until("the program to listen for signals", || {
                listens_for_sigterm(child.id().unwrap())
            })
            .await;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let status = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
            assert_eq!(status.code(), Some(0), "after {delay_ms} ms: {status}");
        }
    }
    assert!(place.edge_records() >= records);
    was_closed_in_order(&place).await;
}

/// Whether the process catches SIGTERM; the first milliseconds of any program it does not.
fn listens_for_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
    let caught = caught
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .unwrap_or(0);
    caught & (1 << 14) != 0
}

/// A link that was just restored may be in the middle of anything.
#[tokio::test]
async fn while_the_cloud_catches_up() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    for _ in 0..3 {
        all.relay.cut();
        place.edge_says(&["no link"]).await;
        all.relay.restore();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    stops_in_time(all.cloud.daemon).await;
    stops_in_time(all.edge).await;
    was_closed_in_order(&place).await;
}
