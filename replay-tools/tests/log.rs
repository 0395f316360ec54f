//! `ledge log`: what it prints, and its exit codes on logs broken by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;

use common::{Data, command, json, lines, on, sample};
use ledge_proto::ids::StreamId;

#[test]
fn info_names_the_log_and_every_stream() {
    let data = Data::story();
    let shown = lines(&data, &["log", "info", "DIR"]);
    assert_eq!(shown[0], "Node         edge-1");
    assert!(shown.contains(&"Blocks       1 to 9".to_owned()), "{shown:#?}");
    assert_eq!(
        shown[6],
        "STREAM           FIRST  LAST  RECORDS  BYTES  FIRST TIME (UTC)     LAST TIME (UTC)"
    );
    assert!(
        shown[9].starts_with("edge-1/up.data       1    11       11"),
        "{}",
        shown[9]
    );
    assert!(
        shown[9].ends_with("2026-11-23 15:00:00  2026-11-23 15:00:11"),
        "{}",
        shown[9]
    );
    let document = &json(&data, &["log", "info", "DIR"])[0];
    assert_eq!(document["streams"][2]["last_time"], "2026-11-23T15:00:11.000000Z");
    assert_eq!(document["last_block"], 9);
}

#[test]
fn the_log_directory_itself_will_do() {
    let data = Data::story();
    let of = |dir: &str| common::ledge(&["log", "verify", dir]);
    assert_eq!(
        of(data.path().to_str().unwrap()).stdout,
        of(data.log_dir().to_str().unwrap()).stdout
    );
}

#[test]
fn cat_selects_by_stream_place_key_and_kind() {
    let data = Data::story();
    let seqs = |args: &[&str]| -> Vec<u64> {
        let args: Vec<&str> = ["log", "cat", "DIR"].iter().chain(args).copied().collect();
        json(&data, &args)
            .iter()
            .map(|record| record["seq"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(seqs(&[]).len(), 18);
    assert_eq!(
        seqs(&["--stream", "edge-1/up.data", "--from", "4", "--to", "7"]),
        [4, 5, 6, 7]
    );
    assert_eq!(
        seqs(&["--from", "6", "--to", "7"]),
        [3, 3, 4],
        "blocks without a stream"
    );
    assert_eq!(seqs(&["--from", "2026-11-23T15:00:08Z"]), [9, 10, 11]);
    assert_eq!(
        seqs(&["--to", "-1h", "--kind", "TwinDesired"]),
        [2],
        "relative to --now"
    );
    assert_eq!(seqs(&["--kind", "twindesired,TwinReported"]), [2, 3, 4]);
    assert_eq!(
        seqs(&["--key", "plant/*", "--stream", "edge-1/up.state"]),
        [2, 3, 4]
    );
    let wrong = on(&data, &["log", "cat", "DIR", "--stream", "edge-2"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (1, ""));
    assert_eq!(
        wrong.stderr,
        "error: the log has no such stream\nhint: it has edge-1/down, edge-1/up.state, edge-1/up.data\n"
    );
}

#[test]
fn cat_decodes_every_payload() {
    let data = Data::story();
    let shown = lines(&data, &["log", "cat", "DIR"]);
    assert_eq!(shown.len(), 19);
    assert!(
        shown[1]
            .ends_with("DeviceSpec    plant/pump-1        modbus tcp 10.0.0.5:502 unit 1 with 1 properties")
    );
    assert!(
        shown[11].ends_with("WriteResult   plant/pump-1/speed  1600 applied"),
        "{}",
        shown[11]
    );
    let record = &json(&data, &["log", "cat", "DIR", "--kind", "WriteResult"])[0];
    assert_eq!(record["payload"]["desired"]["seq"], 3);
    let yaml = on(&data, &["log", "cat", "DIR", "--kind", "NodeState", "-o", "yaml"]);
    assert!(
        yaml.stdout.starts_with("---\n") && yaml.stdout.contains("site: north"),
        "{}",
        yaml.stdout
    );
}

#[test]
fn tail_prints_the_end_and_follows() {
    let data = Data::story();
    let shown = lines(&data, &["log", "tail", "DIR", "-n", "2"]);
    assert_eq!(shown.len(), 3);
    assert!(shown[2].ends_with("Calibrated: by hand"));
    let last = json(
        &data,
        &["log", "tail", "DIR", "-n", "1", "--stream", "edge-1/down"],
    );
    assert_eq!(last[0]["seq"], 3);

    let log = data.open();
    let mut follower = command(&[
        "log",
        "tail",
        "-f",
        "-n",
        "1",
        data.path().to_str().unwrap(),
        "-o",
        "json",
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut out = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(out.next().unwrap().unwrap().contains("Calibrated"));
    let stream: StreamId = "edge-1/up.data".parse().unwrap();
    log.append_blocking(&stream, vec![sample("plant/pump-1/speed", 20, 7.25)])
        .unwrap();
    assert!(out.next().unwrap().unwrap().contains("7.25"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn stats_measure_each_stream() {
    let data = Data::story();
    let stats = &json(&data, &["log", "stats", "DIR"])[0];
    let stream = &stats["streams"][2];
    assert_eq!(
        (&stream["records"], &stream["records_per_second"]),
        (&11.into(), &1.0.into())
    );
    assert_eq!(stats["blocks"], 9);
    assert!(lines(&data, &["log", "stats", "DIR"])[0].starts_with("STREAM"));
}

/// As a daemon notes it in its data directory.
fn note(incarnation: &str, applied_block: u64) -> serde_json::Value {
    serde_json::json!({
        "software": "edgecore 9.9", "atUs": common::T0, "incarnation": incarnation, "stopped": true,
        "appliedBlock": applied_block, "durableBlock": 9, "of a later version": {},
        "fsync": {"count": 5, "meanSeconds": 0.0012, "p50Seconds": 0.001, "p99Seconds": 0.004},
        "disk": {
            "limitBytes": 200 << 20, "logLimitBytes": 100 << 20, "logUsedBytes": 65536, "restBytes": 1 << 20,
            "freeBytes": 5_u64 << 30, "forecastSeconds": 7200.0, "full": false,
        },
    })
}

#[test]
fn stats_take_in_what_the_daemon_noted() {
    let data = Data::story();
    let stats = |args: &[&str]| json(&data, &[&["log", "stats", "DIR"], args].concat())[0].clone();
    let unknown = stats(&[]);
    assert_eq!(
        (&unknown["daemon"], &unknown["streams"][2]["applied"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    let file = data.path().join("status.json");
    let log = data.open();
    let incarnation = log.identity().incarnation.to_string();
    log.close().unwrap();
    // 18 records in 9 blocks; of up.data some are in the last three.
    fs::write(&file, note(&incarnation, 9).to_string()).unwrap();
    let all = stats(&[]);
    for stream in all["streams"].as_array().unwrap() {
        assert_eq!(stream["applied"], stream["head"], "{stream}");
    }
    assert_eq!(
        (&all["daemon"]["fsync"]["p99_seconds"], &all["daemon"]["stopped"]),
        (&0.004.into(), &true.into())
    );
    assert_eq!(all["daemon"]["disk"]["limit_bytes"], 200 << 20);
    assert_eq!(
        all["forecast"]["limit_bytes"],
        100 << 20,
        "the daemon's own limit"
    );
    assert_eq!(stats(&["--limit", "50MiB"])["forecast"]["limit_bytes"], 50 << 20);
    fs::write(&file, note(&incarnation, 6).to_string()).unwrap();
    let behind = &stats(&[])["streams"][2];
    let applied = behind["applied"].as_u64().unwrap();
    assert!(
        0 < applied && applied < behind["head"].as_u64().unwrap(),
        "{behind}"
    );
    let shown = lines(&data, &["log", "stats", "DIR"]).join("\n");
    for words in [
        "APPLIED",
        "edgecore 9.9, stopped 1h 00m ago: applied up to block 6, 3 blocks wait",
        "99 of 100 within 4.0ms",
        "log 64.0 KiB of 100.0 MiB, the rest of the directory 1.0 MiB, limit for both 200.0 MiB",
    ] {
        assert!(shown.contains(words), "`{words}` is not in:\n{shown}");
    }
    // Another log's note, and one that makes no sense, say nothing of this log.
    for other in [note("00", 9).to_string(), "{".to_owned(), "[1]".to_owned()] {
        fs::write(&file, other).unwrap();
        assert_eq!(stats(&[])["daemon"], serde_json::Value::Null);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let data = Data::new();
    let log = data.open();
    let stream: StreamId = "edge-1/up.data".parse().unwrap();
    for _ in 0..20 {
        log.append_blocking(&stream, vec![sample("plant/pump-1/speed", 1, 1.0); 500])
            .unwrap();
    }
    log.close().unwrap();
    let mut cat = command(&["log", "cat", data.path().to_str().unwrap(), "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut one = [0; 1];
    cat.stdout.take().unwrap().read_exact(&mut one).unwrap();
    let output = cat.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{output:?}"
    );
}

fn first_segment(data: &Data) -> PathBuf {
    let mut segments: Vec<PathBuf> = fs::read_dir(data.log_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "ldg"))
        .collect();
    segments.sort();
    segments.remove(0)
}

/// Changes the last byte of the first or last block of the first segment that holds frames.
fn damage(data: &Data, last: bool) {
    let path = first_segment(data);
    let mut bytes = fs::read(&path).unwrap();
    // docs/format/segment.md: kind at 4, number of frames at 6, length of the body at 8.
    let mut blocks = (4096..bytes.len())
        .step_by(512)
        .filter(|at| bytes[*at..].starts_with(b"LBK1") && bytes[at + 4] == 1);
    let at = if last { blocks.next_back() } else { blocks.next() }.unwrap();
    let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap());
    bytes[at + 63 + usize::try_from(len).unwrap()] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

#[test]
fn verify_answers_0_for_an_intact_log() {
    let data = Data::story();
    let shown = lines(&data, &["log", "verify", "DIR"]);
    assert_eq!(
        shown.last().unwrap(),
        "Intact: 18 records in 9 blocks and 1 segment, 2.0 KiB"
    );
    assert_eq!(json(&data, &["log", "verify", "DIR"])[0]["intact"], true);
}

#[test]
fn verify_answers_3_for_a_torn_tail() {
    let data = Data::story();
    // What a power cut leaves: a log that was not closed, its last block half written.
    let log = data.open();
    let stream: StreamId = "edge-1/up.data".parse().unwrap();
    log.append_blocking(&stream, vec![sample("plant/torn/speed", 20, 1.0)])
        .unwrap();
    let torn = Data::new();
    fs::create_dir(torn.log_dir()).unwrap();
    for entry in fs::read_dir(data.log_dir()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, torn.log_dir().join(path.file_name().unwrap())).unwrap();
    }
    damage(&torn, true);
    let ran = on(&torn, &["log", "verify", "DIR"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stdout.contains("torn tail: "), "{}", ran.stdout);
}

#[test]
fn verify_answers_4_for_damaged_bytes() {
    let data = Data::story();
    damage(&data, false);
    let ran = on(&data, &["log", "verify", "DIR"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let report = &json(&data, &["log", "verify", "DIR"])[0];
    assert_eq!(
        (&report["intact"], &report["exit_code"]),
        (&false.into(), &4.into())
    );
    assert!(report["findings"][0]["offset"].as_u64().unwrap() >= 4096);
    // What needs the damaged block fails, and says what to do.
    let cat = on(&data, &["log", "cat", "DIR"]);
    assert_eq!(cat.code, 6, "{cat:?}");
    assert!(cat.stderr.contains("ledge log verify"), "{}", cat.stderr);
}

#[test]
fn verify_answers_5_for_missing_records() {
    let data = Data::new();
    let log = data.open();
    let stream: StreamId = "edge-1/up.data".parse().unwrap();
    for n in 0..3000_i64 {
        let value = f64::from(i32::try_from(n * 7919 % 104_729).unwrap());
        log.append_blocking(&stream, vec![sample("plant/pump-1/speed", n, value)])
            .unwrap();
    }
    log.close().unwrap();
    let mut segments: Vec<PathBuf> = fs::read_dir(data.log_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "ldg"))
        .collect();
    segments.sort();
    assert!(segments.len() > 3, "{segments:?}");
    // A disk that lost its last writes, or an older copy put back.
    fs::remove_file(segments.last().unwrap()).unwrap();
    let ran = on(&data, &["log", "verify", "DIR"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.stdout.contains("lost durable data: "), "{}", ran.stdout);
}

#[test]
fn nothing_to_read_is_code_6_and_nonsense_is_code_2() {
    let data = Data::new();
    for args in [
        &["log", "info", "DIR"][..],
        &["log", "verify", "DIR"],
        &["at", "DIR"],
        &["replay", "DIR"],
    ] {
        let ran = on(&data, args);
        assert_eq!((ran.code, ran.stdout.as_str()), (6, ""), "{args:?}");
        assert!(
            ran.stderr.starts_with("error: there is no log in "),
            "{}",
            ran.stderr
        );
        assert!(
            ran.stderr.contains("\nhint: DIR is the data directory"),
            "{}",
            ran.stderr
        );
    }
    let missing = common::ledge(&["log", "info", "/does/not/exist"]);
    assert_eq!(missing.code, 6);
    for args in [
        &["log"][..],
        &["log", "info"],
        &["log", "cat", "DIR", "--kind", "Nonsense"],
        &["nonsense"],
    ] {
        assert_eq!(on(&data, args).code, 2, "{args:?}");
    }
}

#[test]
fn garbage_in_place_of_a_log_gives_errors_not_panics() {
    for garbage in [
        vec![],
        vec![0; 10_000],
        b"LDGSEG01".repeat(1000),
        (0..=255).cycle().take(9000).collect(),
    ] {
        let data = Data::new();
        fs::create_dir(data.log_dir()).unwrap();
        for name in ["seg-0000000000000000.ldg", "super-a", "super-b"] {
            fs::write(data.log_dir().join(name), &garbage).unwrap();
        }
        let commands: [&[&str]; 6] = [
            &["log", "info", "DIR"],
            &["log", "cat", "DIR"],
            &["log", "verify", "DIR"],
            &["log", "stats", "DIR"],
            &["at", "DIR"],
            &["sql", "DIR", "SELECT * FROM samples"],
        ];
        for args in commands {
            let ran = on(&data, args);
            assert!((1..=6).contains(&ran.code), "{args:?}: {ran:?}");
            assert!(!ran.stderr.contains("panicked"), "{args:?}: {}", ran.stderr);
        }
    }
}
