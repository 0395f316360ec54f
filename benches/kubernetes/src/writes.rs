//! ConfigMaps applied, one client or many.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::Measured;
use crate::figures::{cpu, rounded};
use crate::plan::Plan;
use crate::raw::Appended;
use crate::servers::{SKIPPED, Server};
use crate::wire::{APPLY, Connection};

/// Clients at once, each with one request outstanding.
const CLIENTS: [usize; 2] = [1, 32];

struct Side {
    pids: Vec<u32>,
    connections: Vec<Connection>,
    /// Of each slice, writes per second.
    rates: Vec<f64>,
    writes: u64,
    cpu: Duration,
    next: u64,
    /// What was stored last.
    stored: Bytes,
}

pub(crate) async fn measure(plan: &Plan) -> anyhow::Result<Vec<Measured>> {
    let dir = tempfile::tempdir()?;
    let mut file = Appended::create(&dir.path().join("appended"), 16 << 20)?;
    let (ours, real) = (Server::ours().await?, Server::real().await?);
    let mut rows = Vec::new();
    for clients in CLIENTS {
        let mut our_side = Side::new(&ours, clients).await?;
        let mut real_side = match &real {
            Some(real) => Some(Side::new(real, clients).await?),
            None => None,
        };
        our_side.slice(plan.slice / 4, false).await?;
        let record = our_side.stored.clone();
        let mut raw = Vec::new();
        for _ in 0..plan.rounds {
            let group = record.repeat(clients);
            let length = plan.slice;
            let appending = tokio::task::spawn_blocking(move || appends(file, &group, length));
            let (given_back, groups) = appending.await??;
            file = given_back;
            raw.push(groups * clients as f64);
            our_side.slice(plan.slice, true).await?;
            if let Some(side) = &mut real_side {
                side.slice(plan.slice, true).await?;
            }
        }
        rows.push(row(clients, &record, raw, &our_side, real_side.as_ref()));
    }
    Ok(rows)
}

fn row(clients: usize, record: &[u8], raw: Vec<f64>, ours: &Side, real: Option<&Side>) -> Measured {
    let (raw, our_rate) = (middle(raw), middle(ours.rates.clone()));
    let of_real = real.map_or(SKIPPED.into(), |side| {
        let rate = middle(side.rates.clone());
        json!({
            "per_second": rate.round(), "processor_us": side.processor_us(), "ours_is_faster_by": rounded(our_rate / rate),
            "flush": "etcd's own: fdatasync of its log before the answer",
        })
    });
    // Beside a real API server it has to be the faster one. There is no promise beside the disk.
    let met = of_real["ours_is_faster_by"]
        .as_f64()
        .is_none_or(|ratio| ratio >= 1.0);
    let mut row = json!({
        "id": format!("K5-{clients}"), "what": "server-side apply of ConfigMaps, each client one after the other over TLS",
        "clients": clients, "unit": "writes/s", "record_bytes": record.len(),
        "flush": "ours: fdatasync before the answer, of all that is waiting at once; raw: pwrite and fdatasync of one record for each client at once",
        "raw": raw.round(), "ours": our_rate.round(), "ratio": rounded(our_rate / raw), "processor_us": ours.processor_us(),
        "kube_apiserver": of_real, "met": met,
    });
    if real.is_some() {
        row["target"] = "not slower than kube-apiserver".into();
    }
    Measured { row, met }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Appends of `group` per second, and the file again.
fn appends(mut file: Appended, group: &[u8], length: Duration) -> anyhow::Result<(Appended, f64)> {
    let begun = Instant::now();
    let mut groups = 0_u32;
    while begun.elapsed() < length {
        file.append(group)?;
        groups += 1;
    }
    Ok((file, f64::from(groups) / begun.elapsed().as_secs_f64()))
}

impl Side {
    async fn new(server: &Server, clients: usize) -> anyhow::Result<Side> {
        let endpoint = server.endpoint()?;
        let connections = (0..clients).map(|_| endpoint.connect());
        Ok(Side {
            pids: server.pids.clone(),
            connections: try_join_all(connections).await?,
            rates: Vec::new(),
            writes: 0,
            cpu: Duration::ZERO,
            next: 0,
            stored: Bytes::new(),
        })
    }

    async fn slice(&mut self, length: Duration, counts: bool) -> anyhow::Result<()> {
        for connection in &mut self.connections {
            connection.open_again().await?;
        }
        let used = cpu(&self.pids)?;
        let first = self.next;
        let begun = Instant::now();
        let clients = self
            .connections
            .iter_mut()
            .enumerate()
            .map(|(client, connection)| async move {
                let path = format!(
                    "/api/v1/namespaces/default/configmaps/applied-{client}?fieldManager=bench&force=true"
                );
                let mut done = 0_u64;
                let mut stored = Bytes::new();
                while begun.elapsed() < length {
                    stored = connection
                        .ask("PATCH", &path, APPLY, object(client, first + done))
                        .await?;
                    done += 1;
                }
                anyhow::Ok((done, stored))
            });
        let done = try_join_all(clients).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let writes: u64 = done.iter().map(|(writes, _)| writes).sum();
        self.next += done.iter().map(|(writes, _)| *writes).max().unwrap_or_default();
        self.stored = done
            .into_iter()
            .next()
            .map(|(_, stored)| stored)
            .unwrap_or_default();
        if counts {
            self.rates.push(writes as f64 / seconds);
            self.writes += writes;
            self.cpu += cpu(&self.pids)?.saturating_sub(used);
        }
        Ok(())
    }

    fn processor_us(&self) -> f64 {
        rounded(self.cpu.as_secs_f64() * 1e6 / self.writes as f64)
    }
}

/// What a client applies: another value each time.
fn object(client: usize, number: u64) -> Bytes {
    let object: Value = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("applied-{client}"), "labels": {"app": "measured"}},
        "data": {"number": number.to_string(), "text": "x".repeat(256)},
    });
    object.to_string().into()
}
