//! The task that serves one device: follows its entry in the table, waits for the next tick, runs cycles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledge_proto::ids::Scope;
use ledge_proto::record::{Payload, device_key, property_key};
use ledge_proto::v1;
use ledge_proto::v1::write_result::Outcome;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cycle::run_record;
use super::health::{Condition, Health};
use super::modbus::{AddressError, Connection};
use super::property::Property;
use super::recorder::{Failure, Recorder};
use crate::twin::reconcile::{Reconciler, WriteLimits, wire};
use crate::twin::{Clock, Desired, DeviceEntry, NewRecord, Stamp, Unchanged};

/// Time allowed for one request when the specification gives none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time allowed for one request.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// Property names longer than this are refused: they are part of every record's key.
const NAME_MAX_BYTES: usize = 256;
/// As much of such a name is shown.
const NAME_SHOWN_CHARS: usize = 40;

/// What all devices share.
#[derive(Clone)]
pub(super) struct Shared<J> {
    pub(super) journal: J,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) recorder: Recorder,
    pub(super) failure: Failure,
    pub(super) scope: Scope,
    pub(super) writes: WriteLimits,
    pub(super) unchanged: Unchanged,
}

/// The way to a device: a connection and its unit there, or why there is none.
pub(super) type Link = Result<(Connection, u8), AddressError>;

/// A device as the table has it now.
#[derive(Clone)]
pub(super) struct Update {
    pub(super) entry: Arc<DeviceEntry>,
    pub(super) link: Link,
}

/// Serves one device.
pub(super) struct DeviceTask<J> {
    pub(super) shared: Shared<J>,
    updates: watch::Receiver<Update>,
    pub(super) key: String,
    pub(super) link: Link,
    pub(super) timeout: Duration,
    pub(super) properties: Vec<Property>,
    /// Wishes for properties the device does not have.
    strays: BTreeMap<String, Reconciler>,
    /// Names that no property can have, as last told of.
    bad_names: Vec<String>,
    pub(super) health: Health,
    /// Neighbouring registers are read together until the device objects.
    pub(super) together: bool,
    pub(super) skipped: Skipped,
    pub(super) stop: CancellationToken,
}

/// Ticks that were missed and not yet told of.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    pub(super) ticks: u64,
    pub(super) told_at: Option<Instant>,
}

impl<J: crate::twin::Journal> DeviceTask<J> {
    /// A task for the device in `updates`, going on from what the log says of it.
    pub(super) fn new(shared: Shared<J>, updates: watch::Receiver<Update>, stop: CancellationToken) -> Self {
        let (key, link, state) = {
            let update = updates.borrow();
            let spec = &update.entry.spec;
            (
                device_key(&spec.namespace, &spec.name),
                update.link.clone(),
                update.entry.state.clone(),
            )
        };
        DeviceTask {
            shared,
            updates,
            key,
            link,
            timeout: DEFAULT_TIMEOUT,
            properties: Vec::new(),
            strays: BTreeMap::new(),
            bad_names: Vec::new(),
            health: Health::new(state),
            together: true,
            skipped: Skipped::default(),
            stop,
        }
    }

    /// Serves the device until stopped. A cycle that has begun is finished first.
    pub(super) async fn run(mut self) {
        self.apply().await;
        while !self.stop.is_cancelled() {
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                changed = self.updates.changed() => match changed {
                    Ok(()) => self.apply().await,
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    self.cycle().await;
                }
            }
        }
        self.record_runs().await;
    }

    /// Records the readings that are counted only so far.
    async fn record_runs(&mut self) {
        let properties = self.properties.iter_mut();
        let runs = properties.filter_map(|property| run_record(&property.key, property.sampler.take()));
        let runs = runs.collect();
        self.shared.recorder.data(runs).await;
    }

    fn wake_at(&self) -> Option<Instant> {
        self.link.as_ref().ok()?;
        if self.health.probe_at().is_some() {
            return self.health.probe_at();
        }
        let now = Instant::now();
        self.properties
            .iter()
            .filter_map(|property| property.wake_at(now))
            .min()
    }

    /// Takes the device's entry as it is now.
    async fn apply(&mut self) {
        // A property may go, or lie elsewhere from now on.
        self.record_runs().await;
        let Update { entry, link } = self.updates.borrow_and_update().clone();
        let now = Instant::now();
        let moved = match (&self.link, &link) {
            (Ok((old, old_unit)), Ok((new, new_unit))) => !old.is_same(new) || old_unit != new_unit,
            _ => true,
        };
        if moved {
            self.health.forget();
            self.together = true;
        }
        self.link = link;
        let timeout_ms = entry.spec.modbus.as_ref().map_or(0, |modbus| modbus.timeout_ms);
        self.timeout = match timeout_ms {
            0 => DEFAULT_TIMEOUT,
            ms => Duration::from_millis(u64::from(ms)).min(MAX_TIMEOUT),
        };

        let mut before: BTreeMap<String, Property> = std::mem::take(&mut self.properties)
            .into_iter()
            .map(|p| (p.name.clone(), p))
            .collect();
        let spec = &entry.spec;
        let mut bad_names = Vec::new();
        for property in &spec.properties {
            let known = self.properties.iter().any(|p| p.name == property.name);
            if known || property.name.contains('/') || property.name.len() > NAME_MAX_BYTES {
                bad_names.push(property.name.chars().take(NAME_SHOWN_CHARS).collect());
                continue;
            }
            let key = property_key(&spec.namespace, &spec.name, &property.name);
            let before = before.remove(&property.name);
            self.properties
                .push(Property::new(key, property, before, &entry, now));
        }
        self.tell_unusable(bad_names).await;
        self.refuse_wishes(&entry).await;
    }

    /// Tells of properties, or a whole device, that cannot be served as specified.
    async fn tell_unusable(&mut self, bad_names: Vec<String>) {
        let stamp = self.shared.clock.stamp();
        let mut events = Vec::new();
        if !bad_names.is_empty() && bad_names != self.bad_names {
            let message =
                format!("twice there, longer than {NAME_MAX_BYTES} bytes or with a `/`: {bad_names:?}");
            events.push(event(&self.key, "PropertyNameInvalid", message, stamp));
        }
        self.bad_names = bad_names;
        for property in &mut self.properties {
            if let Err(reason) = &property.point
                && property.trouble.as_ref() != Some(reason)
            {
                property.trouble = Some(reason.clone());
                events.push(event(&property.key, "PropertyInvalid", reason.clone(), stamp));
            }
        }
        self.shared.recorder.data(events).await;
        if let Err(reason) = &self.link {
            let reason = reason.to_string();
            self.health.cannot_ask(Condition::Unhealthy);
            self.tell_health(&reason).await;
        } else if self.properties.iter().all(|property| property.point.is_err()) {
            self.health.cannot_ask(Condition::Unknown);
            self.tell_health("no property can be read").await;
        }
    }

    /// Records results for wishes that cannot be carried out whatever the device does.
    async fn refuse_wishes(&mut self, entry: &DeviceEntry) {
        let mut refused = Vec::new();
        for property in &mut self.properties {
            if let Some(reason) = property.refusal()
                && property.reconciler.refuse(&reason)
                && let Some(wish) = property.reconciler.wish()
            {
                refused.push((property.key.clone(), wish.clone(), reason));
            }
        }
        let spec = &entry.spec;
        let has = |name: &String| spec.properties.iter().any(|property| property.name == *name);
        self.strays
            .retain(|name, _| entry.desired.contains_key(name) && !has(name));
        for (name, wish) in entry.desired.iter().filter(|(name, _)| !has(name)) {
            let stray = self
                .strays
                .entry(name.clone())
                .or_insert_with(|| Reconciler::new(entry.results.get(name)));
            stray.set_wish(Some(wish));
            let reason = format!("the device has no property {name}");
            if stray.refuse(&reason) {
                refused.push((
                    property_key(&spec.namespace, &spec.name, name),
                    wish.clone(),
                    reason,
                ));
            }
        }
        let stamp = self.shared.clock.stamp();
        let records = refused
            .into_iter()
            .map(|(key, wish, reason)| self.result(&key, &wish, Outcome::Failed, reason, stamp))
            .collect();
        self.shared.recorder.state(records).await;
    }

    /// Records the device's state, when it is not the one the log has.
    pub(super) async fn tell_health(&mut self, message: &str) {
        let Some(condition) = self.health.news() else {
            return;
        };
        tracing::info!(
            device = self.key,
            state = condition.name(),
            message,
            "device state"
        );
        let stamp = self.shared.clock.stamp();
        let state = v1::DeviceState {
            state: condition.name().to_owned(),
            message: message.to_owned(),
        };
        let record = NewRecord {
            key: self.key.clone(),
            payload: Payload::DeviceState(state),
            stamp,
            cause: None,
        };
        self.shared.recorder.state(vec![record]).await;
        let event = event(&self.key, condition.event(), message.to_owned(), stamp);
        self.shared.recorder.data(vec![event]).await;
    }

    /// A `WriteResult` record.
    pub(super) fn result(
        &self,
        key: &str,
        wish: &Desired,
        outcome: Outcome,
        error: String,
        stamp: Stamp,
    ) -> NewRecord {
        let mut result = v1::WriteResult {
            value: Some(wish.value.clone()),
            desired: Some(wire(wish.position)),
            error,
            ..Default::default()
        };
        result.set_outcome(outcome);
        let payload = Payload::WriteResult(result);
        NewRecord {
            key: key.to_owned(),
            payload,
            stamp,
            cause: Some(self.cause(wish)),
        }
    }

    /// The desired record, as the cause of another.
    pub(super) fn cause(&self, wish: &Desired) -> v1::Cause {
        v1::Cause {
            scope: self.shared.scope.as_wire().to_owned(),
            lane: ledge_proto::ids::Lane::Down.as_wire(),
            epoch: wish.position.epoch.0,
            seq: wish.position.seq.0,
        }
    }
}

/// A `DeviceEvent` record.
pub(super) fn event(key: &str, reason: &str, message: String, stamp: Stamp) -> NewRecord {
    let event = v1::Event {
        reason: reason.to_owned(),
        message,
    };
    NewRecord {
        key: key.to_owned(),
        payload: Payload::DeviceEvent(event),
        stamp,
        cause: None,
    }
}
