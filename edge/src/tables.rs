//! From the projection to the table of devices that the mappers follow.

use std::sync::Arc;

use ledge_projection::{Projection, ReadError};
use ledge_proto::fold::{folded_stream, view};
use ledge_proto::ids::{Lane, Scope, StreamId};
use ledge_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::twin::{Desired, DeviceEntry, DeviceTable};

/// Reads the table of `scope` from the projection.
///
/// # Errors
/// When the projection cannot be read.
pub fn read(projection: &Projection, scope: &Scope) -> Result<DeviceTable, ReadError> {
    let devices = view::devices(&projection.view(), scope)?;
    let mut table = DeviceTable::default();
    for (key, device) in devices {
        let Some(spec) = device.spec else { continue };
        let mut entry = DeviceEntry {
            spec: spec.content,
            state: device.state.map(|s| s.content.state),
            ..Default::default()
        };
        for (property, twin) in device.twins {
            if let Some(desired) = twin.desired
                && let Some(value) = desired.content.value
            {
                entry.desired.insert(
                    property.clone(),
                    Desired {
                        value,
                        position: desired.position,
                    },
                );
            }
            if let Some(value) = twin.reported.and_then(|reported| reported.content.value) {
                entry.reported.insert(property.clone(), value);
            }
            if let Some(result) = twin.write_result {
                entry.results.insert(property, result.content);
            }
        }
        table.devices.insert(key, Arc::new(entry));
    }
    Ok(table)
}

/// Position of the `down` stream a table was read at: only records of this stream change it.
fn down_position(projection: &Projection, scope: &Scope) -> Result<Option<v1::FoldedStream>, ReadError> {
    folded_stream(&projection.view(), &StreamId::new(scope.clone(), Lane::Down))
}

/// Keeps `table` up with the projection until `shutdown`.
pub async fn follow(
    projection: Projection,
    scope: Scope,
    table: watch::Sender<Arc<DeviceTable>>,
    shutdown: CancellationToken,
) {
    let mut applied = projection.subscribe();
    let mut read_at = None;
    loop {
        applied.borrow_and_update();
        match down_position(&projection, &scope) {
            Ok(position) if position != read_at => match read(&projection, &scope) {
                Ok(mut new) => {
                    read_at = position;
                    keep_unchanged(&table.borrow(), &mut new);
                    tracing::info!(devices = new.devices.len(), "device table read");
                    table.send_replace(Arc::new(new));
                }
                Err(err) => {
                    tracing::error!(%err, "cannot read the device table; the last one stays in force")
                }
            },
            Ok(_) => {}
            Err(err) => {
                tracing::error!(%err, "cannot read the projection; the last device table stays in force")
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Gives entries that did not change their old `Arc`, so that comparing tables is cheap.
fn keep_unchanged(old: &DeviceTable, new: &mut DeviceTable) {
    for (key, entry) in &mut new.devices {
        if let Some(before) = old.devices.get(key)
            && before.spec == entry.spec
            && before.desired == entry.desired
        {
            *entry = before.clone();
        }
    }
}
