//! Carrying out a wish: intent into the log, write, result into the log, look again.

use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use ledge_proto::v1::write_result::Outcome;
use tokio::time::Instant;

use super::cycle::reported;
use super::device::{DeviceTask, event};
use super::modbus::{CallError, Range, Raw};
use crate::twin::reconcile::{Step, wire};
use crate::twin::value::show;
use crate::twin::{Desired, Journal, NewRecord};

/// A wish about to be carried out.
struct Order {
    index: usize,
    key: String,
    wish: Desired,
    range: Range,
    target: Raw,
}

impl<J: Journal> DeviceTask<J> {
    /// The property holds `held`: does what its wish asks for.
    pub(super) async fn reconcile(&mut self, index: usize, held: Raw) {
        let now = Instant::now();
        let property = &mut self.properties[index];
        let (Ok(point), Some(wish)) = (&property.point, property.reconciler.wish()) else {
            return;
        };
        // A wish that cannot be encoded was refused when it came.
        let Ok(target) = point.encode(&wish.value) else {
            return;
        };
        let (range, wish, key) = (point.range, wish.clone(), property.key.clone());
        let holds = point.holds(&target, &held);
        let shown = point
            .decode(&held)
            .map_or_else(|err| err.to_string(), |value| show(&value));
        match property.reconciler.observe(holds, now, &self.shared.writes) {
            Step::Rest => {}
            Step::Confirm => {
                property.reconciler.settle(Outcome::Applied, "");
                let stamp = self.shared.clock.stamp();
                let result = self.result(&key, &wish, Outcome::Applied, String::new(), stamp);
                self.shared.recorder.state(vec![result]).await;
            }
            Step::Write { drifted } => {
                if drifted {
                    let message = format!("{shown} where {} was held: writing it again", show(&wish.value));
                    let event = event(&key, "DesiredDrifted", message, self.shared.clock.stamp());
                    self.shared.recorder.data(vec![event]).await;
                }
                self.write(Order {
                    index,
                    key,
                    wish,
                    range,
                    target,
                })
                .await;
            }
        }
    }

    async fn write(&mut self, order: Order) {
        let Ok((connection, unit)) = self.link.clone() else {
            return;
        };
        let limits = self.shared.writes;
        self.properties[order.index]
            .reconciler
            .attempted(Instant::now(), &limits);
        // Without the intent in the log nothing is written: a crash now must not leave a change nobody knows of.
        if !self.log_intent(&order).await {
            return;
        }
        let written = connection
            .write(unit, self.timeout, order.range, order.target.clone())
            .await;
        let (outcome, error) = match &written {
            Ok(()) => (Outcome::Applied, String::new()),
            Err(err @ CallError::Exception(_)) => (Outcome::Failed, err.to_string()),
            Err(err) if err.is_before_sending() => (Outcome::Failed, format!("not sent: {err}")),
            Err(err) => (Outcome::Unknown, err.to_string()),
        };
        self.properties[order.index].reconciler.settle(outcome, &error);
        let stamp = self.shared.clock.stamp();
        let result = self.result(&order.key, &order.wish, outcome, error, stamp);
        self.shared.recorder.state(vec![result]).await;
        match written {
            Ok(()) => self.look_again(order).await,
            Err(err) if err.is_of_device() => self.lost(&err).await,
            Err(_) => {}
        }
    }

    async fn log_intent(&self, order: &Order) -> bool {
        let intent = v1::WriteIntent {
            value: Some(order.wish.value.clone()),
            desired: Some(wire(order.wish.position)),
        };
        let record = NewRecord {
            key: order.key.clone(),
            payload: Payload::WriteIntent(intent),
            stamp: self.shared.clock.stamp(),
            cause: Some(self.cause(&order.wish)),
        };
        match self.shared.journal.append(Lane::UpData, vec![record]).await {
            Ok(()) => true,
            Err(err) => {
                tracing::warn!(property = order.key, %err, "not writing: the intent cannot be logged");
                if !err.may_retry() {
                    self.shared.failure.set(err);
                }
                false
            }
        }
    }

    /// Reads back what was written and reports it.
    async fn look_again(&mut self, order: Order) {
        let Ok((connection, unit)) = self.link.clone() else {
            return;
        };
        let held = match connection.read(unit, self.timeout, order.range).await {
            Ok(held) => held,
            Err(err) if err.is_of_device() => return self.lost(&err).await,
            // The next cycle tells of it.
            Err(_) => return,
        };
        let now = Instant::now();
        let stamp = self.shared.clock.stamp();
        let property = &mut self.properties[order.index];
        let Ok(point) = &property.point else { return };
        let value = point.decode(&held);
        let holds = point.holds(&order.target, &held);
        // Marks it as held from now on; the write was a moment ago, so that nothing else is due.
        let _ = property.reconciler.observe(holds, now, &self.shared.writes);
        let mut records = Vec::new();
        if let Ok(value) = &value
            && property.report
            && property.reporter.observe(value, now, property.report_cycle)
        {
            records.push(reported(&order.key, value.clone(), stamp));
        }
        self.shared.recorder.state(records).await;
        if !holds {
            let shown = value.map_or_else(|err| err.to_string(), |value| show(&value));
            let message = format!(
                "wrote {}, the device shows {shown}: trying again later",
                show(&order.wish.value)
            );
            self.shared
                .recorder
                .data(vec![event(&order.key, "DesiredNotHeld", message, stamp)])
                .await;
        }
    }
}
