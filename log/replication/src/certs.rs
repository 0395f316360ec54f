//! Certificates: a cluster's authority, and what it signs for cloudcore and for nodes.
//!
//! Subjects follow Kubernetes: a node is `CN=system:node:NAME, O=system:nodes`. The cluster's id is in every
//! certificate as the URI `urn:ledge:cluster:HEX`, so that a log is never joined to another cluster by mistake.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ledge_proto::ids::{ClusterId, NameError, Scope};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Name every cloudcore certificate carries; edges ask for it, whatever address they dial.
pub const CLOUD_SERVER_NAME: &str = "cloudcore";

const NODE_CN_PREFIX: &str = "system:node:";
const NODE_ORGANIZATION: &str = "system:nodes";
const CLUSTER_URN: &str = "urn:ledge:cluster:";
const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file could not be read or written.
    #[error("{path}: {source}{}", hint(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is there already and would be overwritten.
    #[error("{0} exists already: remove it first, or choose another directory")]
    Exists(PathBuf),
    /// What is in a file is not the certificate or key expected.
    #[error("{what}: {reason}")]
    Invalid {
        /// The file or certificate.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a valid node name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

fn hint(err: &std::io::Error) -> &'static str {
    match err.kind() {
        std::io::ErrorKind::NotFound => " (certificates and keys are made with `ledge cert`)",
        std::io::ErrorKind::PermissionDenied => " (the user running this program must be able to read it)",
        _ => "",
    }
}

/// Files of one certificate: `NAME.crt` and `NAME.key` in PEM, beside `ca.crt`.
#[derive(Debug, Clone)]
pub struct CertFiles {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, readable by its owner only.
    pub key: PathBuf,
}

/// A cluster's certificate authority, kept as `ca.crt` and `ca.key` in a directory.
pub struct Authority {
    dir: PathBuf,
    cluster: ClusterId,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("dir", &self.dir)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new cluster: its id and its authority, written to `dir`.
    ///
    /// # Errors
    /// [`CertError::Exists`] when `dir` holds an authority already.
    pub fn create(dir: &Path) -> Result<Self, CertError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|err| CertError::Invalid {
            what: "random numbers".into(),
            reason: err.to_string(),
        })?;
        let cluster = ClusterId(id);
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Ledge cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names.push(cluster_san(cluster)?);
        set_life(&mut params, CA_LIFE);
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        write_new(&key_path, &key.serialize_pem(), 0o600)?;
        write_new(&cert_path, &cert.pem(), 0o644)?;
        Ok(Authority {
            dir: dir.to_owned(),
            cluster,
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads the authority kept in `dir`.
    ///
    /// # Errors
    /// When its files are missing or not an authority's.
    pub fn load(dir: &Path) -> Result<Self, CertError> {
        let (cert_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        let cert = read(&cert_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|err| CertError::Invalid {
            what: key_path.display().to_string(),
            reason: err.to_string(),
        })?;
        let issuer = Issuer::from_ca_cert_pem(&cert, key).map_err(|err| CertError::Invalid {
            what: cert_path.display().to_string(),
            reason: err.to_string(),
        })?;
        let identity = identity_of_file(&cert_path)?;
        Ok(Authority {
            dir: dir.to_owned(),
            cluster: identity.cluster,
            issuer,
        })
    }

    /// The cluster it speaks for.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Makes cloudcore's certificate, valid for `names` (DNS names or IP addresses) besides the fixed name.
    ///
    /// # Errors
    /// See [`CertError`].
    pub fn issue_cloud(&self, names: &[String], out: &Path) -> Result<CertFiles, CertError> {
        let mut params = CertificateParams::new(
            std::iter::once(CLOUD_SERVER_NAME.to_owned())
                .chain(names.iter().cloned())
                .collect::<Vec<_>>(),
        )?;
        params
            .distinguished_name
            .push(DnType::CommonName, CLOUD_SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, "cloudcore", out)
    }

    /// Makes the certificate of the node `name`.
    ///
    /// # Errors
    /// See [`CertError`].
    pub fn issue_node(&self, name: &str, out: &Path) -> Result<CertFiles, CertError> {
        Scope::node(name)?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{NODE_CN_PREFIX}{name}"));
        params
            .distinguished_name
            .push(DnType::OrganizationName, NODE_ORGANIZATION);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, name, out)
    }

    fn issue(&self, mut params: CertificateParams, name: &str, out: &Path) -> Result<CertFiles, CertError> {
        fs::create_dir_all(out).map_err(io_error(out))?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names.push(cluster_san(self.cluster)?);
        set_life(&mut params, LEAF_LIFE);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        let files = CertFiles {
            ca: out.join("ca.crt"),
            cert: out.join(format!("{name}.crt")),
            key: out.join(format!("{name}.key")),
        };
        write_new(&files.key, &key.serialize_pem(), 0o600)?;
        write_new(&files.cert, &cert.pem(), 0o644)?;
        if out != self.dir && !files.ca.exists() {
            write_new(&files.ca, &read(&self.dir.join("ca.crt"))?, 0o644)?;
        }
        Ok(files)
    }
}

/// What a certificate says about its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertIdentity {
    /// The cluster it was made for.
    pub cluster: ClusterId,
    /// The node it names, if it is a node's.
    pub node: Option<Scope>,
    /// When it may be used.
    pub validity: Validity,
}

/// First and last second a certificate may be used in, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: i64,
    until: i64,
}

impl Validity {
    /// First second, since 1970.
    pub fn from(&self) -> i64 {
        self.from
    }

    /// Last second, since 1970.
    pub fn until(&self) -> i64 {
        self.until
    }

    /// What is wrong with a certificate at `now`, by a clock that may be wrong itself.
    pub fn problem(&self, now: SystemTime) -> Option<String> {
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let days = |seconds: i64| seconds / 86_400;
        if seconds > self.until {
            let days = days(seconds - self.until);
            Some(format!(
                "the certificate expired {days} days ago, by this machine's clock"
            ))
        } else if seconds < self.from {
            let days = days(self.from - seconds);
            Some(format!(
                "the certificate is not valid for another {days} days, by this machine's clock: is it set?"
            ))
        } else {
            None
        }
    }
}

/// Reads the identity in a certificate (DER).
///
/// # Errors
/// [`CertError::Invalid`] when it is not one of ours.
pub fn identity_of(der: &[u8]) -> Result<CertIdentity, CertError> {
    let invalid = |reason: &str| CertError::Invalid {
        what: "certificate".into(),
        reason: reason.to_owned(),
    };
    let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|err| invalid(&err.to_string()))?;
    let san = cert
        .subject_alternative_name()
        .map_err(|err| invalid(&err.to_string()))?
        .ok_or_else(|| invalid("it carries no cluster id; make it with `ledge cert`"))?;
    let cluster = san
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix(CLUSTER_URN),
            _ => None,
        })
        .ok_or_else(|| invalid("it carries no cluster id; make it with `ledge cert`"))?;
    let cluster = hex::decode(cluster)
        .map_err(|_| invalid("its cluster id is not hexadecimal"))
        .and_then(|bytes| Ok(ClusterId::from_slice(&bytes)?))?;
    let common_name = cert
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok());
    let node = match common_name.and_then(|name| name.strip_prefix(NODE_CN_PREFIX)) {
        Some(name) => Some(Scope::node(name)?),
        None => None,
    };
    let validity = Validity {
        from: cert.validity().not_before.timestamp(),
        until: cert.validity().not_after.timestamp(),
    };
    Ok(CertIdentity {
        cluster,
        node,
        validity,
    })
}

/// Reads the identity in a PEM file.
///
/// # Errors
/// See [`identity_of`].
pub fn identity_of_file(path: &Path) -> Result<CertIdentity, CertError> {
    let pem = read(path)?;
    let invalid = |reason: String| CertError::Invalid {
        what: path.display().to_string(),
        reason,
    };
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .map_err(|err| invalid(format!("not a PEM certificate: {err}")))?;
    identity_of(&pem.contents).map_err(|err| invalid(err.to_string()))
}

fn cluster_san(cluster: ClusterId) -> Result<SanType, CertError> {
    Ok(SanType::URI(format!("{CLUSTER_URN}{cluster}").try_into()?))
}

/// Valid from a day before now, so that a clock that is a little behind does not refuse it.
fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + life).into();
}

fn read(path: &Path) -> Result<String, CertError> {
    fs::read_to_string(path).map_err(io_error(path))
}

fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), CertError> {
    let open = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = open.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => CertError::Exists(path.to_owned()),
        _ => CertError::Io {
            path: path.to_owned(),
            source,
        },
    })?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io_error(path))
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> CertError + use<> {
    let path = path.to_owned();
    move |source| CertError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_name_their_cluster_and_node() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let node = authority.issue_node("edge-1", dir.path()).unwrap();
        let cloud = authority.issue_cloud(&["127.0.0.1".into()], dir.path()).unwrap();
        let identity = identity_of_file(&node.cert).unwrap();
        assert_eq!(identity.cluster, authority.cluster());
        assert_eq!(identity.node, Some(Scope::node("edge-1").unwrap()));
        assert_eq!(identity_of_file(&cloud.cert).unwrap().node, None);
        assert_eq!(identity.validity.problem(SystemTime::now()), None);
        let late = identity.validity.problem(SystemTime::now() + LEAF_LIFE + 3 * DAY);
        assert!(late.unwrap().contains("expired 3 days ago"));
        let early = identity.validity.problem(SystemTime::UNIX_EPOCH);
        assert!(early.unwrap().contains("clock: is it set?"));
        let again = Authority::load(dir.path()).unwrap();
        assert_eq!(again.cluster(), authority.cluster());
        again.issue_node("edge-2", &dir.path().join("out")).unwrap();
        assert!(dir.path().join("out/ca.crt").exists());
    }

    #[test]
    fn nothing_is_overwritten_and_garbage_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        Authority::create(dir.path()).unwrap();
        let err = Authority::create(dir.path()).unwrap_err().to_string();
        assert!(err.contains("ca.key exists already"), "{err}");
        fs::write(dir.path().join("ca.crt"), "nonsense").unwrap();
        let err = Authority::load(dir.path()).unwrap_err().to_string();
        assert!(err.contains("ca.crt"), "{err}");
        assert!(identity_of(b"nonsense").is_err());
    }
}
