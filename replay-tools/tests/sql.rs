//! `ledge sql`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]
#![cfg(feature = "sql")]

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{Data, command, json, lines, on, ran, sample};

#[test]
fn a_query_prints_a_table_json_or_yaml() {
    let data = Data::story();
    let query = "SELECT device, seq, value, type, time FROM samples WHERE seq IN (1, 10) ORDER BY seq";
    assert_eq!(
        lines(&data, &["sql", "DIR", query]),
        [
            "device        seq   value  type    time",
            "plant/pump-1    1  1500.0  double  2026-11-23T15:00:00.000000Z",
            "plant/pump-1   10  1600.5  double  2026-11-23T15:00:09.000000Z",
        ]
    );
    let rows = json(&data, &["sql", "DIR", query]);
    assert_eq!((&rows[1]["seq"], &rows[1]["value"]), (&10.into(), &1600.5.into()));
    assert_eq!(rows[1]["time"], "2026-11-23T15:00:09.000000Z");
    let yaml = on(&data, &["sql", "DIR", query, "-o", "yaml"]).stdout;
    assert!(yaml.starts_with("---\ndevice: plant/pump-1\n"), "{yaml}");
    assert_eq!(
        lines(&data, &["sql", "DIR", "SELECT seq FROM samples WHERE false"]),
        ["seq"]
    );
}

#[test]
fn the_query_may_come_from_a_file_or_standard_input() {
    let data = Data::story();
    let query = "SELECT count(*) AS n FROM records";
    let file = data.path().join("query.sql");
    std::fs::write(&file, query).unwrap();
    assert_eq!(
        lines(&data, &["sql", "DIR", "--file", file.to_str().unwrap()]),
        [" n", "18"]
    );
    let mut child = command(&["sql", data.path().to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(query.as_bytes()).unwrap();
    assert_eq!(ran(child.wait_with_output().unwrap()).stdout, " n\n18\n");
    assert_eq!(on(&data, &["sql", "DIR"]).code, 2, "no query");
    assert_eq!(on(&data, &["sql", "DIR", "--file", "/does/not/exist"]).code, 2);
}

#[test]
fn mistakes_say_what_is_there() {
    let data = Data::story();
    let column = on(&data, &["sql", "DIR", "SELECT temperature FROM samples"]);
    assert_eq!(column.code, 1);
    assert!(
        column
            .stderr
            .starts_with("error: there is no column temperature\nhint: columns are node, device,"),
        "{}",
        column.stderr
    );
    let write = on(&data, &["sql", "DIR", "DROP TABLE samples"]);
    assert_eq!(write.code, 1);
    assert!(
        write.stderr.contains("hint: the log can only be read"),
        "{}",
        write.stderr
    );
    assert_eq!(on(&data, &["sql", "DIR", "SELECT 1", "--memory", "1MiB"]).code, 2);
}

#[test]
fn the_schema_is_printed_without_a_log() {
    let data = Data::new();
    let shown = lines(&data, &["sql", "--schema"]);
    assert_eq!(
        shown[0],
        "samples: every value a device produced, or what was kept of those that were dropped"
    );
    let tables = json(&data, &["sql", "--schema"]);
    assert_eq!(tables[0][0]["table"], "samples");
    assert_eq!(tables[0][0]["columns"][0]["name"], "node");
}

/// The edge's frames, stored by the cloud beside those of other nodes, give the same bytes.
#[test]
fn edge_and_cloud_answer_with_the_same_bytes() {
    let edge = Data::story();
    let cloud = Data::new();
    let log = cloud.open_as("cloud", 2);
    let other = edge.open();
    let mut blocks = other.read_blocks(ledge_log::BlockNo::ZERO);
    while let Some(block) = blocks.next_block().unwrap() {
        for frame in block.frames() {
            log.append_frame_blocking(frame.unwrap()).unwrap();
        }
        log.append_blocking(
            &"edge-0/up.data".parse().unwrap(),
            vec![sample("plant/pump-1/speed", 0, 0.5)],
        )
        .unwrap();
    }
    for query in [
        "SELECT * FROM samples WHERE node = 'edge-1'",
        "SELECT * FROM records WHERE node = 'edge-1'",
        "SELECT * FROM twins WHERE node = 'edge-1'",
        "SELECT * FROM devices WHERE node = 'edge-1'",
        "SELECT property, avg(value), stddev(value) FROM samples WHERE node = 'edge-1' GROUP BY property",
    ] {
        let of = |data: &Data| on(data, &["sql", "DIR", query]).stdout;
        assert!(of(&edge).lines().count() > 1, "{query}");
        assert_eq!(of(&edge), of(&cloud), "{query}");
    }
    assert_eq!(
        lines(
            &cloud,
            &[
                "sql",
                "DIR",
                "SELECT count(*) AS n FROM samples WHERE node = 'edge-0'"
            ]
        ),
        ["n", "9"]
    );
}

#[test]
fn a_damaged_log_is_code_6() {
    let data = Data::story();
    let segment = data.log_dir().join("seg-0000000000000000.ldg");
    let mut bytes = std::fs::read(&segment).unwrap();
    // The last byte of the first block with frames: kind at 4, length of the body at 8 (docs/format/segment.md).
    let at = (4096..bytes.len())
        .step_by(512)
        .find(|at| bytes[*at..].starts_with(b"LBK1") && bytes[at + 4] == 1)
        .unwrap();
    let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
    bytes[at + 63 + usize::try_from(len).unwrap()] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let ran = on(&data, &["sql", "DIR", "SELECT * FROM records"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.stderr.contains("ledge log verify"), "{}", ran.stderr);
}
