//! What nobody can be faster than with the same work: a server that appends and syncs, writes bytes to TLS streams, encodes
//! JSON, and does nothing else. It is a process of its own, as those are that are measured beside it, with the same TLS.
//!
//! `POST /write` appends the body, syncs, writes it to every stream, then answers. `GET /watch` is such a stream. `POST /hold`
//! takes a list, `GET /list` encodes it again.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use ledge_apiserver::{pki, server};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

/// Largest body.
const BODY_MAX: usize = 256 << 20;
/// Lines a stream may be behind.
const BEHIND_MAX: usize = 64;

/// A file whose bytes are there already, so that a sync writes data and nothing about the file.
pub(crate) struct Appended {
    file: File,
    len: u64,
    end: u64,
}

impl Appended {
    /// A file of `bytes` zeros; at its end, appends begin again at its start.
    pub(crate) fn create(path: &Path, bytes: u64) -> anyhow::Result<Appended> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < bytes {
            file.write_all_at(&zeros, at)?;
            at += zeros.len() as u64;
        }
        file.sync_all()?;
        Ok(Appended {
            file,
            len: at,
            end: 0,
        })
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let length = bytes.len() as u64;
        ensure!(length <= self.len, "more than the file holds");
        if self.end + length > self.len {
            self.end = 0;
        }
        self.file.write_all_at(bytes, self.end)?;
        self.end += length;
        Ok(self.file.sync_data()?)
    }
}

#[derive(Clone)]
struct Shared {
    held: Arc<Mutex<Value>>,
    streams: broadcast::Sender<Bytes>,
    appends: mpsc::Sender<(Bytes, oneshot::Sender<anyhow::Result<()>>)>,
}

/// Serves until it is killed; says where on stdout. Its kubeconfig is `dir`/kubeconfig.
pub(crate) fn serve(dir: &Path) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(accept(dir))
}

async fn accept(dir: &Path) -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let pki_dir = dir.join("pki");
    let acceptor = server::acceptor(&pki::open(&pki_dir, address, &[])?)?;
    pki::write_kubeconfig(&dir.join("kubeconfig"), &pki_dir, address)?;
    let mut file = Appended::create(&dir.join("appended"), 16 << 20)?;
    let (appends, mut asked) = mpsc::channel::<(Bytes, oneshot::Sender<anyhow::Result<()>>)>(64);
    std::thread::spawn(move || {
        while let Some((bytes, done)) = asked.blocking_recv() {
            done.send(file.append(&bytes)).ok();
        }
    });
    let shared = Shared {
        held: Arc::default(),
        streams: broadcast::Sender::new(BEHIND_MAX),
        appends,
    };
    println!("raw ready: on {address}");
    loop {
        let (stream, _) = listener.accept().await?;
        let (shared, acceptor) = (shared.clone(), acceptor.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &acceptor, &shared).await {
                eprintln!("{error:#}");
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, shared: &Shared) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        ensure!(length <= BODY_MAX, "a body of {length} bytes");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = Bytes::from(body);
        let mut words = first.split_whitespace();
        match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
            ("POST", "/write") => {
                let (done, appended) = oneshot::channel();
                shared.appends.send((body.clone(), done)).await.ok();
                appended.await??;
                shared.streams.send(body).ok();
                answer(&mut stream, b"{}").await?;
            }
            ("POST", "/hold") => {
                *shared.held.lock().unwrap_or_else(PoisonError::into_inner) = serde_json::from_slice(&body)?;
                answer(&mut stream, b"{}").await?;
            }
            ("GET", "/list") => {
                let encoded =
                    serde_json::to_vec(&*shared.held.lock().unwrap_or_else(PoisonError::into_inner))?;
                answer(&mut stream, &encoded).await?;
            }
            ("GET", "/watch") => {
                let mut lines = shared.streams.subscribe();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    .await?;
                stream.flush().await?;
                while let Ok(line) = lines.recv().await {
                    let mut chunk = format!("{:x}\r\n", line.len()).into_bytes();
                    chunk.extend_from_slice(&line);
                    chunk.extend_from_slice(b"\r\n");
                    stream.write_all(&chunk).await?;
                    stream.flush().await?;
                }
                return Ok(());
            }
            (method, path) => bail!("{method} {path} is not served"),
        }
    }
}

async fn answer(
    stream: &mut BufReader<tokio_rustls::server::TlsStream<TcpStream>>,
    body: &[u8],
) -> anyhow::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut whole = head.into_bytes();
    whole.extend_from_slice(body);
    stream.write_all(&whole).await?;
    stream.flush().await.context("the client has gone")
}
