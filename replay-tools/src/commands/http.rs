//! As much HTTP as it takes to ask a daemon on a trusted network.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_MAX: u64 = 64 << 20;

/// Why there is no body.
#[derive(Debug)]
#[allow(dead_code, reason = "the code is for people, in Debug output and tests")]
pub(super) enum HttpError {
    /// Nobody answered.
    Io(io::Error),
    /// The answer was not 200; with what it said.
    Status(u16, String),
}

impl From<io::Error> for HttpError {
    fn from(err: io::Error) -> Self {
        HttpError::Io(err)
    }
}

pub(super) fn get(address: &str, path: &str) -> Result<String, HttpError> {
    ask(
        address,
        &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"),
    )
}

pub(super) fn post(address: &str, path: &str, json: &str) -> Result<String, HttpError> {
    let len = json.len();
    ask(
        address,
        &format!(
            "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{json}"
        ),
    )
}

fn ask(address: &str, request: &str) -> Result<String, HttpError> {
    let addresses = address.to_socket_addrs()?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    let mut connected = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, ANSWER_WITHIN) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(err) => last = err,
        }
    }
    let mut stream = connected.ok_or(last)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    // HTTP/1.0: the answer ends with the connection, in one piece.
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Result<String, HttpError> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is not HTTP"))?;
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    match status {
        Some(200) => Ok(body.to_owned()),
        Some(code) => Err(HttpError::Status(
            code,
            if body.trim().is_empty() {
                format!("HTTP status {code}")
            } else {
                body.to_owned()
            },
        )),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "that is not HTTP").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_has_a_body_and_other_answers_say_why() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\nyes").unwrap(), "yes");
        let conflict = parse("HTTP/1.1 409 Conflict\r\n\r\nnot in quarantine\n");
        assert!(matches!(conflict, Err(HttpError::Status(409, why)) if why.contains("quarantine")));
        let empty = parse("HTTP/1.1 404 Not Found\r\n\r\n");
        assert!(matches!(empty, Err(HttpError::Status(404, why)) if why.contains("404")));
        assert!(matches!(parse("garbage"), Err(HttpError::Io(_))));
    }
}
