//! `ledge at`, `diff` and `replay`: the past, by place and by clock.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

mod common;

use common::{Data, double, json, lines, on, record, reported, sample};
use ledge_proto::ids::StreamId;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::Value;

fn twin(data: &Data, args: &[&str]) -> (Value, Value, Value) {
    let args: Vec<&str> = ["at", "DIR"].iter().chain(args).copied().collect();
    let document = &json(data, &args)[0];
    let twin = &document["nodes"][0]["devices"]["plant/pump-1"]["twins"]["speed"];
    let value = |field: &str| twin[field]["value"].clone();
    (value("desired"), value("reported"), value("sample"))
}

#[test]
fn at_shows_the_end_by_default() {
    let data = Data::story();
    assert_eq!(twin(&data, &[]), (1600.0.into(), 1600.0.into(), 1600.5.into()));
    let shown = lines(&data, &["at", "DIR"]);
    assert_eq!(shown[0], "As of the log's end, block 9: 18 records");
    assert_eq!(shown[3], "edge-1  0.1.0    b1    2026-11-23 14:59:20.000  1");
    assert_eq!(shown[6], "edge-1  plant/pump-1  online  2026-11-23 14:59:30.000");
    assert_eq!(
        shown[9],
        "edge-1  plant/pump-1  speed     1600     1600      applied  1600.5  2026-11-23 15:00:09.000"
    );
}

#[test]
fn at_a_record_counts_that_record_and_all_written_before_it() {
    let data = Data::story();
    let at = |seq: &str, stream: &str| twin(&data, &["--seq", seq, "--stream", stream]);
    assert_eq!(at("2", "edge-1/down"), (1500.0.into(), Value::Null, Value::Null));
    assert_eq!(
        at("3", "edge-1/up.data"),
        (1500.0.into(), Value::Null, 1502.0.into()),
        "inside a frame"
    );
    assert_eq!(
        at("3", "edge-1/down"),
        (1600.0.into(), Value::Null, 1504.0.into())
    );
    assert_eq!(
        at("3", "edge-1/up.state"),
        (1600.0.into(), Value::Null, 1504.0.into())
    );
}

#[test]
fn at_a_block_counts_it_and_all_before() {
    let data = Data::story();
    assert_eq!(
        twin(&data, &["--seq", "5"]),
        (1500.0.into(), Value::Null, 1504.0.into())
    );
    assert_eq!(
        json(&data, &["at", "DIR", "--seq", "0"])[0]["nodes"],
        Value::Array(vec![])
    );
    let beyond = on(&data, &["at", "DIR", "--seq", "10"]);
    assert_eq!(
        (beyond.code, beyond.stderr.as_str()),
        (
            1,
            "error: the log has no block 10\nhint: it holds blocks 1 to 9\n"
        )
    );
}

/// Another start, whose clock shows 1970 until a minute after its boot: ten minutes after the story began.
fn unset_clock(data: &Data) {
    let early = |second: u64, record: v1::Record| v1::Record {
        wall_us: i64::try_from(second * 1_000_000).unwrap(),
        mono_us: second * 1_000_000,
        clock: v1::ClockQuality::ClockBeforeBuild.into(),
        boot: 2,
        ..record
    };
    let sync = v1::ClockSync {
        boot: 2,
        mono_us: 60_000_000,
        wall_us: common::T0 + 600_000_000,
        before_us: 60_000_000,
        quality: v1::ClockQuality::ClockSynced.into(),
    };
    let offline = v1::DeviceState {
        state: "offline".into(),
        message: String::new(),
    };
    let log = data.open();
    for (stream, record) in [
        ("edge-1/up.data", early(10, sample("plant/pump-1/speed", 0, 10.5))),
        (
            "edge-1/up.state",
            early(15, reported("plant/pump-1/speed", 0, 15.5)),
        ),
        (
            "edge-1/up.state",
            early(16, record("plant/pump-1", 0, &Payload::DeviceState(offline))),
        ),
        ("edge-1/up.data", early(20, sample("plant/pump-1/speed", 0, 20.5))),
        ("edge-1/up.data", record("edge-1", 600, &Payload::ClockSync(sync))),
    ] {
        log.append_blocking(&stream.parse::<StreamId>().unwrap(), vec![record])
            .unwrap();
    }
    log.close().unwrap();
}

#[test]
fn what_was_written_before_the_clock_was_set_has_its_time_in_at() {
    let data = Data::story();
    unset_clock(&data);
    let document = &json(&data, &["at", "DIR"])[0];
    let device = &document["nodes"][0]["devices"]["plant/pump-1"];
    for (what, time) in [
        (&device["twins"]["speed"]["sample"], "2026-11-23T15:09:20.000000Z"),
        (
            &device["twins"]["speed"]["reported"],
            "2026-11-23T15:09:15.000000Z",
        ),
        (&device["state"], "2026-11-23T15:09:16.000000Z"),
    ] {
        assert_eq!((&what["time"], &what["clock"]), (&time.into(), &"retimed".into()));
    }
    // The cloud's own clock was right all the time.
    assert_eq!(device["twins"]["speed"]["desired"]["clock"], "synced");
    let shown = lines(&data, &["at", "DIR"]).join("\n");
    assert!(shown.contains("20.5    2026-11-23 15:09:20.000"), "{shown}");
    // A moment is that of the corrected times.
    let at = |time: &str| twin(&data, &["--time", time]);
    let before = (1600.0.into(), 1600.0.into(), 1600.5.into());
    assert_eq!(at("2026-11-23T15:08:00Z"), before, "before any of it");
    assert_eq!(
        at("2026-11-23T15:09:10Z"),
        (1600.0.into(), 1600.0.into(), 10.5.into())
    );
    assert_eq!(
        at("2026-11-23T15:09:15Z"),
        (1600.0.into(), 15.5.into(), 10.5.into())
    );
    assert_eq!(
        at("2026-11-23T15:09:20Z"),
        (1600.0.into(), 15.5.into(), 20.5.into())
    );
}

#[test]
fn at_a_time_counts_what_clocks_say_not_the_order_of_writing() {
    let data = Data::story();
    // The samples of seconds 5 and 6 were written after the desired value of second 5 was reported.
    let at = |time: &str| twin(&data, &["--time", time]);
    assert_eq!(
        at("2026-11-23T15:00:05Z"),
        (1600.0.into(), Value::Null, 1600.5.into())
    );
    assert_eq!(
        at("2026-11-23T15:00:04.999Z"),
        (1500.0.into(), Value::Null, 1504.0.into())
    );
    assert_eq!(
        at("2026-11-23 15:00:02"),
        (1500.0.into(), Value::Null, 1502.0.into())
    );
    assert_eq!(
        at("-1h"),
        (1500.0.into(), Value::Null, 1500.0.into()),
        "relative to --now"
    );
}

#[test]
fn a_clock_that_jumps_hides_only_the_records_it_dated_wrongly() {
    let data = Data::new();
    let log = data.open();
    let stream: StreamId = "edge-1/up.data".parse().unwrap();
    let far = 10 * 365 * 86_400;
    // One frame with a wrong record inside, a frame of wrong ones only, then right ones again.
    let put = |records: Vec<v1::Record>| log.append_blocking(&stream, records).unwrap();
    put(vec![
        sample("a/b/x", 0, 1.0),
        sample("a/b/y", far, 2.0),
        sample("a/b/z", 1, 3.0),
    ]);
    put((0..100).map(|n| sample("a/b/w", far + n, 4.0)).collect());
    put(vec![sample("a/b/x", 2, 5.0)]);
    log.close().unwrap();
    let document = &json(&data, &["at", "DIR", "--time", "now"])[0];
    let twins = &document["nodes"][0]["devices"]["a/b"]["twins"];
    assert_eq!(twins["x"]["sample"]["value"], 5.0);
    assert_eq!(twins["x"]["sample"]["seq"], 104, "places are those of the log");
    assert_eq!(twins["z"]["sample"]["value"], 3.0);
    assert_eq!((&twins["y"], &twins["w"]), (&Value::Null, &Value::Null));
    assert_eq!(document["records"], 3);
}

#[test]
fn at_selects_nodes_and_devices() {
    let data = Data::story();
    let devices = |args: &[&str]| {
        let args: Vec<&str> = ["at", "DIR"].iter().chain(args).copied().collect();
        json(&data, &args)[0]["nodes"][0]["devices"]
            .as_object()
            .map(serde_json::Map::len)
    };
    assert_eq!(devices(&["--device", "plant/*"]), Some(1));
    assert_eq!(devices(&["--device", "other/*"]), Some(0));
    assert_eq!(on(&data, &["at", "DIR", "--node", "edge-9"]).code, 1);
    assert_eq!(on(&data, &["at", "DIR", "--seq", "1", "--time", "now"]).code, 2);
    assert_eq!(on(&data, &["at", "DIR", "--stream", "edge-1/down"]).code, 2);
}

#[test]
fn diff_tells_what_changed_and_answers_by_code() {
    let data = Data::story();
    let ran = on(
        &data,
        &["diff", "DIR", "--from", "edge-1/down:2", "--to", "edge-1/down:3"],
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let shown: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(shown[0], "   NODE    DEVICE        PROPERTY  FIELD    FROM  TO");
    assert!(
        shown.contains(&"~  edge-1  plant/pump-1  speed     desired  1500  1600"),
        "{}",
        ran.stdout
    );
    assert!(
        shown.contains(&"+  edge-1  plant/pump-1  -         state    -     online"),
        "{}",
        ran.stdout
    );

    let same = on(&data, &["diff", "DIR", "--from", "8", "--to", "end"]);
    assert_eq!(
        (same.code, same.stdout.as_str()),
        (0, ""),
        "samples and events are no state"
    );
    assert_eq!(
        on(&data, &["diff", "DIR", "--from", "7", "--to", "8", "--samples"]).code,
        1
    );
    assert_eq!(
        on(&data, &["diff", "DIR", "--from", "start", "--node", "edge-9"]).code,
        0
    );
    let changed = json(
        &data,
        &["diff", "DIR", "--from", "2026-11-23T15:00:04Z", "--to", "now"],
    );
    assert_eq!(changed[0]["field"], "desired");
    assert_eq!(
        (&changed[0]["from"], &changed[0]["to"]),
        (&"1500".into(), &"1600".into())
    );
    assert_eq!(on(&data, &["diff", "DIR", "--from", "sometime"]).code, 2);
    assert_eq!(on(&data, &["diff", "DIR"]).code, 2);
}

#[test]
fn a_removed_device_is_a_difference() {
    let data = Data::story();
    let log = data.open();
    let removed = record("plant/pump-1", 30, &Payload::DeviceRemoved);
    log.append_blocking(&"edge-1/down".parse().unwrap(), vec![removed])
        .unwrap();
    log.close().unwrap();
    let ran = on(&data, &["diff", "DIR", "--from", "9", "-o", "json"]);
    assert_eq!(ran.code, 1);
    let gone: Vec<Value> = serde_json::Deserializer::from_str(&ran.stdout)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(
        gone.iter()
            .any(|change| change["field"] == "spec" && change["to"].is_null()),
        "{gone:#?}"
    );
    assert!(
        gone.iter()
            .any(|change| change["field"] == "desired" && change["to"].is_null()),
        "{gone:#?}"
    );
}

#[test]
fn replay_gives_the_hash_of_the_fold_and_checks_an_expected_one() {
    let data = Data::story();
    let scope = json(&data, &["replay", "DIR"])[0]["scopes"][0].clone();
    assert_eq!(
        (&scope["scope"], &scope["records"], &scope["devices"]),
        (&"edge-1".into(), &18.into(), &1.into())
    );
    let mut state = ledge_proto::fold::State::new();
    let log = data.open();
    let mut blocks = log.read_blocks(ledge_log::BlockNo::ZERO);
    while let Some(block) = blocks.next_block().unwrap() {
        for frame in block.frames() {
            state.apply_frame(&frame.unwrap()).unwrap();
        }
    }
    let hash = hex::encode(state.hash(&ledge_proto::ids::Scope::node("edge-1").unwrap()));
    assert_eq!(scope["hash"], hash);

    let expect = |hash: &str| {
        on(
            &data,
            &["replay", "DIR", "--expect-hash", &format!("edge-1={hash}")],
        )
    };
    assert_eq!(expect(&hash).code, 0);
    let other = expect(&"0".repeat(64));
    assert_eq!(other.code, 1);
    assert!(
        other.stderr.starts_with("differs: edge-1 expected 0000"),
        "{}",
        other.stderr
    );
    assert_eq!(expect("12").code, 2);
    let earlier = json(&data, &["replay", "DIR", "--until", "5"])[0]["scopes"][0].clone();
    assert_ne!(earlier["hash"], hash);
    assert_eq!(earlier["records"], 9);
}

#[test]
fn a_running_log_can_be_read() {
    let data = Data::story();
    let log = data.open();
    let value = v1::TwinDesired {
        value: double(1700.0),
    };
    let wish = record("plant/pump-1/speed", 60, &Payload::TwinDesired(value));
    log.append_blocking(&"edge-1/down".parse().unwrap(), vec![wish])
        .unwrap();
    assert_eq!(twin(&data, &[]).0, 1700.0);
    assert_eq!(twin(&data, &["--time", "2026-11-23T15:00:30Z"]).0, 1600.0);
    drop(log);
}
