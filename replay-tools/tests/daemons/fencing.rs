//! Disks that were replaced, put back, copied; clouds that were put back or started twice. Real daemons, real
//! directories: what cannot be told apart is not guessed at, and an operator can end it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ledge::quickstart::daemons::Launch;
use ledge::quickstart::probe;
use ledge::quickstart::site::NODE;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::place::{Cloud, Place, assert_whole, with};

const SOON: Duration = Duration::from_secs(30);

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn put_back(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

/// What cloudcore says of the node.
async fn told(http: SocketAddr) -> Value {
    probe::http_json(http, &format!("/v1/nodes/{NODE}"))
        .await
        .unwrap_or_default()
}

pub(crate) async fn until_told(
    place: &Place,
    http: SocketAddr,
    what: &str,
    yes: impl Fn(&Value) -> bool,
) -> Value {
    let began = Instant::now();
    loop {
        let node = told(http).await;
        if yes(&node) {
            return node;
        }
        assert!(
            began.elapsed() < SOON,
            "waited for {what}: {node:#}\n{}\n{}",
            place.cloud_said(),
            place.edge_said()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn up(node: &Value) -> bool {
    node["link"]["connected"] == true && node["link"]["lagRecords"] == 0
}

pub(crate) async fn ledge(place: &Place, http: Option<SocketAddr>, args: &[&str]) -> (i32, String) {
    let address = http.map(|http| format!("--address={http}"));
    let output = Command::new(place.site.ledge())
        .args(args)
        .args(address)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code().unwrap(), said.concat())
}

/// A site whose edge has sent something and was stopped in order.
async fn stopped_edge(place: &Place) -> Cloud {
    let cloud = place.start_cloud().await;
    let edge = place.start_edge(cloud.hub).await;
    until_told(place, cloud.http, "the link", up).await;
    edge.stop().await.unwrap();
    cloud
}

/// Waits until a daemon whose log is `file` has said `word`.
async fn until_said(file: &Path, word: &str) {
    let began = Instant::now();
    loop {
        let said = fs::read_to_string(file).unwrap_or_default();
        if said.contains(word) {
            return;
        }
        assert!(began.elapsed() < SOON, "waited for {word} in:\n{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts and stops the edge, which writes a few records each time.
async fn live_on(place: &Place, cloud: &Cloud) {
    let edge = place.start_edge(cloud.hub).await;
    until_told(place, cloud.http, "the link", up).await;
    edge.stop().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_comes_back_in_order_goes_on() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let before = told(cloud.http).await;
    let edge = place.start_edge(cloud.hub).await;
    let after = until_told(&place, cloud.http, "the second link", up).await;
    assert_eq!(after["disk"]["incarnation"], before["disk"]["incarnation"]);
    assert_eq!(after["disk"]["epoch"], before["disk"]["epoch"]);
    assert_eq!(after["disk"]["quarantine"], Value::Null);
    assert!(after["disk"]["sessions"].as_u64() > before["disk"]["sessions"].as_u64());
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn an_emptied_disk_begins_a_new_incarnation() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let before = told(cloud.http).await;
    fs::remove_dir_all(place.site.edge_dir()).unwrap();
    let edge = place.start_edge(cloud.hub).await;
    let after = until_told(&place, cloud.http, "the new disk", |node| {
        up(node) && node["disk"]["closedIncarnations"] == 1
    })
    .await;
    assert_ne!(after["disk"]["incarnation"], before["disk"]["incarnation"]);
    assert_eq!(after["disk"]["quarantine"], Value::Null);
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn an_old_disk_that_was_put_back_goes_on_under_a_new_epoch_and_tells_what_it_lost() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let old = place.path("old");
    copy(&place.site.edge_dir(), &old);
    live_on(&place, &cloud).await;
    put_back(&old, &place.site.edge_dir());
    let edge = place.start_edge(cloud.hub).await;
    let node = until_told(&place, cloud.http, "the old disk", |node| {
        up(node) && node["disk"]["epoch"] == 2
    })
    .await;
    assert_eq!(node["disk"]["quarantine"], Value::Null);
    place.edge_says(&["older state", "new epoch"]).await;
    edge.stop().await.unwrap();
    live_on(&place, &cloud).await;
    let (code, events) = {
        let output = Command::new(place.site.ledge())
            .args(["log", "cat"])
            .arg(place.site.cloud_dir())
            .output()
            .await
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    assert_eq!(code, Some(0));
    assert!(events.contains("HistoryLost"), "{events}");
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn two_copies_of_a_disk_are_both_kept_out_until_an_operator_decides() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let second = place.path("second");
    copy(&place.site.edge_dir(), &second);
    let first = place.start_edge(cloud.hub).await;
    until_told(&place, cloud.http, "the first copy", up).await;
    let launch = place.site.edgecore(cloud.hub).unwrap();
    let launch = with(
        Launch {
            log: place.path("second.log"),
            ..launch
        },
        &[("--data-dir", &second)],
    );
    let clone = launch.start().await.unwrap();
    let node = until_told(&place, cloud.http, "the quarantine", |node| {
        node["disk"]["quarantine"].is_object() && node["link"]["connected"] == false
    })
    .await;
    assert_eq!(node["disk"]["quarantine"]["reason"], "Fork");
    place.cloud_says(&["quarantine", NODE]).await;
    place.edge_says(&["quarantine"]).await;
    let metrics = probe::http_get(cloud.http, "/metrics").await.unwrap();
    assert!(
        probe::metric(&metrics, "ledge_nodes_quarantined", &[]) > 0.5,
        "{metrics}"
    );
    let (code, list) = ledge(&place, Some(cloud.http), &["node", "list"]).await;
    assert!(code == 0 && list.contains("Fork"), "{list}");
    clone.stop().await.unwrap();
    let resolve = ["node", "resolve", NODE, "--accept", "new-incarnation"];
    let (code, said) = ledge(&place, Some(cloud.http), &resolve).await;
    assert_eq!(code, 0, "{said}");
    until_told(&place, cloud.http, "the one that was chosen", |node| {
        up(node) && node["disk"]["quarantine"] == Value::Null
    })
    .await;
    let (code, said) = ledge(&place, Some(cloud.http), &resolve).await;
    assert!(code == 1 && said.contains("not in quarantine"), "{code} {said}");
    // The copy that was not chosen stays out, without another quarantine.
    let clone = launch.start().await.unwrap();
    until_said(&place.path("second.log"), "Superseded").await;
    assert!(up(&told(cloud.http).await), "{:#}", told(cloud.http).await);
    clone.stop().await.unwrap();
    first.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

/// What a page of somebody else's, in a browser on the cloud's machine, would ask; and what cloudcore answers.
async fn post_as(http: SocketAddr, host: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_operator_decides_for_the_disk_that_was_turned_away_and_nobody_decides_from_elsewhere() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let second = place.path("second");
    copy(&place.site.edge_dir(), &second);
    let first = place.start_edge(cloud.hub).await;
    until_told(&place, cloud.http, "the first copy", up).await;
    let launch = Launch {
        log: place.path("second.log"),
        ..place.site.edgecore(cloud.hub).unwrap()
    };
    let second = with(launch, &[("--data-dir", &second)]).start().await.unwrap();
    let quarantined = until_told(&place, cloud.http, "the quarantine", |node| {
        node["disk"]["quarantine"].is_object() && node["link"]["connected"] == false
    })
    .await;
    assert_eq!(quarantined["disk"]["quarantine"]["reason"], "Fork");

    // From elsewhere: refused, and nothing is decided.
    let path = format!("/v1/nodes/{NODE}/resolve");
    for host in ["ledge.example.com", "192.0.2.7:9600"] {
        let answer = post_as(cloud.http, host, &path, r#"{"accept":"this-disk"}"#).await;
        assert!(
            answer.contains("403 Forbidden") && answer.contains("on the machine cloudcore runs on"),
            "{answer}"
        );
    }
    assert!(told(cloud.http).await["disk"]["quarantine"].is_object());

    let resolve = ["node", "resolve", NODE, "--accept", "this-disk"];
    let (code, said) = ledge(&place, Some(cloud.http), &resolve).await;
    assert_eq!(code, 0, "{said}");
    until_told(&place, cloud.http, "the disk that was turned away", |node| {
        up(node) && node["disk"]["quarantine"] == Value::Null
    })
    .await;
    // It is the second; the first is kept out from now on, without another quarantine.
    place.edge_says(&["Superseded"]).await;
    assert!(
        !fs::read_to_string(place.path("second.log"))
            .unwrap()
            .contains("Superseded")
    );
    second.stop().await.unwrap();
    first.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn a_disk_that_comes_back_after_another_took_its_place_is_kept_out_until_an_operator_decides() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let before = told(cloud.http).await;
    let old = place.path("old");
    copy(&place.site.edge_dir(), &old);
    fs::remove_dir_all(place.site.edge_dir()).unwrap();
    live_on(&place, &cloud).await;
    let new = told(cloud.http).await;
    assert_eq!(new["disk"]["closedIncarnations"], 1, "{new:#}");
    assert_ne!(new["disk"]["incarnation"], before["disk"]["incarnation"]);

    put_back(&old, &place.site.edge_dir());
    let edge = place.start_edge(cloud.hub).await;
    let node = until_told(&place, cloud.http, "the quarantine", |node| {
        node["disk"]["quarantine"].is_object()
    })
    .await;
    assert_eq!(node["disk"]["quarantine"]["reason"], "IncarnationClosed");
    assert_eq!(node["link"]["connected"], false);
    place.edge_says(&["IncarnationClosed"]).await;

    let resolve = ["node", "resolve", NODE, "--accept", "this-disk"];
    let (code, said) = ledge(&place, Some(cloud.http), &resolve).await;
    assert_eq!(code, 0, "{said}");
    let node = until_told(&place, cloud.http, "the old disk", |node| {
        up(node) && node["disk"]["quarantine"] == Value::Null
    })
    .await;
    assert_eq!(node["disk"]["incarnation"], before["disk"]["incarnation"]);
    place.cloud_catches_up().await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn a_cloud_that_was_put_back_is_refused_until_an_operator_says_that_it_was_on_purpose() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let hub = cloud.hub;
    cloud.daemon.stop().await.unwrap();
    let old = place.path("old-cloud");
    copy(&place.site.cloud_dir(), &old);
    let launch = place.site.cloudcore(hub).unwrap();
    let cloud = launch.start().await.unwrap();
    let http = ledge::quickstart::site::address(&cloud, "health on ").unwrap();
    let edge = place.start_edge(hub).await;
    until_told(&place, http, "the link", up).await;
    cloud.stop().await.unwrap();
    put_back(&old, &place.site.cloud_dir());
    let cloud = launch.start().await.unwrap();
    place.edge_says(&["CloudRolledBack", "--restored"]).await;
    cloud.stop().await.unwrap();
    let mut restored = launch.clone();
    restored.args.push("--restored".into());
    let cloud = restored.start().await.unwrap();
    let http = ledge::quickstart::site::address(&cloud, "health on ").unwrap();
    until_told(&place, http, "the link to the restored cloud", up).await;
    place.cloud_catches_up().await;
    cloud.stop().await.unwrap();
    edge.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn an_edge_follows_no_cloudcore_of_an_earlier_leadership() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    let hub = cloud.hub;
    cloud.daemon.stop().await.unwrap();
    let other = place.path("other-cloud");
    copy(&place.site.cloud_dir(), &other);
    let launch = place.site.cloudcore(hub).unwrap();
    for _ in 0..2 {
        let cloud = launch.start().await.unwrap();
        let http = ledge::quickstart::site::address(&cloud, "health on ").unwrap();
        let edge = place.start_edge(hub).await;
        until_told(&place, http, "the link", up).await;
        edge.stop().await.unwrap();
        cloud.stop().await.unwrap();
    }
    let _edge = place.start_edge(hub).await;
    let stale = with(launch, &[("--data-dir", &other)]).start().await.unwrap();
    place.edge_says(&["StaleCloud"]).await;
    stale.stop().await.unwrap();
}

/// Both run all the time, and an edge that finds its way to either holds to one of them.
#[tokio::test]
async fn of_two_cloudcores_that_run_at_once_an_edge_follows_one() {
    let place = Place::new().await;
    let cloud = stopped_edge(&place).await;
    cloud.daemon.stop().await.unwrap();
    let other_dir = place.path("other-cloud");
    copy(&place.site.cloud_dir(), &other_dir);
    let launch = place.cloud();
    // The one in its place leads for the third time, the other for the second.
    launch.start().await.unwrap().stop().await.unwrap();
    let first = launch.start().await.unwrap();
    let hub = ledge::quickstart::site::address(&first, "edges on ").unwrap();
    let http = ledge::quickstart::site::address(&first, "health on ").unwrap();
    let other = Launch {
        log: place.path("other-cloud.log"),
        ..place.cloud()
    };
    let other = with(other, &[("--data-dir", &other_dir)]);
    let second = other.start().await.unwrap();
    let second_hub = ledge::quickstart::site::address(&second, "edges on ").unwrap();

    let edge = place.start_edge(hub).await;
    until_told(&place, http, "the link", up).await;
    edge.stop().await.unwrap();
    let edge = place.start_edge(second_hub).await;
    place.edge_says(&["StaleCloud"]).await;
    edge.stop().await.unwrap();

    // The other is started again and again, until it leads by number. It still lacks what the first one has.
    second.stop().await.unwrap();
    other.start().await.unwrap().stop().await.unwrap();
    let second = other.start().await.unwrap();
    let second_hub = ledge::quickstart::site::address(&second, "edges on ").unwrap();
    let edge = place.start_edge(second_hub).await;
    place.edge_says(&["CloudRolledBack"]).await;
    edge.stop().await.unwrap();

    // Neither took it away from the first, which has everything.
    let edge = place.start_edge(hub).await;
    until_told(&place, http, "the link to the first", up).await;
    place.cloud_catches_up().await;
    edge.stop().await.unwrap();
    second.stop().await.unwrap();
    first.stop().await.unwrap();
    place.assert_sound();
    assert_whole(&other_dir);
}
