//! Sick devices.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Fault;

/// Accepts connections and misbehaves on each until `shutdown`.
pub(super) async fn run(listener: TcpListener, fault: Fault, shutdown: CancellationToken) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                connections.spawn(misbehave(stream, fault));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn misbehave(mut stream: TcpStream, fault: Fault) -> io::Result<()> {
    let mut request = [0; 512];
    loop {
        match fault {
            Fault::Close => return Ok(()),
            Fault::Silent | Fault::Garbage => {
                if stream.read(&mut request).await? == 0 {
                    return Ok(());
                }
            }
        }
        if fault == Fault::Garbage {
            stream
                .write_all(b"this is not the protocol you are looking for")
                .await?;
        }
    }
}
