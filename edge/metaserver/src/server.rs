//! HTTP on the loopback: connections, requests to the protocol, its answers back.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ledge_kubeapi::ApiError;
use ledge_kubeapi::error::Reason;
use ledge_kubeapi::serve::Api;
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::serve::transport::{self, ResponseBody};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::partial;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Bodies that are read at once, each of at most 3 MiB.
const BODIES_MAX: usize = 4;
/// A client has this long for the head of each request, and for its body.
const PATIENCE: Duration = Duration::from_secs(15);
/// After a shutdown, answers that are under way get this long.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Most headers of a request.
const HEADERS_MAX: usize = 100;

/// Why MetaServer cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others than this machine could reach it.
    #[error(
        "MetaServer has no authentication: `{0}` is not on the loopback (127.0.0.0/8, ::1); set modules.metaManager.metaServer.server to 127.0.0.1:10550"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address} for MetaServer: {source}; choose another with modules.metaManager.metaServer.server or --meta-server (port 0 takes any, `off` turns it off)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A bound MetaServer; nothing is served yet.
pub(crate) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds `address`, which is on the loopback unless `anywhere`.
    pub(crate) async fn bind(address: SocketAddr, anywhere: bool) -> Result<Server, ServeError> {
        if !anywhere && !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback(address));
        }
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ServeError::Bind { address, source })?;
        Ok(Server { listener })
    }

    /// The address, with the real port.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `api`, which is of `node`, until `shutdown`. Watches end then; clients come back to the next one.
    pub(crate) async fn serve(self, api: Api, node: Arc<str>, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let bodies = Arc::new(Semaphore::new(BODIES_MAX));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            let Some((stream, permit)) = accepted else {
                continue;
            };
            let serving = Serving {
                api: api.clone(),
                node: Arc::clone(&node),
                bodies: Arc::clone(&bodies),
                shutdown: shutdown.clone(),
            };
            connections.spawn(async move {
                serve_connection(stream, serving).await;
                drop(permit);
            });
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
            tracing::debug!("clients of MetaServer did not finish");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            stream.set_nodelay(true).ok();
            Some((stream, permit))
        }
        Err(error) => {
            // Out of file descriptors, most likely: going round at once would burn a processor.
            tracing::warn!(%error, "cannot accept a connection to MetaServer");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Serving {
    api: Api,
    node: Arc<str>,
    bodies: Arc<Semaphore>,
    shutdown: CancellationToken,
}

async fn serve_connection(stream: TcpStream, serving: Serving) {
    let ended = serving.shutdown.clone();
    let service = service_fn(move |request| {
        let serving = serving.clone();
        async move { Ok::<_, Infallible>(answer(&serving, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => if let Err(error) = served {
            tracing::debug!(%error, "a connection to MetaServer ended");
        },
        () = ended.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

async fn answer(serving: &Serving, request: hyper::Request<Incoming>) -> hyper::Response<ResponseBody> {
    let head = request.method() == hyper::Method::HEAD;
    let response = match read(&serving.bodies, request).await {
        Ok(request) => {
            let warning = partial::warning(&request, &serving.node);
            let response = serving.api.serve(request).await;
            match warning.filter(|_| response.status == 200) {
                Some(warning) => response.with_warnings(&[warning]),
                None => response,
            }
        }
        Err(error) => Response::error(&error),
    };
    let mut out = transport::write(response, serving.shutdown.clone().cancelled_owned());
    if head {
        *out.body_mut() = Full::default().boxed_unsync();
    }
    out
}

async fn read(
    bodies: &Semaphore,
    request: hyper::Request<Incoming>,
) -> Result<ledge_kubeapi::serve::request::Request, ApiError> {
    if !is_of_this_machine(&request) {
        return Err(ApiError::new(
            Reason::Forbidden,
            "MetaServer is asked by address or as localhost: another name may have led a browser here",
        ));
    }
    let user = transport::anonymous();
    if request.body().is_end_stream() {
        return transport::read(user, request).await;
    }
    let slow = || ApiError::new(Reason::Timeout, "the body did not arrive in time");
    let body = async {
        let _permit = bodies.acquire().await;
        tokio::time::timeout(PATIENCE, transport::read(user, request)).await
    };
    body.await.map_err(|_| slow())?
}

/// Whether the client named an address or localhost. A page in a browser that reaches us through a name of its own choice
/// would be let in otherwise.
fn is_of_this_machine(request: &hyper::Request<Incoming>) -> bool {
    let host = request.headers().get(hyper::header::HOST);
    let Some(host) = host else { return true };
    host.to_str().is_ok_and(is_local_name)
}

fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_this_machine() {
        for local in [
            "127.0.0.1:10550",
            "127.0.0.1",
            "[::1]:10550",
            "[::1]",
            "localhost:1",
            "LOCALHOST",
            "169.254.30.10:10550",
        ] {
            assert!(is_local_name(local), "{local}");
        }
        for other in [
            "evil.example.com:10550",
            "evil.example.com",
            "127.0.0.1.example.com:80",
            "",
            ":80",
            "localhost.x",
        ] {
            assert!(!is_local_name(other), "{other}");
        }
    }
}
