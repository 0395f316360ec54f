//! An HTTPS client that is the same towards every server, and does no more than it has to: one connection, one request after
//! the other, bodies as bytes.

use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// Where a server is, and how to be known there.
#[derive(Clone)]
pub(crate) struct Endpoint {
    authority: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Endpoint {
    pub(crate) fn of(config: &kube::Config) -> anyhow::Result<Endpoint> {
        let authority = config.cluster_url.authority().context("no server")?;
        Ok(Endpoint {
            name: ServerName::try_from(authority.host().to_owned())?,
            authority: authority.to_string(),
            tls: TlsConnector::from(Arc::new(config.rustls_client_config()?)),
        })
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender.
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            endpoint: self.clone(),
        })
    }
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    endpoint: Endpoint,
}

impl Connection {
    /// Connects again if the server closed it, as servers do when nothing is asked for a while. To be called before the time
    /// that counts.
    pub(crate) async fn open_again(&mut self) -> anyhow::Result<()> {
        if self.sender.is_closed() {
            *self = self.endpoint.connect().await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.endpoint.authority)
            .header("accept", JSON)
            .header("content-type", media)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// A request and its whole answer, which has to be a good one.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> anyhow::Result<Bytes> {
        let response = self.send(method, path, media, body).await?;
        let status = response.status();
        let whole = response.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{method} {path}: {status}: {}",
            String::from_utf8_lossy(&whole)
        );
        Ok(whole)
    }

    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        self.ask("GET", path, JSON, Bytes::new()).await
    }

    /// An answer that goes on: each line is handed to `line` as soon as it is whole. Returns when `line` says false.
    pub(crate) async fn lines(
        mut self,
        path: &str,
        mut line: impl FnMut(&[u8]) -> bool,
    ) -> anyhow::Result<()> {
        let response = self.send("GET", path, JSON, Bytes::new()).await?;
        ensure!(
            response.status().is_success(),
            "GET {path}: {}",
            response.status()
        );
        let mut body = response.into_body();
        let mut begun = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let mut rest = &data[..];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                begun.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                if !line(&begun) {
                    return Ok(());
                }
                begun.clear();
            }
            begun.extend_from_slice(rest);
        }
        Ok(())
    }
}
