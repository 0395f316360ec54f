//! Serial lines.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_serial::{ClearBuffer, SerialPort as _, SerialPortBuilderExt as _, SerialStream};

use super::address::{Parity, SerialLine};

/// Longest time somebody else is listened to, in silences: a line that is never silent is an error.
const BABBLE_SILENCES: u32 = 5;

/// Opens `line` and waits until it was silent for `quiet`.
pub(super) async fn open(line: &SerialLine, quiet: Duration) -> io::Result<SerialStream> {
    let mut port = tokio_serial::new(line.path.as_str(), line.baud_rate)
        .parity(match line.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .stop_bits(if line.stop_bits == 2 {
            tokio_serial::StopBits::Two
        } else {
            tokio_serial::StopBits::One
        })
        .open_native_async()?;
    port.clear(ClearBuffer::All)?;
    drain(&mut port, quiet).await?;
    Ok(port)
}

/// Reads and forgets until nothing came for `quiet`.
pub(super) async fn drain<S>(port: &mut S, quiet: Duration) -> io::Result<()>
where
    S: tokio::io::AsyncRead + Unpin,
{
    let mut forgotten = [0; 256];
    let silence = async {
        loop {
            match timeout(quiet, port.read(&mut forgotten)).await {
                Err(_) => return Ok(()),
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(Ok(_)) => {}
                Ok(Err(err)) => return Err(err),
            }
        }
    };
    timeout(quiet * BABBLE_SILENCES, silence)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the serial line is never silent")))
}
