//! What an operator may do over HTTP. Only from the machine cloudcore runs on.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ledge_proto::fence::{self, FenceUpdate, Resolution};
use ledge_proto::ids::{Incarnation, Scope};
use ledge_proto::v1;
use serde::Deserialize;

use super::Api;

/// Which disk of a node in quarantine is let in.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Accept {
    /// The one that said HELLO when the quarantine began.
    ThisDisk,
    /// Whichever says HELLO next.
    NewIncarnation,
}

/// Body of a decision.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    accept: Accept,
}

/// Ends a quarantine. Durable when the answer comes.
pub(super) async fn resolve(
    State(api): State<Api>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Path(node): Path<String>,
    Json(decision): Json<Decision>,
) -> Response {
    if !from.ip().to_canonical().is_loopback() || !asks_for_this_machine(&headers) {
        let message =
            "decisions about nodes are taken on the machine cloudcore runs on, over its loopback address\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    match decide(&api, &node, decision.accept).await {
        Ok(message) => (StatusCode::OK, message).into_response(),
        Err((status, message)) => (status, message).into_response(),
    }
}

/// A page in a browser on this machine may have been led here by a name of its own.
fn asks_for_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn decide(api: &Api, node: &str, accept: Accept) -> Result<String, (StatusCode, String)> {
    let failed = |err: &dyn std::fmt::Display| (StatusCode::INTERNAL_SERVER_ERROR, format!("{err}\n"));
    let scope = Scope::node(node).map_err(|err| (StatusCode::BAD_REQUEST, format!("{err}\n")))?;
    let fences = api.fences.of(&scope).map_err(|err| failed(&err))?;
    let order = fences.order().await;
    let noted = fences.node();
    let Some(quarantine) = noted.quarantine.clone() else {
        return Err((StatusCode::CONFLICT, format!("{scope} is not in quarantine\n")));
    };
    let resolution = match accept {
        Accept::NewIncarnation => Resolution::NewIncarnation,
        Accept::ThisDisk => this_disk(quarantine).map_err(|err| failed(&err))?,
    };
    let next = FenceUpdate::Node(Box::new(fence::resolve(noted, resolution)));
    let boot = api.log.identity().boot;
    let durable = order.note(&api.log, &next, now_us(), boot).await;
    drop(order);
    durable
        .map_err(|err| failed(&err))?
        .await
        .map_err(|err| failed(&err))?;
    api.fleet.set_quarantined(&scope, false);
    tracing::warn!(node = %scope, ?accept, "an operator ended the quarantine");
    Ok(format!("{scope} is let in when it connects next\n"))
}

fn this_disk(quarantine: v1::Quarantine) -> Result<Resolution, ledge_proto::ids::NameError> {
    Ok(Resolution::ThisDisk {
        incarnation: Incarnation::from_slice(&quarantine.incarnation)?,
        token: quarantine.token.unwrap_or_default(),
    })
}

fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_taken_for_it() {
        let asks = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            asks_for_this_machine(&headers)
        };
        for host in [
            "127.0.0.1:9601",
            "localhost:9601",
            "localhost",
            "[::1]:9601",
            "127.0.0.1",
        ] {
            assert!(asks(host), "{host}");
        }
        for host in ["evil.example:9601", "10.0.0.1:9601", "localhost.evil.example", ""] {
            assert!(!asks(host), "{host}");
        }
        assert!(!asks_for_this_machine(&HeaderMap::new()));
    }
}
