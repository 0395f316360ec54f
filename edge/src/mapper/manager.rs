//! Starts and stops device tasks as the table changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledge_proto::ids::Scope;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::device::{DeviceTask, Link, Shared, Update};
use super::modbus::connection::ConnectionLimits;
use super::modbus::{Address, AddressError, Connection, Dial, NetDial};
use super::recorder::{Failure, Recorder};
use super::tasks::{Ended, Tasks};
use crate::twin::reconcile::WriteLimits;
use crate::twin::{Clock, DeviceEntry, DeviceTable, Journal, JournalError, Unchanged};

/// The protocol these mappers serve; devices of others are left to other mappers.
const PROTOCOL: &str = "modbus";
/// A device whose task panicked is served again after this.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// What the mappers need to know besides the devices.
#[derive(Clone)]
pub struct MapperOptions {
    /// The node whose `down` stream the desired values come from: named as the cause of writes.
    pub scope: Scope,
    /// Opens connections.
    pub dial: Arc<dyn Dial>,
    /// Time limits of connections.
    pub connections: ConnectionLimits,
    /// How often a device that does not keep a value is told again.
    pub writes: WriteLimits,
    /// How long a value that stays the same is not told again; by default every reading is recorded.
    pub unchanged: Unchanged,
    /// How long tasks may take to end. A request to a device that has begun is finished first.
    pub stop_within: Duration,
    /// Sets the jitter of reconnects.
    pub seed: u64,
}

impl MapperOptions {
    /// The defaults, with real connections, for the node `scope`.
    pub fn new(scope: Scope) -> Self {
        MapperOptions {
            scope,
            dial: Arc::new(NetDial),
            connections: ConnectionLimits::default(),
            writes: WriteLimits::default(),
            unchanged: Unchanged::default(),
            stop_within: Duration::from_secs(5),
            seed: rand::random(),
        }
    }
}

/// Runs a task per device and one per connection, as the table of devices changes.
pub struct MapperManager {
    options: MapperOptions,
}

/// How the mappers stopped.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Tasks that did not end in time and were aborted, by name.
    pub late: Vec<String>,
    /// The log's error, when it was the reason to stop.
    pub journal: Option<JournalError>,
}

impl MapperManager {
    /// A manager that runs nothing yet.
    pub fn new(options: MapperOptions) -> Self {
        MapperManager { options }
    }

    /// Serves the devices of `table` until `shutdown`, the end of the table's sender, or a log that failed. Every
    /// task it started has ended when it returns, at most [`MapperOptions::stop_within`] later.
    pub async fn run<J: Journal>(
        self,
        journal: J,
        clock: Arc<dyn Clock>,
        mut table: watch::Receiver<Arc<DeviceTable>>,
        shutdown: CancellationToken,
    ) -> Stopped {
        let failure = Failure::default();
        let stop = CancellationToken::new();
        let (recorder, recorder_tasks) = Recorder::new(&journal, &failure, &stop);
        let mut fleet = Fleet {
            shared: Shared {
                journal,
                clock,
                recorder,
                failure: failure.clone(),
                scope: self.options.scope.clone(),
                writes: self.options.writes,
                unchanged: self.options.unchanged,
            },
            connections: BTreeMap::new(),
            devices: BTreeMap::new(),
            ending: BTreeSet::new(),
            restart_at: None,
            tasks: Tasks::default(),
            stop: stop.clone(),
            options: self.options,
        };
        for (task, lane) in recorder_tasks.into_iter().zip(["up.state", "up.data"]) {
            fleet.tasks.spawn(format!("recorder {lane}"), task);
        }
        let current = Arc::clone(&table.borrow_and_update());
        fleet.sync(&current);
        loop {
            let restart_at = fleet.restart_at;
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = failure.happened() => break,
                changed = table.changed() => if changed.is_err() { break },
                ended = fleet.tasks.ended() => fleet.ended(&ended),
                () = tokio::time::sleep_until(restart_at.unwrap_or_else(Instant::now)), if restart_at.is_some() => {
                    fleet.restart_at = None;
                    fleet.ending.clear();
                }
            }
            let current = Arc::clone(&table.borrow_and_update());
            fleet.sync(&current);
        }
        stop.cancel();
        let Fleet {
            tasks,
            options,
            shared,
            connections,
            devices,
            ..
        } = fleet;
        // Closes every queue, so that connections and recorders end when the devices have.
        drop((shared, connections, devices));
        let late = tasks.join(options.stop_within).await;
        if !late.is_empty() {
            tracing::error!(?late, "mapper tasks did not end in time");
        }
        Stopped {
            late,
            journal: failure.error(),
        }
    }
}

struct Running {
    updates: watch::Sender<Update>,
    stop: CancellationToken,
}

struct Fleet<J> {
    shared: Shared<J>,
    options: MapperOptions,
    connections: BTreeMap<Address, Connection>,
    devices: BTreeMap<String, Running>,
    /// Devices whose last task has not ended, or panicked a moment ago: not started yet.
    ending: BTreeSet<String>,
    restart_at: Option<Instant>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl<J: Journal> Fleet<J> {
    /// Makes the running tasks those of `table`.
    fn sync(&mut self, table: &DeviceTable) {
        let served = |key: &String| {
            table
                .devices
                .get(key)
                .is_some_and(|e| e.spec.protocol == PROTOCOL)
        };
        self.devices.retain(|key, running| {
            let keep = served(key);
            if !keep {
                running.stop.cancel();
                self.ending.insert(key.clone());
            }
            keep
        });
        let addresses: BTreeSet<Address> = table
            .devices
            .values()
            .filter(|entry| entry.spec.protocol == PROTOCOL)
            .filter_map(|entry| Address::new(&entry.spec).ok().map(|(address, _)| address))
            .collect();
        self.connections
            .retain(|address, connection| addresses.contains(address) && !connection.is_closed());
        for (key, entry) in &table.devices {
            if served(key) && !self.ending.contains(key) {
                self.serve(key, entry);
            }
        }
    }

    fn serve(&mut self, key: &str, entry: &Arc<DeviceEntry>) {
        if let Some(running) = self.devices.get(key) {
            let old = running.updates.borrow().clone();
            // What the mapper itself reported comes back here as well: that is no news.
            let same = Arc::ptr_eq(&old.entry, entry)
                || (old.entry.spec == entry.spec && old.entry.desired == entry.desired);
            let usable = match &old.link {
                Ok((connection, _)) => !connection.is_closed(),
                // The other device may have gone.
                Err(AddressError::Conflict(_)) => false,
                Err(_) => true,
            };
            if same && usable {
                return;
            }
            let link = self.link(entry);
            if let Some(running) = self.devices.get(key)
                && !(same && link.is_err())
            {
                running.updates.send_replace(Update {
                    entry: Arc::clone(entry),
                    link,
                });
            }
            return;
        }
        let stop = self.stop.child_token();
        let update = Update {
            entry: Arc::clone(entry),
            link: self.link(entry),
        };
        let (updates, receiver) = watch::channel(update);
        let task = DeviceTask::new(self.shared.clone(), receiver, stop.clone());
        self.tasks.spawn(device_task(key), task.run());
        self.devices.insert(key.to_owned(), Running { updates, stop });
    }

    /// The connection to a device, shared with the others at the same address.
    fn link(&mut self, entry: &DeviceEntry) -> Link {
        let (address, unit) = Address::new(&entry.spec)?;
        if let Some(connection) = self.connections.get(&address) {
            return Ok((connection.clone(), unit));
        }
        if self
            .connections
            .keys()
            .any(|other| other.conflicts_with(&address))
        {
            return Err(AddressError::Conflict(address.to_string()));
        }
        let seed = self.options.seed.wrapping_add(self.connections.len() as u64);
        let dial = Arc::clone(&self.options.dial);
        let (connection, task) = Connection::new(address.clone(), dial, self.options.connections, seed);
        self.tasks.spawn(format!("connection {address}"), task);
        self.connections.insert(address, connection.clone());
        Ok((connection, unit))
    }

    fn ended(&mut self, ended: &Ended) {
        let Some(key) = ended.name.strip_prefix(DEVICE_TASK) else {
            // A connection that panicked is seen as closed and replaced by `sync`.
            return;
        };
        self.ending.remove(key);
        if self.devices.remove(key).is_some() && ended.panicked {
            self.ending.insert(key.to_owned());
            self.restart_at = Some(Instant::now() + RESTART_AFTER);
        }
    }
}

const DEVICE_TASK: &str = "device ";

fn device_task(key: &str) -> String {
    format!("{DEVICE_TASK}{key}")
}
