//! Logs written by the real log, and the real program run on them.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "each test uses its part, and stops where it cannot go on"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use ledge_log::{DiskStorage, Log, OpenError, Options};
use ledge_proto::ids::{ClusterId, StreamId};
use ledge_proto::record::Payload;
use ledge_proto::v1;

pub const T0: i64 = 1_795_446_000_000_000; // 2026-11-23T15:00:00Z
pub const NOW: &str = "2026-11-23T16:00:00Z";

pub fn record(key: &str, at_s: i64, payload: &Payload) -> v1::Record {
    let (kind, bytes) = payload.encode();
    v1::Record {
        kind,
        key: key.into(),
        wall_us: T0 + at_s * 1_000_000,
        mono_us: u64::try_from(at_s + 1000).unwrap() * 1_000_000,
        clock: v1::ClockQuality::ClockSynced.into(),
        boot: 1,
        payload: bytes.into(),
        ..Default::default()
    }
}

pub fn double(value: f64) -> Option<v1::Value> {
    Some(v1::Value {
        value: Some(v1::value::Value::Double(value)),
    })
}

pub fn sample(key: &str, at_s: i64, value: f64) -> v1::Record {
    record(key, at_s, &Payload::Sample(v1::Sample { value: double(value) }))
}

pub fn desired(key: &str, at_s: i64, value: f64) -> v1::Record {
    record(
        key,
        at_s,
        &Payload::TwinDesired(v1::TwinDesired { value: double(value) }),
    )
}

pub fn reported(key: &str, at_s: i64, value: f64) -> v1::Record {
    record(
        key,
        at_s,
        &Payload::TwinReported(v1::TwinReported { value: double(value) }),
    )
}

fn spec() -> v1::DeviceSpec {
    v1::DeviceSpec {
        namespace: "plant".into(),
        name: "pump-1".into(),
        protocol: "modbus".into(),
        resource_version: "7".into(),
        modbus: Some(v1::ModbusDevice {
            transport: Some(v1::modbus_device::Transport::Tcp(v1::ModbusTcp {
                host: "10.0.0.5".into(),
                port: 502,
            })),
            unit_id: 1,
            timeout_ms: 0,
        }),
        properties: vec![v1::DeviceProperty {
            name: "speed".into(),
            data_type: v1::DataType::Double.into(),
            writable: true,
            unit: "rpm".into(),
            ..Default::default()
        }],
    }
}

/// A data directory with a log in it.
pub struct Data {
    pub dir: tempfile::TempDir,
}

impl Data {
    pub fn new() -> Self {
        Data {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn log_dir(&self) -> PathBuf {
        self.path().join("log")
    }

    pub fn open(&self) -> Log {
        self.open_as("edge-1", 1)
    }

    /// A log whose incarnation follows from `seed`.
    pub fn open_as(&self, node: &str, seed: u64) -> Log {
        let options = Options {
            segment_bytes: 64 * 1024,
            ..Options::deterministic(ClusterId([7; 16]), node, seed)
        };
        loop {
            match Log::open(Arc::new(DiskStorage), &self.log_dir(), options.clone()) {
                Ok((log, _)) => return log,
                // A child that another test is just starting holds our lock until it becomes another program.
                Err(OpenError::Locked { .. }) => std::thread::yield_now(),
                Err(err) => panic!("{err}"),
            }
        }
    }

    /// The log of the story every test knows: a pump is configured, comes online, is sampled ten times a second
    /// apart from second 0, and gets a new desired speed at second 5, which is written and reported at second 6.
    pub fn story() -> Self {
        let data = Data::new();
        let log = data.open();
        let put = |stream: &str, records: Vec<v1::Record>| {
            log.append_blocking(&stream.parse::<StreamId>().unwrap(), records)
                .unwrap();
        };
        let node = v1::NodeState {
            version: "0.1.0".into(),
            boot_id: "b1".into(),
            labels: [("site".to_owned(), "north".to_owned())].into(),
        };
        put(
            "edge-1/down",
            vec![record(
                "plant/pump-1",
                -60,
                &Payload::DeviceSpec(Box::new(spec())),
            )],
        );
        put("edge-1/down", vec![desired("plant/pump-1/speed", -50, 1500.0)]);
        put(
            "edge-1/up.state",
            vec![record("edge-1", -40, &Payload::NodeState(node))],
        );
        let online = v1::DeviceState {
            state: "online".into(),
            message: String::new(),
        };
        put(
            "edge-1/up.state",
            vec![record("plant/pump-1", -30, &Payload::DeviceState(online))],
        );
        put(
            "edge-1/up.data",
            (0..5)
                .map(|s| sample("plant/pump-1/speed", s, 1500.0 + s as f64))
                .collect(),
        );
        put("edge-1/down", vec![desired("plant/pump-1/speed", 5, 1600.0)]);
        let written = v1::WriteResult {
            value: double(1600.0),
            desired: Some(v1::StreamPosition { epoch: 1, seq: 3 }),
            outcome: v1::write_result::Outcome::Applied.into(),
            error: String::new(),
        };
        put(
            "edge-1/up.state",
            vec![
                record("plant/pump-1/speed", 6, &Payload::WriteResult(written)),
                reported("plant/pump-1/speed", 6, 1600.0),
            ],
        );
        put(
            "edge-1/up.data",
            (5..10).map(|s| sample("plant/pump-1/speed", s, 1600.5)).collect(),
        );
        let event = v1::Event {
            reason: "Calibrated".into(),
            message: "by hand".into(),
        };
        put(
            "edge-1/up.data",
            vec![record("plant/pump-1", 11, &Payload::DeviceEvent(event))],
        );
        log.close().unwrap();
        data
    }
}

/// What the program printed, and its exit code.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ledge"));
    command.args(args).args(["--now", NOW]).stdin(Stdio::null());
    command
}

pub fn ledge(args: &[&str]) -> Ran {
    ran(command(args).output().unwrap())
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `ledge ARGS` where `DIR` stands for the data directory.
pub fn on(data: &Data, args: &[&str]) -> Ran {
    let dir = data.path().to_str().unwrap();
    let args: Vec<&str> = args
        .iter()
        .map(|arg| if *arg == "DIR" { dir } else { arg })
        .collect();
    ledge(&args)
}

/// The lines of a successful run.
#[track_caller]
pub fn lines(data: &Data, args: &[&str]) -> Vec<String> {
    let ran = on(data, args);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, ""),
        "{args:?} printed {}",
        ran.stdout
    );
    ran.stdout.lines().map(str::to_owned).collect()
}

/// The JSON lines or the one JSON document of a run.
#[track_caller]
pub fn json(data: &Data, args: &[&str]) -> Vec<serde_json::Value> {
    let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
    let ran = on(data, &args);
    assert_eq!(ran.stderr, "", "{args:?}");
    serde_json::Deserializer::from_str(&ran.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap()
}
