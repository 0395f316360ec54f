//! Manifests with mistakes, written while everything runs: the last good version stays in force, the log names file,
//! line and what to write instead, and a corrected file is taken at once.

use std::fs;

use ledge::quickstart::probe;

use crate::support::place::{Everything, Place};

const SETPOINT: u16 = 10;

struct Edited {
    place: Place,
    all: Everything,
}

impl Edited {
    async fn start() -> Edited {
        let place = Place::new().await;
        let all = place.start_everything().await;
        let edited = Edited { place, all };
        edited.device_holds(300).await;
        edited
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.place.path("manifests").join(name)
    }

    /// Replaces `from` by `to` in a manifest. Returns `file:line` of the change.
    fn edit(&self, name: &str, from: &str, to: &str) -> String {
        let path = self.file(name);
        let text = fs::read_to_string(&path).unwrap();
        let at = text.find(from).unwrap_or_else(|| panic!("no `{from}` in {text}"));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        format!("{name}:{}", 1 + text[..at].matches('\n').count())
    }

    async fn device_holds(&self, value: u16) {
        self.place.edge_writes(self.all.device, value).await;
    }

    /// The device is still read, and a knob turned at it is turned back to `value`.
    async fn still_in_force(&self, value: u16) {
        let had = self.place.cloud_records();
        self.place.cloud_holds(had + 5).await;
        probe::write_register(self.all.device, SETPOINT, 111)
            .await
            .unwrap();
        self.device_holds(value).await;
    }

    async fn stop(self) {
        self.all.edge.stop().await.unwrap();
        self.all.cloud.daemon.stop().await.unwrap();
        self.place.assert_sound();
    }
}

#[tokio::test]
async fn mistakes_in_a_running_cluster_change_nothing_and_are_explained() {
    let edited = Edited::start().await;
    let cases: [(&str, &str, &[&str]); 5] = [
        ("offset: 10", "offset: 70000", &["offset", "65535"]),
        ("offset: 10", "offste: 10", &["offste", "offset"]),
        (
            "protocolName: modbus",
            "protocolName: modbos",
            &["modbos", "modbus"],
        ),
        ("value: \"30\"", "value: \"hot\"", &["hot"]),
        ("  properties:", "  properties: [", &[]),
    ];
    for (right, wrong, words) in cases {
        let place_of_it = edited.edit("device.yaml", right, wrong);
        let file = if wrong.ends_with('[') {
            "device.yaml:"
        } else {
            &place_of_it
        };
        edited
            .place
            .cloud_says(&[&["manifest", file], words].concat())
            .await;
        edited.still_in_force(300).await;
        edited.edit("device.yaml", wrong, right);
        edited
            .place
            .cloud_says(&[&["manifest repaired", file], words].concat())
            .await;
    }
    // And the edge takes what is right.
    edited.edit("device.yaml", "value: \"30\"", "value: \"41\"");
    edited.device_holds(410).await;
    edited.stop().await;
}

#[tokio::test]
async fn what_is_no_yaml_at_all_changes_nothing() {
    let edited = Edited::start().await;
    let good = fs::read(edited.file("device.yaml")).unwrap();
    let bomb = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n".to_vec();
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("tabs", b"\tapiVersion: v1\n".to_vec(), "device.yaml:1"),
        ("binary", vec![0xff, 0xfe, 0, 1], "not UTF-8 at byte 0"),
        ("aliases", bomb, "device.yaml"),
        ("huge", vec![b'#'; 64 << 20], "bytes, more than"),
    ];
    for (what, bytes, word) in cases {
        fs::write(edited.file("device.yaml"), bytes).unwrap();
        edited.place.cloud_says(&["manifest", "device.yaml", word]).await;
        println!("{what}");
        edited.still_in_force(300).await;
        fs::write(edited.file("device.yaml"), &good).unwrap();
        edited
            .place
            .cloud_says(&["manifest repaired", "device.yaml", word])
            .await;
    }
    edited.stop().await;
}

#[tokio::test]
async fn a_manifests_directory_that_comes_and_goes() {
    let edited = Edited::start().await;
    let (here, away) = (edited.place.path("manifests"), edited.place.path("away"));
    fs::rename(&here, &away).unwrap();
    edited
        .place
        .cloud_says(&["manifests", "cannot be read", "stays in force"])
        .await;
    edited.still_in_force(300).await;
    fs::rename(&away, &here).unwrap();
    edited
        .place
        .cloud_says(&["manifest repaired", "cannot be read"])
        .await;
    edited.edit("device.yaml", "value: \"30\"", "value: \"41\"");
    edited.device_holds(410).await;
    edited.stop().await;
}
