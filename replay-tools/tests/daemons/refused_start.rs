//! Starts that must be refused: with what is wrong, where, and what to do. Exit code 1 where something outside has to
//! change, 78 where the configuration has to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::place::{ANY, NOWHERE, Place, assert_whole, ends, refuses, with};

#[tokio::test]
async fn a_data_directory_of_another_cluster() {
    let (here, there) = (Place::new().await, Place::new().await);
    here.start_edge(NOWHERE).await.stop().await.unwrap();
    here.start_cloud().await.daemon.stop().await.unwrap();
    let dir = here.site.edge_dir();
    let edge = with(there.edge_alone(), &[("--data-dir", &dir)]);
    refuses(
        &edge,
        1,
        &[dir.to_str().unwrap(), "belongs to cluster", "ledge reset"],
    )
    .await;
    let dir = here.site.cloud_dir();
    let cloud = with(there.cloud(), &[("--data-dir", &dir)]);
    refuses(
        &cloud,
        1,
        &[dir.to_str().unwrap(), "belongs to cluster", "ledge reset"],
    )
    .await;
    here.assert_sound();
    // Refusing changed nothing: who belongs there goes on.
    here.start_edge(NOWHERE).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_of_another_node() {
    let place = Place::new().await;
    place.start_edge(NOWHERE).await.stop().await.unwrap();
    let other = place.issue_node("edge-2");
    let mut edge = with(
        place.edge_alone(),
        &[("--cert", &other.cert), ("--key", &other.key)],
    );
    edge.args.extend(["--node-name".to_owned(), "edge-2".to_owned()]);
    refuses(
        &edge,
        1,
        &["written by `edge-1`", "this is `edge-2`", "right data directory"],
    )
    .await;
    // cloudcore on an edge's directory.
    let cloud = with(place.cloud(), &[("--data-dir", &place.site.edge_dir())]);
    refuses(&cloud, 1, &["written by `edge-1`", "this is `cloud`"]).await;
    place.assert_sound();
}

#[tokio::test]
async fn a_second_edgecore_on_the_same_data_directory() {
    let place = Place::new().await;
    let first = place.start_edge(NOWHERE).await;
    let pid = first.pid().unwrap().to_string();
    refuses(
        &place.edge_alone(),
        1,
        &["in use by process", &pid, "stop that process"],
    )
    .await;
    first.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn ports_in_use() {
    let place = Place::new().await;
    let cloud = place.start_cloud().await;
    let taken = cloud.hub.to_string();
    let second = Place::new().await;
    let hub = second.site.cloudcore(cloud.hub).unwrap();
    refuses(&hub, 1, &["cannot listen on UDP", &taken, "--listen", "port 0"]).await;
    let taken = cloud.http.to_string();
    for mut launch in [second.cloud(), second.edge_alone()] {
        launch.args.extend(["--http-listen".to_owned(), taken.clone()]);
        refuses(&launch, 1, &["cannot listen on", &taken, "--http-listen"]).await;
    }
    cloud.daemon.stop().await.unwrap();
    // What was opened before the port was asked for, was closed in order.
    second.assert_sound();
    second.start_edge(NOWHERE).await.stop().await.unwrap();
    assert!(
        !second.edge_said().contains("clean: false"),
        "{}",
        second.edge_said()
    );
}

#[tokio::test]
async fn a_data_directory_that_is_a_file() {
    let place = Place::new().await;
    let file = place.path("file");
    fs::write(&file, "mine").unwrap();
    for launch in [place.edge_alone(), place.cloud()] {
        let launch = with(launch, &[("--data-dir", &file)]);
        refuses(&launch, 1, &[file.to_str().unwrap(), "Not a directory"]).await;
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written() {
    let place = Place::new().await;
    let nobody = Nobody::of(&place);
    for launch in [place.edge_alone(), place.cloud()] {
        let launch = nobody.runs(with(launch, &[("--data-dir", &place.path("locked"))]));
        refuses(
            &launch,
            1,
            &["locked", "Permission denied", "must be able to write there"],
        )
        .await;
    }
}

/// A user who may read the place but not write in `locked`.
struct Nobody;

impl Nobody {
    fn of(place: &Place) -> Nobody {
        let mode = |name: &str, mode| {
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir(place.path("locked")).unwrap();
        mode("locked", 0o555);
        mode("", 0o755);
        for key in ["pki/cloudcore.key", "pki/edge-1.key"] {
            mode(key, 0o644);
        }
        Nobody
    }

    /// The same program, run by this user when the test is run by root.
    fn runs(&self, launch: ledge::quickstart::daemons::Launch) -> ledge::quickstart::daemons::Launch {
        if !rustix::process::geteuid().is_root() {
            return launch;
        }
        let mut args: Vec<String> = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"]
            .map(Into::into)
            .into();
        args.push(launch.program.display().to_string());
        args.extend(launch.args);
        ledge::quickstart::daemons::Launch {
            program: "setpriv".into(),
            args,
            ..launch
        }
    }
}

#[tokio::test]
async fn an_unknown_key_in_the_configuration() {
    let place = Place::new().await;
    for (launch, file, from, to) in [
        (place.edge_alone(), "edgecore.yaml", "dataDir:", "dataDire:"),
        (place.cloud(), "cloudcore.yaml", "manifestsDir:", "manifestDir:"),
    ] {
        let path = place.path(file);
        let text = fs::read_to_string(&path).unwrap().replacen(from, to, 1);
        let line = 1 + text.lines().position(|line| line.contains(to)).unwrap();
        fs::write(&path, text).unwrap();
        let line = format!("line {line}: ");
        let wrong = to.trim_end_matches(':');
        let right = from.trim_end_matches(':');
        refuses(&launch, 78, &[file, &line, wrong, "did you mean", right]).await;
    }
    assert!(
        !place.site.edge_dir().exists(),
        "nothing is made before the configuration is right"
    );
}

#[tokio::test]
async fn a_later_versions_segment() {
    let place = Place::new().await;
    place.start_edge(NOWHERE).await.stop().await.unwrap();
    place.start_cloud().await.daemon.stop().await.unwrap();
    for (dir, launch) in [
        (place.site.edge_dir(), place.edge_alone()),
        (place.site.cloud_dir(), place.cloud()),
    ] {
        let segment = crate::damaged_log::first_segment(&dir);
        let before = fs::read(&segment).unwrap();
        let mut later = before.clone();
        crate::damaged_log::raise_version(&mut later);
        fs::write(&segment, &later).unwrap();
        let name = segment.to_str().unwrap().to_owned();
        refuses(&launch, 1, &[&name, "version", "upgrade"]).await;
        assert!(fs::read(&segment).unwrap() == later, "the file was changed");
        fs::write(&segment, &before).unwrap();
        assert_whole(&dir);
    }
}

#[tokio::test]
async fn flags_that_cannot_be() {
    let place = Place::new().await;
    let none = Path::new("somewhere");
    let edge = with(place.edge_alone(), &[("--http-listen", none)]);
    refuses(&edge, 78, &["--http-listen", "somewhere", "off"]).await;
    let cloud = with(
        place.site.cloudcore(ANY).unwrap(),
        &[("--manifests", &place.path("nowhere"))],
    );
    refuses(&cloud, 1, &["manifests directory", "nowhere", "No such file"]).await;
    let unknown = with(place.edge_alone(), &[("--data-dirr", none)]);
    assert_eq!(ends(&unknown).await.code, Some(2));
}
