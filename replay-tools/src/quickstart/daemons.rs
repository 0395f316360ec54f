//! Real processes: cloudcore, edgecore and the simulated device, started, watched, killed and stopped.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// What went wrong with a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not where it should be.
    #[error("{program} is not beside {beside}: build it first with `cargo build --workspace`")]
    Missing {
        /// Its name.
        program: String,
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// It could not be started, read or signalled.
    #[error("{program}: {source}")]
    Io {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended or kept silent instead of getting ready.
    #[error("{program} did not get ready: {reason}; the end of its log {log}:\n{tail}")]
    NotReady {
        /// Its name.
        program: String,
        /// What it did instead.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// It did not stop in time, or not cleanly.
    #[error("{program} did not stop cleanly: {reason}; its log is {log}")]
    NotStopped {
        /// Its name.
        program: String,
        /// What happened.
        reason: String,
        /// Its log file.
        log: PathBuf,
    },
}

/// A running program that said it is ready. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    ready_line: String,
    log: PathBuf,
}

/// How to start a program.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its standard error goes here, appended.
    pub log: PathBuf,
    /// What its first line on standard output contains once it is ready.
    pub ready: &'static str,
}

impl Launch {
    fn name(&self) -> String {
        self.program
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Starts it and waits until it says it is ready.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub async fn start(&self) -> Result<Daemon, ProcessError> {
        let name = self.name();
        let io_error = |source| ProcessError::Io {
            program: name.clone(),
            source,
        };
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(io_error)?;
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(io_error)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(io_error(io::Error::other("no standard output")));
        };
        let mut lines = BufReader::new(stdout).lines();
        let not_ready = |reason: String| ProcessError::NotReady {
            program: name.clone(),
            reason,
            tail: tail(&self.log),
            log: self.log.clone(),
        };
        let wait = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains(self.ready) {
                    return Ok(Some(line));
                }
            }
            Ok::<_, io::Error>(None)
        };
        match timeout(READY_WITHIN, wait).await {
            Ok(Ok(Some(ready_line))) => {
                // Keep the pipe open and empty, or the program would die of writing to it.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok(Daemon {
                    name,
                    child,
                    ready_line,
                    log: self.log.clone(),
                })
            }
            Ok(Ok(None)) => {
                let status = child.wait().await.map_err(io_error)?;
                Err(not_ready(format!("it ended with {status}")))
            }
            Ok(Err(err)) => Err(not_ready(err.to_string())),
            Err(_) => Err(not_ready(format!("nothing said within {READY_WITHIN:?}"))),
        }
    }
}

impl Daemon {
    /// The line it said when it was ready; addresses are in it.
    pub fn ready_line(&self) -> &str {
        &self.ready_line
    }

    /// The word after `marker` in the ready line, without a comma behind it.
    pub fn ready_word(&self, marker: &str) -> Option<&str> {
        let (_, rest) = self.ready_line.split_once(marker)?;
        rest.split_whitespace()
            .next()
            .map(|word| word.trim_end_matches(','))
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it as a power cut would: SIGKILL, no last words.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub async fn kill(mut self) -> Result<(), ProcessError> {
        self.child.kill().await.map_err(|source| ProcessError::Io {
            program: self.name.clone(),
            source,
        })
    }

    /// Asks it to stop (SIGTERM) and waits for a clean end.
    ///
    /// # Errors
    /// [`ProcessError::NotStopped`].
    pub async fn stop(mut self) -> Result<ExitStatus, ProcessError> {
        let not_stopped = |reason: String| ProcessError::NotStopped {
            program: self.name.clone(),
            reason,
            log: self.log.clone(),
        };
        let pid = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|err| not_stopped(err.to_string()))?;
        }
        match timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(status),
            Ok(Ok(status)) => Err(not_stopped(format!("it ended with {status}"))),
            Ok(Err(err)) => Err(not_stopped(err.to_string())),
            Err(_) => Err(not_stopped(format!("it still ran after {STOP_WITHIN:?}"))),
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Directory with the daemons' programs: beside this one. Run by `cargo run` from a checkout, they are built first.
///
/// # Errors
/// [`ProcessError::Missing`] when they are not there.
pub async fn find_programs() -> Result<PathBuf, ProcessError> {
    let me = std::env::current_exe().map_err(|source| ProcessError::Io {
        program: "ledge".into(),
        source,
    })?;
    let mut beside = me.parent().map(Path::to_path_buf).unwrap_or_default();
    let is_test = beside.ends_with("deps");
    if is_test {
        beside.pop();
    }
    let missing = || {
        ["cloudcore", "edgecore", "ledge"]
            .into_iter()
            .find(|program| !beside.join(program).is_file())
    };
    if let (Some(cargo), Some(manifest)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
    {
        // `cargo run` builds only the program it runs; building the others is a moment's work when they are fresh.
        // `cargo test` has built them already, unless it was told to test this package alone.
        if !is_test || missing().is_some() {
            build(&cargo, Path::new(&manifest), &beside).await?;
        }
    }
    match missing() {
        Some(program) => Err(ProcessError::Missing {
            program: program.into(),
            beside: me,
        }),
        None => Ok(beside),
    }
}

async fn build(cargo: &std::ffi::OsStr, manifest_dir: &Path, beside: &Path) -> Result<(), ProcessError> {
    let failed = |source| ProcessError::Io {
        program: "cargo build".into(),
        source,
    };
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--bin",
        "cloudcore",
        "--bin",
        "edgecore",
        "--manifest-path",
    ]);
    command.arg(manifest_dir.join("../Cargo.toml"));
    if beside.ends_with("release") {
        command.arg("--release");
    }
    // What the outer cargo says of this program would look like another environment to build scripts (ring's watch
    // it), and everything behind them would be built again, now and by the next `cargo run`.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|own| text.starts_with(own))
        {
            command.env_remove(&name);
        }
    }
    let status = command.status().await.map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(io::Error::other(format!("it ended with {status}"))))
    }
}
