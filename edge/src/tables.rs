//! From the projection to the table of devices that the mappers follow.

use std::sync::Arc;
use std::time::Duration;

use ledge_projection::{Changes, Projection, ReadError};
use ledge_proto::fold::{Table, view};
use ledge_proto::ids::Scope;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::twin::{Desired, DeviceEntry, DeviceTable};

/// What could not be read is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

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

/// Keeps `table` up with what the projection has of devices and their desired values until `shutdown`.
pub async fn follow(
    projection: Projection,
    scope: Scope,
    table: watch::Sender<Arc<DeviceTable>>,
    shutdown: CancellationToken,
) {
    let mut feed = projection.changes(&[Table::Devices, Table::Desired]);
    let mut failed = false;
    loop {
        let concerned = tokio::select! {
            changes = feed.next() => match changes {
                Changes::All => true,
                Changes::Entries(entries) => entries.iter().any(|changed| changed.scope == scope),
            },
            () = tokio::time::sleep(AGAIN_AFTER), if failed => true,
            () = shutdown.cancelled() => return,
        };
        if !concerned {
            continue;
        }
        match read(&projection, &scope) {
            Ok(mut new) => {
                failed = false;
                keep_unchanged(&table.borrow(), &mut new);
                tracing::info!(devices = new.devices.len(), "device table read");
                table.send_replace(Arc::new(new));
            }
            Err(err) => {
                failed = true;
                tracing::error!(%err, "cannot read the device table; the last one stays in force");
            }
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
