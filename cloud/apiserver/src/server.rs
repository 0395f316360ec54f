//! HTTPS: connections, who is at the other end, requests to the protocol and its answers back.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ledge_kubeapi::serve::Api;
use ledge_kubeapi::serve::request::{AUTHENTICATED, User};
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::serve::transport::{self, ResponseBody};
use ledge_kubeapi::{ApiError, Reason};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::bodies::{self, Bodies};
use crate::pki::Pki;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 8192;
/// A client has this long for its TLS handshake, and for the head of each request.
const PATIENCE: Duration = Duration::from_secs(15);
/// After a shutdown, answers that are under way get this long.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Most headers of a request.
const HEADERS_MAX: usize = 100;
/// Most bytes of a request that wait to be taken up, of its head above all.
const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address} for the Kubernetes API: {source}; choose another with --api-listen (port 0 takes any, `off` serves none)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error("certificates of the Kubernetes API: {0}")]
    Tls(String),
}

/// What requests are answered with.
#[derive(Clone)]
pub struct Served {
    /// The API.
    pub api: Api,
    /// Knows the bearers of tokens.
    pub accounts: Accounts,
}

/// A bound API; nothing is served yet.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds `address`.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(address: SocketAddr) -> Result<Server, ServeError> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ServeError::Bind { address, source })?;
        Ok(Server { listener })
    }

    /// The address, with the real port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `served` until `shutdown`. Watches end then; clients come back to the next one.
    pub async fn serve(self, served: Served, acceptor: TlsAcceptor, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let bodies = Bodies::new(bodies::ALL_BYTES);
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
            let (served, bodies) = (served.clone(), bodies.clone());
            let (acceptor, shutdown) = (acceptor.clone(), shutdown.clone());
            connections.spawn(async move {
                serve_connection(stream, served, bodies, acceptor, shutdown).await;
                drop(permit);
            });
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
            tracing::debug!("clients of the Kubernetes API did not finish");
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
            tracing::warn!(%error, "cannot accept a connection to the Kubernetes API");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// TLS with the server's certificate; clients may show one of the authority's.
///
/// # Errors
/// When the certificates do not fit together.
pub fn acceptor(pki: &Pki) -> Result<TlsAcceptor, ServeError> {
    let wrong = |error: &dyn std::fmt::Display| ServeError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(pki.ca.clone()).map_err(|error| wrong(&error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| wrong(&error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![pki.cert.clone()], pki.key.clone_key())
        .map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve_connection(
    stream: TcpStream,
    served: Served,
    bodies: Bodies,
    acceptor: TlsAcceptor,
    shutdown: CancellationToken,
) {
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|certificates| user_of(certificates.first()?));
    let ended = shutdown.clone();
    let service = service_fn(move |request| {
        let (served, bodies) = (served.clone(), bodies.clone());
        let (user, shutdown) = (user.clone(), shutdown.clone());
        async move { Ok::<_, Infallible>(answer(&served, &bodies, user, request, &shutdown).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => if let Err(error) = served {
            tracing::debug!(%error, "a connection to the Kubernetes API ended");
        },
        () = ended.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

/// Who a client's certificate names: the common name, and the organizations as groups, as upstream.
fn user_of(certificate: &[u8]) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok());
    let mut groups: Vec<String> = groups.map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    Some(User::new(name, groups))
}

async fn answer<B>(
    served: &Served,
    bodies: &Bodies,
    user: Option<User>,
    request: hyper::Request<B>,
    shutdown: &CancellationToken,
) -> hyper::Response<ResponseBody>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let head = request.method() == hyper::Method::HEAD;
    let response = match respond(served, bodies, user, request).await {
        Ok(response) | Err(response) => response,
    };
    let mut out = transport::write(response, shutdown.clone().cancelled_owned());
    if head {
        *out.body_mut() = Full::default().boxed_unsync();
    }
    out
}

/// Answers a request. Its body is read once it is known that its sender may make it: nobody else makes the server hold one.
async fn respond<B>(
    served: &Served,
    bodies: &Bodies,
    certificate: Option<User>,
    request: hyper::Request<B>,
) -> Result<Response, Response>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let refuse = |error: ApiError| Response::error(&error);
    let (mut parts, body) = request.into_parts();
    let user = sender(served, certificate, &mut parts).await.map_err(refuse)?;
    let head = transport::head(user, &parts).map_err(refuse)?;
    let checked = served.api.check(head).await?;
    let body = bodies.read(body).await.map_err(refuse)?;
    let response = served.api.carry_out(checked, body.bytes.clone()).await;
    drop(body);
    Ok(response)
}

async fn sender(
    served: &Served,
    certificate: Option<User>,
    parts: &mut hyper::http::request::Parts,
) -> Result<User, ApiError> {
    let authorization = parts.headers.remove(hyper::header::AUTHORIZATION);
    let text = match authorization.as_ref().map(|value| value.to_str()) {
        None => "",
        Some(Ok(text)) => text,
        // Who shows what cannot be read is not nobody.
        Some(Err(_)) if certificate.is_none() => {
            return Err(ApiError::new(Reason::Unauthorized, "Unauthorized"));
        }
        Some(Err(_)) => "",
    };
    let sender = served.accounts.sender(certificate, text).await?;
    Ok(sender.unwrap_or_else(transport::anonymous))
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address().ok())
            .finish()
    }
}

#[cfg(test)]
mod tests;
