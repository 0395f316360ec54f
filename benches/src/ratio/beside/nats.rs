//! A NATS server with JetStream on loopback, and as much of its text protocol as publishing needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Names the program.
pub(super) const PROGRAM: &str = "LEDGE_NATS_SERVER";
const STREAM: &str = "LOAD";
const INBOX: &str = "_INBOX.load";
/// No line of the protocol is longer, nor any answer to a publication.
const MAX_ANSWER: usize = 4096;

/// A server; killed when dropped.
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts `program` with its data under `dir`, every write synced, and connects.
    pub(super) fn start(program: &Path, dir: &Path) -> anyhow::Result<(Server, Client)> {
        std::fs::create_dir_all(dir)?;
        let config = dir.join("nats.conf");
        let text =
            format!("host: 127.0.0.1\nport: -1\njetstream {{ store_dir: {dir:?}, sync_interval: always }}\n");
        std::fs::write(&config, text)?;
        let mut child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let log = child.stderr.take().context("no pipe from it")?;
        let server = Server { child };
        let client = Client::connect(&address(log)?)?;
        Ok((server, client))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Where it listens, as its log tells once it is ready. What it logs later is read and dropped, so that it is never held up.
fn address(log: ChildStderr) -> anyhow::Result<String> {
    let mut log = BufReader::new(log);
    let (mut address, mut told) = (None, String::new());
    loop {
        let mut line = String::new();
        anyhow::ensure!(
            log.read_line(&mut line)? > 0,
            "the server ended; it said:\n{told}"
        );
        if let Some((_, at)) = line.split_once("Listening for client connections on ") {
            address = Some(at.trim().to_owned());
        }
        if line.contains("Server is ready") {
            break;
        }
        told.push_str(&line);
    }
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    address.context("the server does not say where it listens")
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection that publishes to one stream.
pub(super) struct Client {
    send: TcpStream,
    receive: BufReader<TcpStream>,
    outstanding: usize,
}

impl Client {
    fn connect(address: &str) -> anyhow::Result<Client> {
        let send = TcpStream::connect(address)?;
        send.set_nodelay(true)?;
        send.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut client = Client {
            receive: BufReader::with_capacity(1 << 18, send.try_clone()?),
            send,
            outstanding: 0,
        };
        client.send.write_all(b"CONNECT {\"verbose\":false}\r\n")?;
        client.send.write_all(format!("SUB {INBOX} 1\r\n").as_bytes())?;
        let create =
            format!(r#"{{"name":"{STREAM}","subjects":["load.>"],"storage":"file","num_replicas":1}}"#);
        let api = format!("$JS.API.STREAM.CREATE.{STREAM}");
        let mut out = Vec::new();
        publication(&mut out, &api, create.as_bytes());
        client.send.write_all(&out)?;
        client.answer()?;
        Ok(client)
    }

    /// Publishes values, `window` of them outstanding, until `length` has passed; then waits for what is outstanding. Returns
    /// how many were acknowledged and in what time.
    pub(super) fn publish(
        &mut self,
        value: &[u8],
        window: usize,
        length: Duration,
    ) -> anyhow::Result<(u64, Duration)> {
        let (began, mut acknowledged, mut out) = (Instant::now(), 0, Vec::new());
        loop {
            let over = began.elapsed() >= length;
            if over && self.outstanding == 0 {
                return Ok((acknowledged, began.elapsed()));
            }
            if !over {
                out.clear();
                for _ in self.outstanding..window {
                    publication(&mut out, "load.edge-1", value);
                }
                self.outstanding = window;
                self.send.write_all(&out)?;
            }
            // One answer, and whatever came with it.
            loop {
                self.answer()?;
                self.outstanding -= 1;
                acknowledged += 1;
                if self.outstanding == 0 || self.receive.buffer().is_empty() {
                    break;
                }
            }
        }
    }

    /// Waits for the next answer to a publication.
    fn answer(&mut self) -> anyhow::Result<()> {
        loop {
            let mut line = String::new();
            (&mut self.receive)
                .take(MAX_ANSWER as u64 * 4)
                .read_line(&mut line)?;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["MSG", .., len] => {
                    let len: usize = len.parse()?;
                    anyhow::ensure!(len <= MAX_ANSWER, "an answer of {len} bytes");
                    let mut payload = vec![0; len + 2];
                    self.receive.read_exact(&mut payload)?;
                    let text = String::from_utf8_lossy(&payload);
                    anyhow::ensure!(!text.contains("\"error\""), "the server answered {text}");
                    return Ok(());
                }
                ["PING"] => self.send.write_all(b"PONG\r\n")?,
                ["INFO", ..] | ["PONG" | "+OK"] => {}
                _ => anyhow::bail!("the server said `{}`", line.trim()),
            }
        }
    }
}

fn publication(out: &mut Vec<u8>, subject: &str, payload: &[u8]) {
    out.extend_from_slice(format!("PUB {subject} {INBOX} {}\r\n", payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}
