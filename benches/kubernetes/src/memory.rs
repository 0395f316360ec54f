//! Memory of cloudcore with the embedded API: with nothing in it, and for what is put into it.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::Measured;
use crate::figures::{Memory, rounded};
use crate::plan::Plan;
use crate::servers::{SKIPPED, Server};
use crate::wire::{Endpoint, JSON};

const LIMIT_MB: f64 = 40.0;
/// Our own target: an object takes no more than three times its JSON, which is kept encoded.
const TARGET: f64 = 3.0;
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const AT_ONCE: u32 = 32;

/// What one server takes at three moments, and what its objects are.
struct Side {
    idle: Memory,
    read: Memory,
    before: Memory,
    filled: Memory,
    json_bytes: usize,
}

pub(crate) async fn measure(plan: &Plan) -> anyhow::Result<Vec<Measured>> {
    let ours = side(&Server::ours().await?, plan).await?;
    let real = match Server::real().await? {
        Some(server) => Some(side(&server, plan).await?),
        None => None,
    };
    let mut rows = Vec::new();
    if plan.wants("K6") {
        rows.push(idle(&ours, real.as_ref()));
    }
    if plan.wants("K7") {
        rows.push(filled(plan, &ours, real.as_ref()));
    }
    Ok(rows)
}

fn idle(ours: &Side, real: Option<&Side>) -> Measured {
    let met = ours.idle.resident <= LIMIT_MB;
    let of_real = real.map_or(SKIPPED.into(), |real| {
        let ratio = real.idle.resident / ours.idle.resident;
        json!({"idle": real.idle.row(), "after_all_documents": real.read.row(), "ours_is_smaller_by": rounded(ratio)})
    });
    let row = json!({
        "id": "K6", "what": "memory of cloudcore with the embedded API and nothing else", "unit": "MB",
        "idle": ours.idle.row(), "after_all_documents": ours.read.row(), "limit": LIMIT_MB,
        "ratio_to_limit": rounded(ours.idle.resident / LIMIT_MB),
        "ratio_to_limit_after_all_documents": rounded(ours.read.resident / LIMIT_MB),
        "kube_apiserver_and_etcd": of_real, "met": met,
    });
    Measured { row, met }
}

fn filled(plan: &Plan, ours: &Side, real: Option<&Side>) -> Measured {
    let thousands = f64::from(plan.objects) / 1e3;
    let grown = |side: &Side| (side.filled.resident - side.before.resident) / thousands;
    let json_mb = ours.json_bytes as f64 / 1e6 / thousands;
    let ratio = grown(ours) / json_mb;
    let met = ratio <= TARGET;
    let of_real = real.map_or(SKIPPED.into(), |real| {
        json!({"per_1000": rounded(grown(real)), "ours_is_smaller_by": rounded(grown(real) / grown(ours))})
    });
    let row = json!({
        "id": "K7", "what": "what cloudcore grows by for 1,000 ConfigMaps", "objects": plan.objects, "unit": "MB",
        "json_per_1000": rounded(json_mb), "per_1000": rounded(grown(ours)), "filled": ours.filled.row(),
        "ratio_to_json": rounded(ratio), "kube_apiserver_and_etcd": of_real, "target": TARGET, "met": met,
    });
    Measured { row, met }
}

async fn side(server: &Server, plan: &Plan) -> anyhow::Result<Side> {
    let endpoint = server.endpoint()?;
    tokio::time::sleep(plan.settle).await;
    let idle = Memory::of(&server.pids)?;
    read_documents(&endpoint).await?;
    tokio::time::sleep(plan.settle).await;
    let read = Memory::of(&server.pids)?;
    // What many clients and a few writes take is not for the objects.
    fill(&endpoint, "warm-up", AT_ONCE * 4).await?;
    tokio::time::sleep(plan.settle).await;
    let before = Memory::of(&server.pids)?;
    let json_bytes = fill(&endpoint, "object", plan.objects).await?;
    tokio::time::sleep(plan.settle).await;
    Ok(Side {
        idle,
        read,
        before,
        filled: Memory::of(&server.pids)?,
        json_bytes,
    })
}

/// All that kubectl may ask for before it does anything: discovery, and every OpenAPI document.
async fn read_documents(endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut connection = endpoint.connect().await?;
    for path in ["/api", "/apis", "/openapi/v2"] {
        connection.get(path).await?;
    }
    let index: Value = serde_json::from_slice(&connection.get("/openapi/v3").await?)?;
    for document in index["paths"].as_object().into_iter().flatten() {
        let address = document.1["serverRelativeURL"].as_str().unwrap_or_default();
        connection.get(address).await?;
    }
    Ok(())
}

/// Makes ConfigMaps and gives the bytes of their JSON, as the server answered it.
async fn fill(endpoint: &Endpoint, name: &str, objects: u32) -> anyhow::Result<usize> {
    let work = (0..AT_ONCE).map(|first| async move {
        let mut connection = endpoint.connect().await?;
        let mut bytes = 0;
        for number in (first..objects).step_by(AT_ONCE as usize) {
            let object = object(&format!("{name}-{number:05}"));
            bytes += connection.ask("POST", COLLECTION, JSON, object).await?.len();
        }
        anyhow::Ok(bytes)
    });
    let bytes: Vec<usize> = stream::iter(work)
        .buffer_unordered(AT_ONCE as usize)
        .try_collect()
        .await?;
    Ok(bytes.iter().sum())
}

fn object(name: &str) -> Bytes {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "measured"}},
        "data": {"text": "x".repeat(700)},
    })
    .to_string()
    .into()
}
