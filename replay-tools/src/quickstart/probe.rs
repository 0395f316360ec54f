//! Looking at the running story from outside: over HTTP, over Modbus, and in the logs on disk.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_modbus::Slave;
use tokio_modbus::client::{Context, Reader, Writer, tcp};

const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_MAX: u64 = 16 << 20;

/// The body of `GET path`, when the answer is 200.
///
/// # Errors
/// When there is no such answer in time.
pub async fn http_get(address: SocketAddr, path: &str) -> io::Result<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer ends with the connection, in one piece.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(ANSWER_WITHIN, ask)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split_whitespace().nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(
            head.lines().next().unwrap_or("no answer").to_owned(),
        ))
    }
}

/// As [`http_get`], parsed as JSON.
///
/// # Errors
/// When there is no such answer, or it is not JSON.
pub async fn http_json(address: SocketAddr, path: &str) -> io::Result<Value> {
    serde_json::from_str(&http_get(address, path).await?).map_err(io::Error::other)
}

/// The sum of the samples of `name` whose labels include all of `labels`, in Prometheus' text format.
pub fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            let matches = found == name
                && labels
                    .iter()
                    .all(|(key, value)| rest.contains(&format!("{key}=\"{value}\"")));
            matches.then(|| value.parse::<f64>().ok()).flatten()
        })
        .sum()
}

/// A second master on the device, independent of Ledge.
///
/// # Errors
/// When the device does not answer.
pub async fn read_register(device: SocketAddr, register: u16) -> io::Result<u16> {
    let mut context = connect(device).await?;
    let words = timeout(ANSWER_WITHIN, context.read_holding_registers(register, 1)).await?;
    let words = words.map_err(io::Error::other)?.map_err(io::Error::other)?;
    words
        .first()
        .copied()
        .ok_or_else(|| io::Error::other("empty answer"))
}

/// Turns a knob at the device, behind Ledge's back.
///
/// # Errors
/// When the device does not take it.
pub async fn write_register(device: SocketAddr, register: u16, value: u16) -> io::Result<()> {
    let mut context = connect(device).await?;
    timeout(ANSWER_WITHIN, context.write_single_register(register, value))
        .await?
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}

async fn connect(device: SocketAddr) -> io::Result<Context> {
    timeout(ANSWER_WITHIN, tcp::connect_slave(device, Slave(1))).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_name_and_labels() {
        let text = "# TYPE a counter\na{lane=\"x\",direction=\"sent\"} 3\na{lane=\"y\",direction=\"sent\"} 4\nab 9\n";
        assert_eq!(metric(text, "a", &[("direction", "sent")]), 7.0);
        assert_eq!(metric(text, "a", &[("lane", "x")]), 3.0);
        assert_eq!(metric(text, "ab", &[]), 9.0);
        assert_eq!(metric(text, "c", &[]), 0.0);
    }
}
