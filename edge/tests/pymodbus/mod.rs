//! A Modbus server that Ledge's authors did not write: pymodbus, run with `server.py` beside this file.
//!
//! Needs `pip install pymodbus==3.16.1`, into the Python that `python3` is, a virtual environment or a folder
//! (`pip install --target`) named by `LEDGE_PYMODBUS`. Without it a test says that it was skipped, and fails where
//! `CI` is set.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long the server may take to say something that is expected of it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A Python that can import pymodbus.
pub(crate) struct Python {
    program: OsString,
    path: Option<PathBuf>,
}

impl Python {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(path) = &self.path {
            command.env("PYTHONPATH", path);
        }
        command.kill_on_drop(true);
        command
    }

    async fn find() -> Option<Python> {
        let given = std::env::var_os("LEDGE_PYMODBUS").map(PathBuf::from);
        let venv = given
            .as_ref()
            .map(|folder| folder.join("bin/python"))
            .filter(|program| program.exists());
        let python = match venv {
            Some(program) => Python {
                program: program.into(),
                path: None,
            },
            None => Python {
                program: "python3".into(),
                path: given,
            },
        };
        let import = "import pymodbus.server, pymodbus.simulator; print(pymodbus.__version__)";
        let tried = python.command().args(["-c", import]).output().await.ok()?;
        let version = String::from_utf8_lossy(&tried.stdout).trim().to_owned();
        tried.status.success().then(|| {
            println!("pymodbus {version}");
            python
        })
    }

    /// The Python to use, or `None` when `test` has to be skipped.
    pub(crate) async fn or_skip(test: &str) -> Option<Python> {
        let python = Python::find().await;
        if python.is_none() {
            let message = format!("{test}: pymodbus is not installed (pip install pymodbus)");
            assert!(std::env::var_os("CI").is_none(), "{message}");
            // Past the test harness, which keeps what a passing test prints.
            writeln!(std::io::stderr(), "SKIPPED {message}").ok();
        }
        python
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts it on `port` of loopback and waits until it listens.
    pub(crate) async fn start(python: &Python, port: u16) -> Server {
        // Every room is beside this one, so the path is right in the tests of any of them.
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge/tests/pymodbus/server.py");
        let mut child = python
            .command()
            .arg(script)
            .arg(port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Server { child, lines };
        assert_eq!(server.line().await, "ready");
        server
    }

    /// The next write it took, as a line of JSON.
    pub(crate) async fn line(&mut self) -> String {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
        line.expect("the server says nothing")
            .unwrap()
            .expect("the server has ended")
    }

    /// Ends it. Returns the writes that nobody asked for with [`Server::line`].
    pub(crate) async fn kill(mut self) -> Vec<String> {
        self.child.kill().await.unwrap();
        let mut rest = Vec::new();
        while let Ok(Some(line)) = self.lines.next_line().await {
            rest.push(line);
        }
        rest
    }
}

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
