//! What is in each table, and that the cloud's log gives the same rows as the edge's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]
#![cfg(feature = "sql")]

mod common;

use common::{context, node_frames, run, source};
use ledge_history::HistoryContext;

fn edge() -> HistoryContext {
    context(vec![source(node_frames("edge-1", 1))])
}

#[track_caller]
fn check(query: &str, rows: &[&str]) {
    assert_eq!(run(&edge(), query).unwrap(), rows, "{query}");
}

#[test]
fn samples_hold_every_value_in_number_and_text() {
    check(
        "SELECT node, device, namespace, name, property, time, value, text, type, clock, stream, epoch, seq FROM samples",
        &[
            "edge-1|plant/pump-1|plant|pump-1|speed|2026-11-23T15:00:00Z|1480.5|1480.5|double|synced|edge-1/up.data|1|1",
            "edge-1|plant/pump-1|plant|pump-1|mode|2026-11-23T15:00:01Z|NULL|auto|string|synced|edge-1/up.data|1|2",
            "edge-1|plant/pump-1|plant|pump-1|speed|2026-11-23T15:00:05Z|1490.0|1490|double|synced|edge-1/up.data|1|4",
        ],
    );
}

#[test]
fn events_and_gaps_are_rows() {
    check(
        "SELECT source, device, key, reason, message, seq FROM events",
        &[
            "device|plant/pump-1|plant/pump-1|DeviceUnreachable|timed out|3",
            "daemon|NULL|edge-1|Started||6",
        ],
    );
    check(
        "SELECT node, dropped_stream, first_seq, last_seq, dropped, reason, replaced_by, seq FROM gaps",
        &["edge-1|edge-1/up.data|40|49|10|disk full|nothing|5"],
    );
}

#[test]
fn twins_hold_the_current_state() {
    check(
        "SELECT device, property, desired_value, reported_value, sample_value, samples, unit, writable FROM twins",
        &[
            "plant/pump-1|mode|NULL|NULL|NULL|1|NULL|NULL",
            "plant/pump-1|speed|1500.0|1490.0|1490.0|2|rpm|true",
        ],
    );
    check(
        "SELECT node, device, state, configured, protocol FROM devices",
        &["edge-1|plant/pump-1|online|true|modbus"],
    );
    check("SELECT node, version FROM nodes", &["edge-1|NULL"]);
}

#[test]
fn records_hold_every_lane_in_the_order_of_stream_names() {
    check(
        "SELECT stream, seq, kind, key, payload FROM records WHERE kind IN ('TwinDesired', 'TwinReported', 'Gap')",
        &[
            "edge-1/down|2|TwinDesired|plant/pump-1/speed|{\"value\":1500.0}",
            "edge-1/up.state|2|TwinReported|plant/pump-1/speed|{\"value\":1490.0}",
            "edge-1/up.data|5|Gap|gap|{\"count\":10,\"epoch\":1,\"first_seq\":40,\"last_seq\":49,\"reason\":\"disk full\",\"replaced_by\":\"nothing\",\"stream\":\"edge-1/up.data\"}",
        ],
    );
    check("SELECT count(*) FROM records", &["10"]);
    check(
        "SELECT lane, count(*) FROM records GROUP BY lane ORDER BY lane",
        &["down|2", "up.data|6", "up.state|2"],
    );
}

#[test]
fn times_compare_with_text_and_with_intervals() {
    check(
        "SELECT seq FROM samples WHERE time >= '2026-11-23T15:00:01Z' AND time < '2026-11-23 15:00:05'",
        &["2"],
    );
    check(
        "SELECT seq FROM samples WHERE time > timestamp '2026-11-23T15:00:05Z' - interval '4 seconds'",
        &["4"],
    );
    check("SELECT count(*) FROM samples WHERE time > now()", &["0"]);
    check(
        "SELECT date_trunc('minute', time) AS minute, round(avg(value), 2) FROM samples GROUP BY minute",
        &["2026-11-23T15:00:00Z|1485.25"],
    );
}

#[test]
fn the_cloud_gives_the_same_rows_as_the_edge() {
    let frames = [
        node_frames("edge-0", 3),
        node_frames("edge-1", 1),
        node_frames("edge-2", 4),
    ];
    let cloud = context(vec![source(frames.into_iter().flatten())]);
    for query in [
        "SELECT * FROM samples WHERE node = 'edge-1'",
        "SELECT * FROM events WHERE node = 'edge-1'",
        "SELECT * FROM gaps WHERE node = 'edge-1'",
        "SELECT * FROM records WHERE node = 'edge-1'",
        "SELECT * FROM twins WHERE node = 'edge-1'",
        "SELECT * FROM devices WHERE node LIKE '%-1'",
        "SELECT * FROM nodes WHERE node = 'edge-1'",
        "SELECT property, avg(value), count(*) FROM samples WHERE node = 'edge-1' GROUP BY property",
    ] {
        let rows = run(&edge(), query).unwrap();
        assert!(!rows.is_empty(), "{query}");
        assert_eq!(rows, run(&cloud, query).unwrap(), "{query}");
    }
}

#[test]
fn a_stream_in_two_sources_is_read_once() {
    let frames = node_frames("edge-1", 1);
    let early = source(frames[..3].to_vec());
    let all = source(frames.clone());
    for sources in [
        vec![early.clone(), all.clone()],
        vec![all.clone(), early],
        vec![all.clone(), all],
    ] {
        let both = context(sources);
        for query in [
            "SELECT * FROM samples",
            "SELECT count(*) FROM records",
            "SELECT * FROM twins",
        ] {
            assert_eq!(
                run(&both, query).unwrap(),
                run(&edge(), query).unwrap(),
                "{query}"
            );
        }
    }
}

#[test]
fn a_later_incarnation_replaces_state_but_not_history() {
    // The later one has the smaller id: names must not decide.
    let frames = node_frames("edge-1", 7)
        .into_iter()
        .chain(node_frames("edge-1", 2));
    let log = context(vec![source(frames)]);
    assert_eq!(run(&log, "SELECT count(*) FROM samples").unwrap(), ["6"]);
    assert_eq!(
        run(&log, "SELECT samples FROM twins WHERE property = 'speed'").unwrap(),
        ["2"]
    );
}

fn rows(context: &ledge_history::HistoryContext, query: &str) -> Vec<String> {
    run(context, query).unwrap()
}

/// Two samples by a clock that was never set, then the note that it was.
fn unset_clock() -> Vec<ledge_proto::frame::Frame> {
    use common::{double, frame, record, sample, writer};
    use ledge_proto::ids::Lane;
    use ledge_proto::record::Payload;
    use ledge_proto::v1;
    let mut data = writer("edge-1", Lane::UpData, 1);
    let early = |second: u64| v1::Record {
        wall_us: i64::try_from(second * 1_000_000).unwrap(),
        mono_us: second * 1_000_000,
        clock: v1::ClockQuality::ClockBeforeBuild.into(),
        ..sample("plant/pump-1/speed", 0, double(second as f64))
    };
    let sync = Payload::ClockSync(v1::ClockSync {
        boot: 1,
        mono_us: 60_000_000,
        wall_us: common::T0,
        before_us: 60_000_000,
        quality: v1::ClockQuality::ClockSynced.into(),
    });
    let of_another_start = v1::Record { boot: 7, ..early(20) };
    vec![
        frame(&mut data, &[early(10), early(20)]),
        frame(&mut data, &[of_another_start, record("edge-1", 0, &sync)]),
    ]
}

#[test]
fn times_of_a_clock_that_was_set_later_are_corrected() {
    let context = context(vec![source(unset_clock())]);
    assert_eq!(
        run(&context, "SELECT value, time, clock FROM samples").unwrap(),
        [
            "10.0|2026-11-23T14:59:10Z|retimed",
            "20.0|2026-11-23T14:59:20Z|retimed",
            "20.0|1970-01-01T00:00:20Z|before-build",
        ]
    );
    assert_eq!(
        run(
            &context,
            "SELECT value FROM samples WHERE time > '2026-11-23T14:59:15Z'"
        )
        .unwrap(),
        ["20.0"]
    );
}

#[test]
fn times_of_state_are_corrected_too() {
    use common::{double, frame, record, writer};
    use ledge_proto::ids::Lane;
    use ledge_proto::record::Payload;
    use ledge_proto::v1;
    // What the node says of itself, of its device and of a property, ten seconds after it was switched on.
    let early = |key: &str, payload| v1::Record {
        wall_us: 10_000_000,
        mono_us: 10_000_000,
        clock: v1::ClockQuality::ClockUnsynced.into(),
        ..record(key, 0, &payload)
    };
    let of = |life| {
        let mut state = writer("edge-1", Lane::UpState, life);
        let online = v1::DeviceState {
            state: "online".into(),
            message: String::new(),
        };
        let report = v1::TwinReported { value: double(5.0) };
        [frame(
            &mut state,
            &[
                early("edge-1", Payload::NodeState(v1::NodeState::default())),
                early("plant/pump-1", Payload::DeviceState(online)),
                early("plant/pump-1/speed", Payload::TwinReported(report)),
            ],
        )]
    };
    let queries = [
        "SELECT reported_time, reported_clock FROM twins",
        "SELECT state_time, state_clock FROM devices",
        "SELECT time, clock FROM nodes",
    ];
    let log = context(vec![source(of(1).into_iter().chain(unset_clock()))]);
    for query in queries {
        let rows = run(&log, query).unwrap();
        assert_eq!(rows, ["2026-11-23T14:59:10Z|retimed"], "{query}");
    }
    assert_eq!(
        run(&log, "SELECT sample_time, sample_clock FROM twins").unwrap(),
        ["1970-01-01T00:00:20Z|before-build"],
        "the latest sample is of another start, whose clock was never set"
    );
    // Of a node that had two disks nobody can say which of them wrote what is known of it now.
    let two = context(vec![source(of(1).into_iter().chain(of(2)).chain(unset_clock()))]);
    assert_eq!(run(&two, queries[2]).unwrap(), ["1970-01-01T00:00:10Z|unsynced"]);
}

#[test]
fn a_run_of_readings_is_a_row_that_counts_them() {
    use common::{double, frame, record, sample, writer};
    use ledge_proto::ids::Lane;
    use ledge_proto::record::Payload;
    use ledge_proto::v1;
    let run = v1::SampleRun {
        value: double(1.0),
        count: 300,
        span_us: 299_000_000,
        longest_us: 1_000_000,
    };
    let mut data = writer("edge-1", Lane::UpData, 1);
    let records = [
        sample("plant/pump-1/speed", 0, double(1.0)),
        record("plant/pump-1/speed", 300, &Payload::SampleRun(run)),
        sample("plant/pump-1/speed", 301, double(2.0)),
    ];
    let context = context(vec![source([frame(&mut data, &records)])]);
    assert_eq!(
        crate::rows(
            &context,
            "SELECT value, method, samples, since, time FROM samples"
        ),
        [
            "1.0|raw|1|2026-11-23T15:00:00Z|2026-11-23T15:00:00Z",
            "1.0|run|300|2026-11-23T15:00:01Z|2026-11-23T15:05:00Z",
            "2.0|raw|1|2026-11-23T15:05:01Z|2026-11-23T15:05:01Z",
        ]
    );
    assert_eq!(
        crate::rows(
            &context,
            "SELECT sum(samples) FROM samples WHERE property = 'speed'"
        ),
        ["302"]
    );
    assert_eq!(
        crate::rows(&context, "SELECT sample, samples FROM twins"),
        ["2|302"]
    );
}

#[test]
fn what_was_kept_of_dropped_samples_is_marked() {
    use common::{double, frame, record, sample, writer};
    use ledge_proto::ids::Lane;
    use ledge_proto::record::Payload;
    use ledge_proto::v1;
    let mut data = writer("edge-1", Lane::UpData, 1);
    let summary = |method: v1::Replacement, mean| {
        let mut summary = v1::SampleSummary {
            count: 60,
            mean,
            min: mean.map(|mean| mean - 1.0),
            max: mean.map(|mean| mean + 1.0),
            last: double(7.5),
            ..Default::default()
        };
        summary.set_method(method);
        record("plant/pump-1/speed", 0, &Payload::SampleSummary(summary))
    };
    let gap = |first_seq, last_seq| {
        let mut gap = v1::Gap {
            scope: "edge-1".into(),
            lane: Lane::UpData.as_wire(),
            epoch: 1,
            first_seq,
            last_seq,
            reason: "DiskLimit".into(),
            count: last_seq + 1 - first_seq,
            ..Default::default()
        };
        gap.set_replaced_by(v1::Replacement::MinuteAverages);
        record("up.data/1-1", 1, &Payload::Gap(gap))
    };
    let records = [
        sample("plant/pump-1/speed", 0, double(1.0)),
        summary(v1::Replacement::MinuteAverages, Some(2.5)),
        summary(v1::Replacement::LastValue, None),
        gap(1, 100),
        gap(101, 150),
    ];
    let context = context(vec![source([frame(&mut data, &records)])]);
    assert_eq!(
        run(
            &context,
            "SELECT device, property, method, samples, value, min, max FROM samples"
        )
        .unwrap(),
        [
            "plant/pump-1|speed|raw|1|1.0|NULL|NULL",
            "plant/pump-1|speed|minute average|60|2.5|1.5|3.5",
            "plant/pump-1|speed|last value|60|7.5|NULL|NULL",
        ]
    );
    // Gaps that follow each other are one.
    assert_eq!(
        run(
            &context,
            "SELECT first_seq, last_seq, dropped, reason, replaced_by FROM gaps"
        )
        .unwrap(),
        ["1|150|150|DiskLimit|minute averages"]
    );
}
