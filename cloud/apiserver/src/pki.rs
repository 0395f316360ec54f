//! Certificates of the API: an authority of its own, the server's certificate, the administrator's, the key that signs tokens,
//! and the kubeconfig that holds what a client needs. Made at the first start, kept in the data directory; the server's certificate is made again
//! when the addresses change or its end is near.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::tokens::Tokens;

/// How long the authority lasts.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a certificate lasts.
const LEAF_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// A certificate is made again when it ends sooner than this.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * 86_400);
/// Certificates are valid from this long ago, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(86_400);

/// Who the kubeconfig makes its holder: upstream's administrators.
pub const ADMIN: (&str, &str) = ("kubernetes-admin", "system:masters");

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key is not one.
    #[error(
        "{path}: {reason}; remove the directory to have new certificates made (clients need the new kubeconfig then)"
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What the server needs.
#[derive(Debug)]
pub struct Pki {
    /// The authority's certificate: clients' certificates are checked against it.
    pub ca: CertificateDer<'static>,
    /// The server's certificate.
    pub cert: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Signs tokens of service accounts.
    pub tokens: Tokens,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { path, source }
}

fn invalid(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> PkiError {
    let path = path.to_owned();
    move |reason| PkiError::Invalid {
        path: path.clone(),
        reason: reason.to_string(),
    }
}

/// Writes a file whole or not at all, readable by its owner only where it is a secret.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(at(path))
}

fn params(name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + life).into();
    params
}

/// Reads the certificates kept in `dir`, or makes them; `address` and `names` are what clients will dial.
///
/// # Errors
/// See [`PkiError`].
pub fn open(dir: &Path, address: SocketAddr, names: &[String]) -> Result<Pki, PkiError> {
    fs::create_dir_all(dir).map_err(at(dir))?;
    let (ca_path, ca_key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
    if !ca_path.exists() || !ca_key_path.exists() {
        make_authority(&ca_path, &ca_key_path)?;
    }
    let ca_pem = fs::read_to_string(&ca_path).map_err(at(&ca_path))?;
    let ca_key = fs::read_to_string(&ca_key_path).map_err(at(&ca_key_path))?;
    let ca_key = KeyPair::from_pem(&ca_key).map_err(|error| invalid(&ca_key_path)(&error))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|error| invalid(&ca_path)(&error))?;

    let names = server_names(address, names);
    let (cert_path, key_path) = (dir.join("server.crt"), dir.join("server.key"));
    if !is_current(&cert_path, &names) {
        let mut params = params("kube-apiserver", LEAF_LIFE);
        for name in &names {
            let san = match name.parse::<IpAddr>() {
                Ok(address) => rcgen::SanType::IpAddress(address),
                Err(_) => {
                    let name = name.as_str().try_into();
                    rcgen::SanType::DnsName(name.map_err(|error: rcgen::Error| invalid(&cert_path)(&error))?)
                }
            };
            params.subject_alt_names.push(san);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issue(params, &issuer, &cert_path, &key_path)?;
    }
    let (admin_path, admin_key_path) = (dir.join("admin.crt"), dir.join("admin.key"));
    if !is_current(&admin_path, &[]) {
        let mut params = params(ADMIN.0, LEAF_LIFE);
        params.distinguished_name.push(DnType::OrganizationName, ADMIN.1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        issue(params, &issuer, &admin_path, &admin_key_path)?;
    }
    let tokens_path = dir.join("sa.key");
    if !tokens_path.exists() {
        let key = KeyPair::generate().map_err(|error| invalid(&tokens_path)(&error))?;
        write(&tokens_path, &key.serialize_pem(), 0o600)?;
    }
    let tokens = PrivateKeyDer::from_pem_file(&tokens_path).map_err(|error| invalid(&tokens_path)(&error))?;
    let tokens = Tokens::new(tokens.secret_der()).map_err(|error| invalid(&tokens_path)(&error))?;
    let read = |path: &Path| CertificateDer::from_pem_file(path).map_err(|error| invalid(path)(&error));
    Ok(Pki {
        ca: read(&ca_path)?,
        cert: read(&cert_path)?,
        key: PrivateKeyDer::from_pem_file(&key_path).map_err(|error| invalid(&key_path)(&error))?,
        tokens,
    })
}

/// What the server's certificate is valid for: what upstream's is, and where it listens.
fn server_names(address: SocketAddr, names: &[String]) -> Vec<String> {
    let mut all: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .to_vec();
    if !address.ip().is_unspecified() {
        all.push(address.ip().to_string());
    }
    all.extend_from_slice(names);
    all.sort();
    all.dedup();
    all
}

fn make_authority(cert_path: &Path, key_path: &Path) -> Result<(), PkiError> {
    let mut params = params("kubernetes", CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = KeyPair::generate().and_then(|key| Ok((params.self_signed(&key)?, key)));
    let (cert, key) = made.map_err(|error| invalid(cert_path)(&error))?;
    write(key_path, &key.serialize_pem(), 0o600)?;
    write(cert_path, &cert.pem(), 0o644)
}

fn issue(
    mut params: CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
    cert_path: &Path,
    key_path: &Path,
) -> Result<(), PkiError> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let made = KeyPair::generate().and_then(|key| Ok((params.signed_by(&key, issuer)?, key)));
    let (cert, key) = made.map_err(|error| invalid(cert_path)(&error))?;
    write(key_path, &key.serialize_pem(), 0o600)?;
    write(cert_path, &cert.pem(), 0o644)
}

/// Whether the certificate is there, lasts a while, and is valid for all of `names`.
fn is_current(path: &Path, names: &[String]) -> bool {
    let Ok(der) = CertificateDer::from_pem_file(path) else {
        return false;
    };
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(&der) else {
        return false;
    };
    let renew_at = (SystemTime::now() + RENEW_BEFORE).duration_since(SystemTime::UNIX_EPOCH);
    let renew_at = renew_at.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let found: Vec<String> = match cert.subject_alternative_name() {
        Ok(Some(found)) => found.value.general_names.iter().filter_map(name_of).collect(),
        _ => Vec::new(),
    };
    cert.validity().not_after.timestamp() > renew_at && names.iter().all(|name| found.contains(name))
}

fn name_of(name: &x509_parser::extensions::GeneralName<'_>) -> Option<String> {
    use x509_parser::extensions::GeneralName;
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Writes the kubeconfig of the administrator to `path`, for a server at `address`, with the certificates kept in `dir`.
///
/// # Errors
/// See [`PkiError`].
pub fn write_kubeconfig(path: &Path, dir: &Path, address: SocketAddr) -> Result<(), PkiError> {
    let data = |name: &str| {
        let path = dir.join(name);
        fs::read(&path)
            .map(|bytes| STANDARD.encode(bytes))
            .map_err(at(&path))
    };
    // An unspecified address is where it listens, not where it can be dialled.
    let host = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), address.port()),
        _ => address,
    };
    let text = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: ledge
  cluster:
    server: https://{host}
    certificate-authority-data: {ca}
users:
- name: {admin}
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: {admin}@ledge
  context:
    cluster: ledge
    user: {admin}
current-context: {admin}@ledge
",
        admin = ADMIN.0,
        ca = data("ca.crt")?,
        cert = data("admin.crt")?,
        key = data("admin.key")?,
    );
    write(path, &text, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_again_when_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:6443".parse().unwrap();
        let first = open(dir.path(), address, &[]).unwrap();
        let again = open(dir.path(), address, &[]).unwrap();
        assert_eq!((&first.ca, &first.cert), (&again.ca, &again.cert));
        let other = open(dir.path(), address, &["cloud.example.com".to_owned()]).unwrap();
        assert_eq!(first.ca, other.ca);
        assert_ne!(first.cert, other.cert);
        let config = dir.path().join("kubeconfig");
        write_kubeconfig(&config, dir.path(), "0.0.0.0:6443".parse().unwrap()).unwrap();
        assert!(
            fs::read_to_string(&config)
                .unwrap()
                .contains("server: https://127.0.0.1:6443")
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&config).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
