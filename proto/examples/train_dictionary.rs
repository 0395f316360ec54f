//! Trains the built-in dictionary, the same bytes every time, or measures what it is worth.
//!
//! ```text
//! cargo run --release -p ledge-proto --example train_dictionary -- proto/dict/v1.dict   # writes it
//! cargo run --release -p ledge-proto --example train_dictionary -- --check              # exit 1 if it differs
//! cargo run --release -p ledge-proto --example train_dictionary -- --measure            # a table
//! ```
//!
//! The content is what nodes write: samples, reports, events, states, wishes and devices, with names as they are
//! found in plants and buildings, from a seed. A dictionary once released is never trained again (docs/format/frame.md);
//! a later one gets a file of its own.

#![allow(
    clippy::disallowed_methods,
    reason = "a tool, not the library: it reads its arguments, writes a file and looks at the clock"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ledge_proto::frame::{DICTIONARY_V1, DictionaryId, push_record};
use ledge_proto::record::{Payload, property_key};
use ledge_proto::v1;
use ledge_proto::v1::value::Value as Kind;

/// zstd's own advice is a hundred times the dictionary's size.
const FRAMES: usize = 12_000;
const SIZE: usize = 16 * 1024;
const SEED: u64 = 0x6c65_6467_6531;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--measure") => measure(),
        Some("--check") => match train() {
            Ok(bytes) if bytes == DICTIONARY_V1 => {
                println!("v1.dict is what the generator and this zstd make")
            }
            Ok(_) => return fail("v1.dict is not what the generator and this zstd make"),
            Err(err) => return fail(&err.to_string()),
        },
        Some(path) => match train().and_then(|bytes| std::fs::write(path, &bytes).map(|()| bytes)) {
            Ok(bytes) => println!("{} bytes, id {:?}", bytes.len(), DictionaryId::of(&bytes)),
            Err(err) => return fail(&err.to_string()),
        },
        None => return fail("a path, --check or --measure"),
    }
    ExitCode::SUCCESS
}

fn fail(problem: &str) -> ExitCode {
    eprintln!("train_dictionary: {problem}");
    ExitCode::FAILURE
}

fn train() -> std::io::Result<Vec<u8>> {
    let mut site = Site::new(SEED, &KNOWN);
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|_| {
            let count = 1 + site.dice.below(15);
            site.frame(count)
        })
        .collect();
    zstd::dict::from_samples(&frames, SIZE)
}

/// Words names are made of.
struct Words {
    namespaces: &'static [&'static str],
    devices: &'static [&'static str],
    properties: &'static [&'static str],
}

const KNOWN: Words = Words {
    namespaces: &[
        "default", "default", "default", "factory", "building", "plant-1", "kubeedge",
    ],
    devices: &[
        "sensor",
        "pump",
        "plc",
        "meter",
        "boiler",
        "chiller",
        "valve",
        "motor",
        "fan",
        "inverter",
        "battery",
        "compressor",
        "conveyor",
        "tank",
        "gateway",
        "hvac",
        "drive",
        "robot",
        "light",
        "door",
        "camera",
        "temperature-sensor",
        "modbus-device",
        "energy-meter",
        "power-meter",
        "heat-pump",
    ],
    properties: &[
        "temperature",
        "humidity",
        "pressure",
        "flow",
        "level",
        "voltage",
        "current",
        "power",
        "energy",
        "frequency",
        "speed",
        "vibration",
        "status",
        "alarm",
        "setpoint",
        "threshold",
        "mode",
        "enabled",
        "position",
        "torque",
        "co2",
        "illuminance",
        "fan-speed",
        "power-factor",
        "active_power",
        "reactive_power",
        "state-of-charge",
        "operating-hours",
        "fault-code",
        "running",
        "temperature-enable",
        "rpm",
        "ph",
        "conductivity",
        "switch",
    ],
};

/// Names the dictionary has not seen: what it is worth elsewhere.
const STRANGE: Words = Words {
    namespaces: &["default", "werk-sued", "zone42"],
    devices: &[
        "kessel",
        "ruehrwerk",
        "ofen",
        "sterilizer-a",
        "kiln",
        "press-brake",
        "agv",
    ],
    properties: &[
        "vorlauf",
        "ruecklauf",
        "drehzahl",
        "fuellstand",
        "zone-1-temp",
        "clamp-force",
        "o2-rest",
    ],
};

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    #[allow(clippy::cast_precision_loss, reason = "below 2^53")]
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A node with its devices.
struct Site {
    dice: Dice,
    words: &'static Words,
    wall_us: i64,
    mono_us: u64,
    boot: u32,
}

impl Site {
    fn new(seed: u64, words: &'static Words) -> Site {
        Site {
            dice: Dice(seed),
            words,
            wall_us: 0,
            mono_us: 0,
            boot: 1,
        }
    }

    /// A frame's payload of `count` records, each frame at another time of another node.
    fn frame(&mut self, count: usize) -> Vec<u8> {
        // Within five years from 2026-01-01.
        let day = self.dice.below(5 * 365) as u64;
        let in_day = self.dice.next() % 86_400_000_000;
        self.wall_us = i64::try_from(1_767_225_600_000_000 + day * 86_400_000_000 + in_day).unwrap_or(0);
        self.mono_us = self.dice.next() % (40 * 86_400_000_000);
        self.boot = 1 + u32::try_from(self.dice.below(40)).unwrap_or(0);
        let mut payload = Vec::new();
        match self.dice.below(20) {
            0..=12 => self.samples(count, &mut payload),
            13..=15 => self.reports(count, &mut payload),
            16 => self.events(count, &mut payload),
            17 => self.states(count, &mut payload),
            18 => self.wishes(count, &mut payload),
            _ => self.devices(count.min(3), &mut payload),
        }
        payload
    }

    fn push(&mut self, into: &mut Vec<u8>, key: String, payload: &Payload, cause: Option<v1::Cause>) {
        let (kind, payload) = payload.encode();
        let record = v1::Record {
            kind,
            key,
            wall_us: self.wall_us,
            clock: i32::from(self.dice.below(3) == 0),
            mono_us: self.mono_us,
            boot: self.boot,
            cause,
            payload: payload.into(),
            schema: 0,
        };
        push_record(into, &record);
        // Properties of one device are read together; the next device a little later.
        let step = self.dice.next() % 40_000;
        self.wall_us += i64::try_from(step).unwrap_or(0);
        self.mono_us += step;
    }

    fn device(&mut self) -> (String, String) {
        let namespace = self.dice.of(self.words.namespaces).to_owned();
        let kind = self.dice.of(self.words.devices);
        let number = 1 + self.dice.below(60);
        let name = match self.dice.below(4) {
            0 => format!("{kind}-{number:02}"),
            1 => format!("{kind}{number}"),
            2 => format!("{kind}-line{}-{number}", 1 + number % 4),
            _ => format!("{kind}-{number}"),
        };
        (namespace, name)
    }

    /// Keys of `count` properties: a few of each device.
    fn keys(&mut self, count: usize) -> Vec<String> {
        let mut keys = Vec::with_capacity(count);
        while keys.len() < count {
            let (namespace, device) = self.device();
            for _ in 0..1 + self.dice.below(6).min(count - keys.len() - 1) {
                let property = self.dice.of(self.words.properties);
                keys.push(property_key(&namespace, &device, property));
            }
        }
        keys
    }

    fn value(&mut self) -> v1::Value {
        let number = self.dice.between(-20.0, 400.0);
        let value = match self.dice.below(10) {
            0..=3 => Kind::Double((number * 10.0).round() / 10.0),
            4 => Kind::Double(number.round() * 0.1),
            5 => Kind::Double((number * 100.0).round() / 100.0),
            6 => Kind::Int(i64::try_from(self.dice.below(5000)).unwrap_or(0)),
            7 => Kind::Int(i64::try_from(self.dice.below(4)).unwrap_or(0)),
            8 => Kind::Bool(self.dice.below(2) == 0),
            _ => Kind::String(
                self.dice
                    .of(&["on", "off", "auto", "manual", "ok", "fault", "running"])
                    .to_owned(),
            ),
        };
        v1::Value { value: Some(value) }
    }

    fn samples(&mut self, count: usize, into: &mut Vec<u8>) {
        for key in self.keys(count) {
            let value = Some(self.value());
            self.push(into, key, &Payload::Sample(v1::Sample { value }), None);
        }
    }

    fn reports(&mut self, count: usize, into: &mut Vec<u8>) {
        for key in self.keys(count) {
            let value = Some(self.value());
            self.push(
                into,
                key,
                &Payload::TwinReported(v1::TwinReported { value }),
                None,
            );
        }
    }

    fn position(&mut self) -> v1::StreamPosition {
        v1::StreamPosition {
            epoch: 1,
            seq: 1 + self.dice.below(3000) as u64,
        }
    }

    fn events(&mut self, count: usize, into: &mut Vec<u8>) {
        for _ in 0..count {
            let (namespace, device) = self.device();
            let (reason, message) = self.dice.of(&[
                ("DeviceOnline", ""),
                ("DeviceUnreachable", "no answer within 1s"),
                (
                    "DeviceUnreachable",
                    "cannot connect to 192.168.1.10:502: Connection refused (os error 111)",
                ),
                (
                    "DeviceUnhealthy",
                    "the device answered with exception 2: illegal data address",
                ),
                ("DeviceUnknown", ""),
                ("PropertyUnreadable", "exception 2: illegal data address"),
                ("PropertyReadable", ""),
                ("PropertyInvalid", "the value is out of range"),
                (
                    "SamplesSkipped",
                    "12 samples not taken: the device or the log is slower than the collect cycles",
                ),
                (
                    "DesiredDrifted",
                    "the device holds another value than the desired one",
                ),
                ("DesiredNotHeld", "written, but the device does not hold it"),
            ]);
            let event = v1::Event {
                reason: reason.to_owned(),
                message: message.to_owned(),
            };
            self.push(
                into,
                format!("{namespace}/{device}"),
                &Payload::DeviceEvent(event),
                None,
            );
        }
    }

    fn states(&mut self, count: usize, into: &mut Vec<u8>) {
        for _ in 0..count {
            let (namespace, device) = self.device();
            match self.dice.below(4) {
                0 => {
                    let node = format!("edge-{}", self.dice.below(200));
                    let labels = [
                        ("kubernetes.io/hostname", node.as_str()),
                        ("kubernetes.io/os", "linux"),
                        ("kubernetes.io/arch", "amd64"),
                        ("node-role.kubernetes.io/edge", ""),
                        ("topology.kubernetes.io/zone", "site-1"),
                    ];
                    let state = v1::NodeState {
                        version: "edgecore 0.1.0".to_owned(),
                        boot_id: self.uuid(),
                        labels: labels
                            .map(|(key, value)| (key.to_owned(), value.to_owned()))
                            .into(),
                    };
                    self.push(into, node.clone(), &Payload::NodeState(state), None);
                }
                1 => {
                    let property = self.dice.of(self.words.properties);
                    let desired = self.position();
                    let failed = self.dice.below(4) == 0;
                    let result = v1::WriteResult {
                        value: Some(self.value()),
                        desired: Some(desired),
                        outcome: if failed { 2 } else { 1 },
                        error: if failed {
                            "no answer within 1s".to_owned()
                        } else {
                            String::new()
                        },
                    };
                    let key = property_key(&namespace, &device, property);
                    let cause = Some(v1::Cause {
                        scope: "edge-1".to_owned(),
                        lane: 1,
                        epoch: desired.epoch,
                        seq: desired.seq,
                    });
                    self.push(into, key, &Payload::WriteResult(result), cause);
                }
                _ => {
                    let (state, message) = self.dice.of(&[
                        ("online", ""),
                        ("online", ""),
                        ("offline", "no answer within 1s"),
                        (
                            "unhealthy",
                            "the device answered with exception 2: illegal data address",
                        ),
                        ("unknown", ""),
                    ]);
                    let state = v1::DeviceState {
                        state: state.to_owned(),
                        message: message.to_owned(),
                    };
                    self.push(
                        into,
                        format!("{namespace}/{device}"),
                        &Payload::DeviceState(state),
                        None,
                    );
                }
            }
        }
    }

    fn wishes(&mut self, count: usize, into: &mut Vec<u8>) {
        for key in self.keys(count) {
            let value = Some(self.value());
            if self.dice.below(3) == 0 {
                let desired = Some(self.position());
                self.push(
                    into,
                    key,
                    &Payload::WriteIntent(v1::WriteIntent { value, desired }),
                    None,
                );
            } else {
                self.push(into, key, &Payload::TwinDesired(v1::TwinDesired { value }), None);
            }
        }
    }

    fn devices(&mut self, count: usize, into: &mut Vec<u8>) {
        for _ in 0..count {
            let (namespace, name) = self.device();
            let host = format!("192.168.{}.{}", self.dice.below(4), 1 + self.dice.below(250));
            let properties = (0..1 + self.dice.below(6)).map(|n| self.property(n)).collect();
            let spec = v1::DeviceSpec {
                namespace: namespace.clone(),
                name: name.clone(),
                protocol: "modbus".to_owned(),
                modbus: Some(v1::ModbusDevice {
                    transport: Some(if self.dice.below(4) == 0 {
                        v1::modbus_device::Transport::Rtu(v1::ModbusRtu {
                            path: "/dev/ttyUSB0".to_owned(),
                            baud_rate: self.dice.of(&[9600, 19_200, 115_200]),
                            data_bits: 8,
                            parity: self.dice.of(&["none", "even"]).to_owned(),
                            stop_bits: 1,
                        })
                    } else {
                        v1::modbus_device::Transport::Tcp(v1::ModbusTcp { host, port: 502 })
                    }),
                    unit_id: 1 + u32::try_from(self.dice.below(10)).unwrap_or(0),
                    timeout_ms: 0,
                }),
                properties,
                resource_version: (1 + self.dice.below(900)).to_string(),
            };
            self.push(
                into,
                format!("{namespace}/{name}"),
                &Payload::DeviceSpec(Box::new(spec)),
                None,
            );
        }
    }

    fn property(&mut self, n: usize) -> v1::DeviceProperty {
        let writable = self.dice.below(3) == 0;
        v1::DeviceProperty {
            name: self.dice.of(self.words.properties).to_owned(),
            data_type: self.dice.of(&[1, 2, 3, 3, 3, 4, 5]),
            writable,
            minimum: writable.then_some(0.0),
            maximum: writable.then_some(100.0),
            unit: self
                .dice
                .of(&["", "", "C", "%", "bar", "V", "A", "kW", "Hz"])
                .to_owned(),
            collect_cycle_ms: self.dice.of(&[500, 1000, 1000, 5000, 10_000]),
            report_cycle_ms: self.dice.of(&[1000, 10_000, 10_000, 60_000]),
            modbus: Some(v1::ModbusVisitor {
                register: self.dice.of(&[1, 2, 3, 4, 4, 4]),
                offset: u32::try_from(n).unwrap_or(0) * 2,
                limit: self.dice.of(&[1, 1, 2]),
                scale: self.dice.of(&[0.0, 1.0, 0.1, 0.01]),
                is_swap: false,
                is_register_swap: false,
            }),
            report_to_cloud: true,
        }
    }

    fn uuid(&mut self) -> String {
        let (a, b) = (self.dice.next(), self.dice.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 48 & 0xfff,
            b & 0xffff_ffff_ffff
        )
    }
}

/// Plain zstd against the dictionary (level 3, without its magic bytes, which is how frames are stored), by records per frame: names the dictionary has seen, and names it has not.
fn measure() {
    println!("| names | records | bytes | plain 1 | MB/s | dictionary | MB/s | plain 3 | MB/s |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (names, words) in [("known", &KNOWN), ("strange", &STRANGE)] {
        for count in [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 512] {
            let mut site = Site::new(99, words);
            let frames: Vec<Vec<u8>> = (0..20_000 / count + 40)
                .map(|_| {
                    let mut payload = site.frame(0);
                    site.samples(count, &mut payload);
                    payload
                })
                .collect();
            let bytes = frames.iter().map(Vec::len).sum::<usize>() / frames.len();
            print!("| {names} | {count} | {bytes} |");
            let dictionary = zstd::dict::EncoderDictionary::copy(DICTIONARY_V1, 3);
            let contexts = [
                zstd::bulk::Compressor::new(1),
                zstd::bulk::Compressor::with_prepared_dictionary(&dictionary),
                zstd::bulk::Compressor::new(3),
            ];
            for (mut context, less) in contexts.into_iter().flatten().zip([0, 4, 0]) {
                context.include_dictid(false).ok();
                let (ratio, rate) = speed(&mut context, less, &frames);
                print!(" {ratio:.2}x | {rate:.0} |");
            }
            println!();
        }
    }
}

/// How much smaller, and MB/s of input.
#[allow(clippy::cast_precision_loss, reason = "a rate")]
fn speed(context: &mut zstd::bulk::Compressor<'_>, less: usize, frames: &[Vec<u8>]) -> (f64, f64) {
    let mut out = vec![0; 1 << 20];
    let (mut raw, mut packed) = (0, 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        for frame in frames {
            raw += frame.len();
            let len = context
                .compress_to_buffer(frame, &mut out[..])
                .unwrap_or(frame.len())
                - less;
            packed += len.min(frame.len());
        }
    }
    (
        raw as f64 / packed as f64,
        raw as f64 / 1e6 / began.elapsed().as_secs_f64(),
    )
}
