//! raft-engine, in a program of its own: `benches/raft-engine`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// Names the program.
pub(super) const PROGRAM: &str = "LEDGE_RAFT_ENGINE";

/// The program; killed when dropped.
pub(super) struct Engine {
    child: Child,
    send: ChildStdin,
    receive: BufReader<ChildStdout>,
}

impl Engine {
    /// Starts `program` with its data in `dir`, `threads` threads and records of `bytes` bytes.
    pub(super) fn start(program: &Path, dir: &Path, threads: usize, bytes: usize) -> anyhow::Result<Engine> {
        let mut child = Command::new(program)
            .arg(dir)
            .args([threads.to_string(), bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let send = child.stdin.take().context("no pipe to it")?;
        let receive = BufReader::new(child.stdout.take().context("no pipe from it")?);
        let mut engine = Engine { child, send, receive };
        let ready = engine.line()?;
        anyhow::ensure!(ready == "ready", "it said `{ready}`");
        Ok(engine)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All threads write for `length`. Returns how many records they made durable, and in what time.
    pub(super) fn write(&mut self, length: Duration) -> anyhow::Result<(u64, Duration)> {
        writeln!(self.send, "{}", length.as_millis())?;
        let line = self.line()?;
        let (records, micros) = line
            .split_once(' ')
            .with_context(|| format!("it said `{line}`"))?;
        Ok((records.parse()?, Duration::from_micros(micros.parse()?)))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.receive.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
