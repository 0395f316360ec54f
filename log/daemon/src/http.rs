//! Metrics and health over HTTP: `/metrics`, `/livez`, `/readyz`, `/healthz`.

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// After a shutdown, answers that are under way get this long; a client that never finishes its question, no more.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why the HTTP face could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address} for metrics and health: {source}; choose another with --http-listen (port 0 takes any)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Metrics are collected by somebody else in this process.
    #[error("cannot collect metrics: {0}")]
    Recorder(String),
}

/// A bound HTTP face; nothing is served yet.
#[derive(Debug)]
pub struct HttpFace {
    listener: TcpListener,
    router: Router,
}

impl HttpFace {
    /// Binds `address` and starts to collect metrics.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn bind(address: SocketAddr, health: Health) -> Result<Self, HttpError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| HttpError::Bind { address, source })?;
        let metrics = PrometheusBuilder::new()
            .install_recorder()
            .map_err(|err| HttpError::Recorder(err.to_string()))?;
        let router = Router::new()
            .route("/metrics", get(render_metrics))
            .with_state(metrics)
            .merge(
                Router::new()
                    .route("/livez", get(check))
                    .route("/readyz", get(check))
                    .route("/healthz", get(check))
                    .with_state(health),
            );
        Ok(HttpFace { listener, router })
    }

    /// Serves `extra` beside the standard paths.
    #[must_use]
    pub fn with(self, extra: Router) -> Self {
        HttpFace {
            router: self.router.merge(extra),
            ..self
        }
    }

    /// The address, with the real port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub async fn serve(self, shutdown: CancellationToken) {
        let too_late = {
            let shutdown = shutdown.clone();
            async move {
                shutdown.cancelled().await;
                tokio::time::sleep(LAST_ANSWERS).await;
            }
        };
        let service = self.router.into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(self.listener, service).with_graceful_shutdown(shutdown.cancelled_owned());
        tokio::select! {
            served = served.into_future() => if let Err(err) = served {
                tracing::error!(%err, "metrics and health are no longer served");
            },
            () = too_late => tracing::debug!("clients of metrics and health did not finish"),
        }
    }
}

async fn render_metrics(State(metrics): State<PrometheusHandle>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
}

async fn check(State(health): State<Health>) -> impl IntoResponse {
    let warnings = health.warnings();
    let warnings = warnings
        .iter()
        .map(|(about, warning)| format!("[!]{about}: {warning}\n"));
    let failures = health.failures();
    if failures.is_empty() {
        let lines = std::iter::once("ok\n".to_owned()).chain(warnings);
        return (StatusCode::OK, lines.collect::<String>());
    }
    let failures = failures
        .iter()
        .map(|(check, reason)| format!("[-]{check} failed: {reason}\n"));
    (
        StatusCode::SERVICE_UNAVAILABLE,
        failures.chain(warnings).collect(),
    )
}
