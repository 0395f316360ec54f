//! A world for the mappers to live in: a journal in memory, a simulated clock, devices in memory.

pub(crate) mod device;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledge_edge::mapper::{MapperManager, MapperOptions, Stopped};
use ledge_edge::twin::{Clock, Desired, DeviceEntry, DeviceTable, Journal, JournalError, NewRecord, Stamp};
use ledge_proto::ids::{Epoch, Lane, Position, Scope, Seq};
use ledge_proto::record::{Payload, property_key};
use ledge_proto::v1;
use ledge_proto::v1::modbus_visitor::Register;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use device::{MemDevice, MemDial, Mood};

/// A journal in memory that can be full, slow or broken.
#[derive(Clone, Default)]
pub(crate) struct MemJournal(Arc<Mutex<JournalState>>);

#[derive(Default)]
pub(crate) struct JournalState {
    pub(crate) records: Vec<(Lane, NewRecord)>,
    pub(crate) error: Option<JournalError>,
    pub(crate) delay: Duration,
    pub(crate) appends: usize,
}

impl MemJournal {
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut JournalState) -> T) -> T {
        use_it(&mut self.0.lock().unwrap())
    }
}

impl Journal for MemJournal {
    async fn append(&self, lane: Lane, records: Vec<NewRecord>) -> Result<(), JournalError> {
        let delay = self.with(|state| state.delay);
        tokio::time::sleep(delay).await;
        self.with(|state| {
            state.appends += 1;
            if let Some(err) = &state.error {
                return Err(err.clone());
            }
            assert!(!records.is_empty(), "an append of nothing");
            state
                .records
                .extend(records.into_iter().map(|record| (lane, record)));
            Ok(())
        })
    }
}

/// A clock that follows tokio's, which is paused in tests. Panics once when told to.
pub(crate) struct TestClock {
    start: Instant,
    panic: Arc<AtomicBool>,
}

impl Clock for TestClock {
    fn stamp(&self) -> Stamp {
        assert!(
            !self.panic.swap(false, Ordering::SeqCst),
            "a clock that was told to"
        );
        let mono_us = self.start.elapsed().as_micros() as u64;
        Stamp {
            wall_us: 1_700_000_000_000_000 + mono_us as i64,
            clock: v1::ClockQuality::ClockSynced,
            mono_us,
        }
    }
}

pub(crate) fn position(seq: u64) -> Position {
    Position {
        epoch: Epoch(1),
        seq: Seq(seq),
    }
}

/// A property of a holding register.
pub(crate) fn holding(name: &str, data_type: v1::DataType, offset: u32, limit: u32) -> v1::DeviceProperty {
    property(name, Register::Holding, data_type, offset, limit)
}

pub(crate) fn property(
    name: &str,
    register: Register,
    data_type: v1::DataType,
    offset: u32,
    limit: u32,
) -> v1::DeviceProperty {
    let mut visitor = v1::ModbusVisitor {
        offset,
        limit,
        ..Default::default()
    };
    visitor.set_register(register);
    let mut property = v1::DeviceProperty {
        name: name.to_owned(),
        collect_cycle_ms: 1000,
        report_to_cloud: true,
        modbus: Some(visitor),
        ..Default::default()
    };
    property.set_data_type(data_type);
    property
}

/// The device every test has: temperature (input 0), threshold (holding 10, writable), both scaled by 0.1.
pub(crate) fn sensor(name: &str, port: u32) -> DeviceEntry {
    let mut temperature = property("temperature", Register::Input, v1::DataType::Double, 0, 1);
    let mut threshold = holding("threshold", v1::DataType::Double, 10, 1);
    for property in [&mut temperature, &mut threshold] {
        property.modbus.as_mut().unwrap().scale = 0.1;
    }
    threshold.writable = true;
    threshold.minimum = Some(0.0);
    threshold.maximum = Some(100.0);
    entry(name, "mem", port, vec![temperature, threshold])
}

pub(crate) fn entry(name: &str, host: &str, port: u32, properties: Vec<v1::DeviceProperty>) -> DeviceEntry {
    let tcp = v1::ModbusTcp {
        host: host.to_owned(),
        port,
    };
    DeviceEntry {
        spec: v1::DeviceSpec {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            protocol: "modbus".to_owned(),
            modbus: Some(v1::ModbusDevice {
                transport: Some(v1::modbus_device::Transport::Tcp(tcp)),
                unit_id: 1,
                timeout_ms: 500,
            }),
            properties,
            ..Default::default()
        },
        ..Default::default()
    }
}

pub(crate) fn wish(entry: &mut DeviceEntry, property: &str, value: v1::Value, seq: u64) {
    entry.desired.insert(
        property.to_owned(),
        Desired {
            value,
            position: position(seq),
        },
    );
}

/// Running mappers.
pub(crate) struct World {
    pub(crate) journal: MemJournal,
    pub(crate) table: watch::Sender<Arc<DeviceTable>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) manager: JoinHandle<Stopped>,
    pub(crate) start: Instant,
    /// Makes the clock panic once, in whichever task asks it next.
    pub(crate) panic: Arc<AtomicBool>,
}

impl World {
    /// Mappers over devices in memory.
    pub(crate) fn in_memory(dial: &MemDial, entries: Vec<DeviceEntry>) -> World {
        World::start(MemJournal::default(), entries, |options| {
            options.dial = Arc::new(dial.clone())
        })
    }

    pub(crate) fn start(
        journal: MemJournal,
        entries: Vec<DeviceEntry>,
        set: impl FnOnce(&mut MapperOptions),
    ) -> World {
        let (table, receiver) = watch::channel(Arc::new(table(entries)));
        let shutdown = CancellationToken::new();
        let start = Instant::now();
        let panic = Arc::new(AtomicBool::new(false));
        let mut options = MapperOptions::new(Scope::node("edge-1").unwrap());
        options.seed = 7;
        set(&mut options);
        let manager = tokio::spawn(MapperManager::new(options).run(
            journal.clone(),
            Arc::new(TestClock {
                start,
                panic: Arc::clone(&panic),
            }),
            receiver,
            shutdown.clone(),
        ));
        World {
            journal,
            table,
            shutdown,
            manager,
            start,
            panic,
        }
    }

    pub(crate) fn set(&self, entries: Vec<DeviceEntry>) {
        self.table.send_replace(Arc::new(table(entries)));
    }

    /// Stops the mappers and gives what they left.
    pub(crate) async fn stop(self) -> (MemJournal, Stopped) {
        self.shutdown.cancel();
        let stopped = self.manager.await.unwrap();
        (self.journal, stopped)
    }

    /// Waits until `done` says so, at most `limit`.
    pub(crate) async fn until(&self, what: &str, limit: Duration, done: impl Fn(&World) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(self) {
            assert!(
                Instant::now() < deadline,
                "not within {limit:?}: {what}\n{}",
                self.journal.show()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn table(entries: Vec<DeviceEntry>) -> DeviceTable {
    let key = |entry: &DeviceEntry| format!("{}/{}", entry.spec.namespace, entry.spec.name);
    DeviceTable {
        devices: entries
            .into_iter()
            .map(|entry| (key(&entry), Arc::new(entry)))
            .collect(),
    }
}

impl MemJournal {
    pub(crate) fn records(&self) -> Vec<(Lane, NewRecord)> {
        self.with(|state| state.records.clone())
    }

    pub(crate) fn show(&self) -> String {
        let line = |(lane, r): &(Lane, NewRecord)| {
            format!("{:>9} {lane} {} {:?}\n", r.stamp.mono_us, r.key, r.payload)
        };
        self.records().iter().map(line).collect()
    }

    fn of(&self, lane: Lane, key: &str) -> Vec<(Duration, NewRecord)> {
        self.records()
            .into_iter()
            .filter(|(l, record)| *l == lane && record.key == key)
            .map(|(_, record)| (Duration::from_micros(record.stamp.mono_us), record))
            .collect()
    }

    /// Samples of `default/<device>/<property>`: milliseconds since start, value.
    pub(crate) fn samples(&self, device: &str, property: &str) -> Vec<(u128, v1::Value)> {
        let of = self.of(Lane::UpData, &property_key("default", device, property));
        let sample = |(at, record): (Duration, NewRecord)| match record.payload {
            Payload::Sample(sample) => Some((at.as_millis(), sample.value.unwrap())),
            _ => None,
        };
        of.into_iter().filter_map(sample).collect()
    }

    /// Reports of a property: milliseconds since start, value.
    pub(crate) fn reports(&self, device: &str, property: &str) -> Vec<(u128, v1::Value)> {
        let of = self.of(Lane::UpState, &property_key("default", device, property));
        let report = |(at, record): (Duration, NewRecord)| match record.payload {
            Payload::TwinReported(report) => Some((at.as_millis(), report.value.unwrap())),
            _ => None,
        };
        of.into_iter().filter_map(report).collect()
    }

    /// States of a device: milliseconds since start, state, message.
    pub(crate) fn states(&self, device: &str) -> Vec<(u128, String, String)> {
        let of = self.of(Lane::UpState, &format!("default/{device}"));
        let state = |(at, record): (Duration, NewRecord)| match record.payload {
            Payload::DeviceState(state) => Some((at.as_millis(), state.state, state.message)),
            _ => None,
        };
        of.into_iter().filter_map(state).collect()
    }

    pub(crate) fn state_names(&self, device: &str) -> Vec<String> {
        self.states(device)
            .into_iter()
            .map(|(_, state, _)| state)
            .collect()
    }

    /// Results of writes to a property, with the whole record.
    pub(crate) fn results(&self, device: &str, property: &str) -> Vec<(NewRecord, v1::WriteResult)> {
        let of = self.of(Lane::UpState, &property_key("default", device, property));
        let result = |(_, record): (Duration, NewRecord)| match record.payload.clone() {
            Payload::WriteResult(result) => Some((record, result)),
            _ => None,
        };
        of.into_iter().filter_map(result).collect()
    }

    pub(crate) fn intents(&self, device: &str, property: &str) -> Vec<u128> {
        let of = self.of(Lane::UpData, &property_key("default", device, property));
        let intent = |(at, record): (Duration, NewRecord)| match record.payload {
            Payload::WriteIntent(_) => Some(at.as_millis()),
            _ => None,
        };
        of.into_iter().filter_map(intent).collect()
    }

    /// Events by key and reason, with their messages.
    pub(crate) fn events(&self, reason: &str) -> Vec<(String, String)> {
        let event = |(_, record): (Lane, NewRecord)| match record.payload {
            Payload::DeviceEvent(event) if event.reason == reason => Some((record.key, event.message)),
            _ => None,
        };
        self.records().into_iter().filter_map(event).collect()
    }

    /// The entry as a restarted daemon would read it from the log.
    pub(crate) fn replay(&self, mut entry: DeviceEntry) -> DeviceEntry {
        let device = format!("{}/{}", entry.spec.namespace, entry.spec.name);
        for (_, record) in self.records() {
            let property = || record.key.rsplit('/').next().unwrap().to_owned();
            match record.payload.clone() {
                Payload::TwinReported(report) if record.key.starts_with(&device) => {
                    entry.reported.insert(property(), report.value.unwrap());
                }
                Payload::WriteResult(result) if record.key.starts_with(&device) => {
                    entry.results.insert(property(), result);
                }
                Payload::DeviceState(state) if record.key == device => entry.state = Some(state.state),
                _ => {}
            }
        }
        entry
    }
}

/// How many records of each kind there are, for tests that count everything.
pub(crate) fn counts(journal: &MemJournal) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (_, record) in journal.records() {
        let (kind, _) = record.payload.encode();
        let name = ledge_proto::record::RecordKind::from_wire(kind).unwrap().name();
        *counts.entry(name).or_default() += 1;
    }
    counts
}

pub(crate) async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
