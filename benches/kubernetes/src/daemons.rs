//! The real daemons in a directory, with certificates of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use ledge_replication::certs::Authority;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long anything may take that has to be there before the measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The node that has a certificate.
pub(crate) const NODE: &str = "edge-1";

/// Lets this process, and those it starts, hold as many files as they may: each watch is a connection.
pub(crate) fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where it cannot be raised, connecting says that there are too many.
    setrlimit(Resource::Nofile, raised).ok();
}

/// Certificates for cloudcore and one node in `dir`/pki.
pub(crate) fn certificates(dir: &Path) -> anyhow::Result<()> {
    let pki = dir.join("pki");
    let authority = Authority::create(&pki)?;
    authority.issue_cloud(&[], &pki)?;
    authority.issue_node(NODE, &pki)?;
    Ok(())
}

/// A running program; it ends with this.
pub(crate) struct Daemon {
    child: Child,
    ready: String,
}

impl Daemon {
    /// The word after `marker` in the line it said when it was ready.
    pub(crate) fn word(&self, marker: &str) -> anyhow::Result<String> {
        let (_, rest) = self
            .ready
            .split_once(marker)
            .with_context(|| format!("no `{marker}` in: {}", self.ready))?;
        let word = rest.split_whitespace().next().unwrap_or_default();
        Ok(word.trim_end_matches(',').to_owned())
    }

    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the program has ended")
    }

    /// Starts `command` and waits for its first line; what it says on stderr goes to `log`.
    pub(crate) async fn start(command: &mut Command, log: &Path) -> anyhow::Result<Daemon> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
        let Some(ready) = ready else {
            bail!("{command:?} did not get ready: {}", std::fs::read_to_string(log)?);
        };
        Ok(Daemon { child, ready })
    }
}

/// cloudcore with the embedded API, its data in `dir`/cloudcore.
pub(crate) async fn cloudcore(dir: &Path) -> anyhow::Result<Daemon> {
    let flags = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
    start(dir, "cloudcore", "cloudcore", &flags).await
}

/// Starts `program` with the certificate `cert` of `dir`.
pub(crate) async fn start(dir: &Path, program: &str, cert: &str, flags: &[&str]) -> anyhow::Result<Daemon> {
    let me = std::env::current_exe()?;
    let path = me.with_file_name(program);
    if !path.is_file() {
        bail!(
            "{} is missing: cargo build --release -p ledge-edge -p ledge-cloud",
            path.display()
        );
    }
    let pki = |file: String| -> PathBuf { dir.join("pki").join(file) };
    let mut command = Command::new(path);
    command
        .arg("--data-dir")
        .arg(dir.join(program))
        .arg("--ca")
        .arg(pki("ca.crt".to_owned()))
        .arg("--cert")
        .arg(pki(format!("{cert}.crt")))
        .arg("--key")
        .arg(pki(format!("{cert}.key")))
        .args(["--http-listen", "off"])
        .args(flags);
    Daemon::start(&mut command, &dir.join(format!("{program}.log"))).await
}
