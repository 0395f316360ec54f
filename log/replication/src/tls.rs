//! QUIC configuration: TLS 1.3, certificates both ways, one protocol name.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::cert_clock::CertClock;
use crate::certs::{CertError, CertFiles, identity_of};
use crate::link::window::{IDLE_WINDOW, REPLAY_WINDOW};

/// Protocol name negotiated in TLS (ALPN).
pub const ALPN: &[u8] = b"ledge/1";

/// Most bytes in flight per stream, as far as the connection's window allows.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Streams one peer may have open: control and a few lanes, with room for those being replaced.
const MAX_STREAMS: u32 = 16;
/// QUIC's own idle timeout is only a backstop: liveness is the session's business.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// The files do not fit together.
    #[error("{file}: {reason}")]
    Config {
        /// The file at fault.
        file: String,
        /// Why.
        reason: String,
    },
}

/// cloudcore's side: asks every client for a certificate of the same authority.
///
/// # Errors
/// When a file is missing or does not fit.
pub fn server_config(files: &CertFiles) -> Result<quinn::ServerConfig, TlsError> {
    server_config_at(files, &CertClock::default())
}

/// As [`server_config`], by `clock`.
///
/// # Errors
/// When a file is missing or does not fit.
pub fn server_config_at(files: &CertFiles, clock: &CertClock) -> Result<quinn::ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad = |err: &dyn std::fmt::Display| config_error(&files.cert, err);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&files.ca)?), provider.clone())
        .build()
        .map_err(|err| config_error(&files.ca, &err))?;
    let mut tls = rustls::ServerConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|err| bad(&err))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain_of_own(files, clock)?, key(&files.key)?)
        .map_err(|err| pair_error(files, &err))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).map_err(|err| bad(&err))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

/// edgecore's side: presents the node's certificate and accepts only the cluster's cloudcore.
///
/// # Errors
/// When a file is missing or does not fit.
pub fn client_config(files: &CertFiles) -> Result<quinn::ClientConfig, TlsError> {
    client_config_at(files, &CertClock::default())
}

/// As [`client_config`], by `clock`.
///
/// # Errors
/// When a file is missing or does not fit.
pub fn client_config_at(files: &CertFiles, clock: &CertClock) -> Result<quinn::ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad = |err: &dyn std::fmt::Display| config_error(&files.cert, err);
    let mut tls = rustls::ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|err| bad(&err))?
        .with_root_certificates(roots(&files.ca)?)
        .with_client_auth_cert(chain_of_own(files, clock)?, key(&files.key)?)
        .map_err(|err| pair_error(files, &err))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(|err| bad(&err))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(IDLE_WINDOW))
        .send_window(u64::from(REPLAY_WINDOW))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok());
    Arc::new(transport)
}

fn config_error(file: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::Config {
        file: file.display().to_string(),
        reason: reason.to_string(),
    }
}

/// Certificate and key were read; they are refused together.
fn pair_error(files: &CertFiles, err: &rustls::Error) -> TlsError {
    match err {
        rustls::Error::InconsistentKeys(_) => {
            let reason = format!("this key does not belong to {}", files.cert.display());
            config_error(&files.key, &reason)
        }
        other => config_error(&files.cert, other),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in chain(path)? {
        roots.add(cert).map_err(|err| config_error(path, &err))?;
    }
    Ok(roots)
}

/// The chain this end presents: since it is there, it is not earlier than it became valid.
fn chain_of_own(files: &CertFiles, clock: &CertClock) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = chain(&files.cert)?;
    if let Some(Ok(own)) = chain.first().map(|own| identity_of(own)) {
        clock.not_before(own.validity);
    }
    Ok(chain)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certs {
        Ok(certs) if !certs.is_empty() => Ok(certs),
        Ok(_) => Err(config_error(path, &"no certificate in it")),
        Err(err) => Err(config_error(path, &err)),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|err| config_error(path, &format!("no private key in it: {err}")))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| {
        TlsError::Cert(CertError::Io {
            path: path.to_owned(),
            source,
        })
    })
}
