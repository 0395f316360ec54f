//! The fleet over HTTP: `/v1/nodes` and `/v1/nodes/{node}` to read, `/v1/nodes/{node}/resolve` for operators.

mod operate;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ledge_log::Log;
use ledge_projection::{Projection, ReadError};
use ledge_proto::fold::Table;
use ledge_proto::fold::view::{self, Twin};
use ledge_proto::ids::Scope;
use ledge_proto::v1::{self, value::Value as V};
use ledge_replication::fences::Fences;
use serde_json::{Value, json};

use crate::fleet::Fleet;

/// What the routes need.
#[derive(Debug, Clone)]
pub struct Api {
    /// The cloud's log.
    pub log: Log,
    /// Links, and what is ahead of the projection.
    pub fleet: Fleet,
    /// The cloud's projection.
    pub projection: Projection,
    /// What is noted of the nodes' disks.
    pub fences: Fences,
}

/// The routes. They need to know who asks ([`axum::extract::ConnectInfo`]).
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{node}", get(node))
        .route("/v1/nodes/{node}/resolve", post(operate::resolve))
        .with_state(api)
}

async fn nodes(State(api): State<Api>) -> Response {
    let result = (|| -> Result<Vec<Value>, ReadError> {
        let view = api.projection.view();
        let mut scopes = view::scopes(&view).map_err(ledge_proto::fold::FoldError::Store)?;
        scopes.extend(api.fleet.nodes());
        scopes.retain(|scope| scope.node_name().is_some());
        scopes.sort();
        scopes.dedup();
        scopes.iter().map(|scope| summary(&api, scope)).collect()
    })();
    respond(result)
}

async fn node(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let scope = match Scope::node(&name) {
        Ok(scope) => scope,
        Err(err) => return (StatusCode::BAD_REQUEST, format!("{err}\n")).into_response(),
    };
    let result = (|| -> Result<Value, ReadError> {
        let mut node = summary(&api, &scope)?;
        let fresh = api.fleet.view(&scope);
        let devices = view::devices(&fresh, &scope)?;
        let devices: serde_json::Map<_, _> = devices
            .into_iter()
            .map(|(key, device)| {
                let twins: serde_json::Map<_, _> = device
                    .twins
                    .into_iter()
                    .map(|(name, twin)| {
                        let ahead = fresh.is_ahead(&scope, Table::Reported, &format!("{key}/{name}"));
                        let twin = twin_json(&twin, ahead);
                        (name, twin)
                    })
                    .collect();
                let state = device.state.map(|state| state.content.state);
                (
                    key,
                    json!({"state": state, "assigned": device.spec.is_some(), "twins": twins}),
                )
            })
            .collect();
        node["devices"] = Value::Object(devices);
        Ok(node)
    })();
    respond(result)
}

fn summary(api: &Api, scope: &Scope) -> Result<Value, ReadError> {
    let fresh = api.fleet.view(scope);
    let state = view::node(&fresh, scope)?;
    let hash = ledge_proto::fold::state_hash(&api.projection.view(), scope)
        .map_err(ledge_proto::fold::FoldError::Store)?;
    let link = api.fleet.status(scope).map(|link| {
        json!({
            "connected": link.connected,
            "ageSeconds": link.age.as_secs_f64(),
            "software": link.software,
            "lagRecords": link.lag_records,
            "lagSeconds": link.lag.as_secs_f64(),
            "downLagRecords": link.down_lag_records,
            // As of the node's last heartbeat.
            "unreadableRecords": link.unreadable,
        })
    });
    Ok(json!({
        "name": scope.to_string(),
        "labels": state.as_ref().map(|state| &state.content.labels),
        "version": state.as_ref().map(|state| &state.content.version),
        // Of what is folded; values that are ahead of it are not in it.
        "disk": disk(api, scope),
        "stateHash": hex::encode(hash),
        "valuesAhead": fresh.ahead(),
        // Of the cloud's copy of its streams: damaged here, and not put back yet.
        "unreadableRecords": api.fleet.unreadable(scope),
        // Absent: it has not connected since cloudcore started, so nothing is known of its link.
        "link": link,
    }))
}

/// What is noted of the node's disk.
fn disk(api: &Api, scope: &Scope) -> Value {
    let fence = match api.fences.of(scope) {
        Ok(fences) => fences.node(),
        Err(err) => return json!({"problem": err.to_string()}),
    };
    let quarantine = fence.quarantine.as_ref().map(|quarantine| {
        json!({
            "reason": quarantine.reason,
            "message": quarantine.message,
            "sinceUs": quarantine.since_us,
            "incarnation": hex::encode(&quarantine.incarnation),
        })
    });
    json!({
        "incarnation": hex::encode(&fence.incarnation),
        "epoch": fence.epoch,
        "sessions": fence.current.as_ref().map_or(0, |token| token.counter),
        "closedIncarnations": fence.closed.len(),
        "quarantine": quarantine,
        // An operator has decided, and no disk has come since.
        "awaited": fence.accepted.is_some(),
    })
}

fn twin_json(twin: &Twin, ahead: bool) -> Value {
    json!({
        "desired": twin.desired.as_ref().and_then(|d| value_json(d.content.value.as_ref())),
        "reported": twin.reported.as_ref().and_then(|r| value_json(r.content.value.as_ref())),
        // The history up to this value is still on its way.
        "ahead": ahead,
        "reportedAtUs": twin.reported.as_ref().map(|r| r.wall_us),
        "samples": twin.sample.as_ref().map(|s| s.count),
        "lastWrite": twin.write_result.as_ref().map(|w| w.content.outcome().as_str_name()),
        "lastWriteError": twin.write_result.as_ref().map(|w| &w.content.error).filter(|e| !e.is_empty()),
    })
}

fn value_json(value: Option<&v1::Value>) -> Option<Value> {
    Some(match value?.value.as_ref()? {
        V::Double(v) => json!(v),
        V::Int(v) => json!(v),
        V::String(v) => json!(v),
        V::Bool(v) => json!(v),
        V::Bytes(v) => json!(hex::encode(v)),
    })
}

fn respond<T: serde::Serialize>(result: Result<T, ReadError>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(err) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{err}\n")).into_response(),
    }
}
