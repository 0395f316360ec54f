//! A Modbus TCP device that moves.
//!
//! | address | table | what |
//! |---|---|---|
//! | 0 | input, holding | temperature in tenths of a degree: a slow sine with noise, the same for the same seed |
//! | 1 | input, holding | humidity in tenths of a per cent |
//! | 2, 3 | input, holding | a 32-bit counter, high word first: one more at every read of register 2, never the same twice |
//! | 10 | holding, writable | alarm threshold in tenths of a degree |
//! | 11 | holding, writable | a second setting |
//! | 0 | coil, discrete input | alarm: temperature above threshold |
//!
//! Everything else is exception 2. The journal tells every counter value that was handed out and every write, so
//! that a test can compare what the device saw with what a log holds.

mod faults;
mod journal;
mod machine;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_util::sync::CancellationToken;

pub use journal::Entry;
use journal::Journal;
use machine::Machine;

/// Modbus TCP device with a temperature, a counter and an alarm.
#[derive(Debug, Clone, Args)]
pub struct SimOptions {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:5020", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Sets the noise: the same seed gives the same readings.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Append every counter value handed out and every write to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Wait so long before every answer.
    #[arg(long, default_value_t = 0, value_name = "MILLISECONDS")]
    pub delay_ms: u64,
    /// Play a sick device.
    #[arg(long, value_enum, value_name = "MODE")]
    pub fault: Option<Fault>,
}

/// How a sick device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Takes requests and never answers.
    Silent,
    /// Answers what is not Modbus.
    Garbage,
    /// Closes every connection at once.
    Close,
}

/// Why the device cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The journal cannot be opened.
    #[error("cannot open the journal {path}: {source}")]
    Journal {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Accepting connections failed.
    #[error("cannot accept connections: {0}")]
    Accept(io::Error),
}

/// The unit that answers; others are met with silence, as by a real device.
const UNIT: u8 = 1;

/// A device that listens and does not yet answer.
pub struct ModbusSim {
    listener: TcpListener,
    address: SocketAddr,
    device: Device,
    fault: Option<Fault>,
}

impl ModbusSim {
    /// Opens the journal and listens.
    ///
    /// # Errors
    /// When either is impossible. A counter goes on where the journal ends.
    pub async fn bind(options: SimOptions) -> Result<ModbusSim, SimError> {
        let (journal, counter) = match options.journal {
            None => (None, 0),
            Some(path) => {
                let (journal, counter) =
                    Journal::open(&path).map_err(|source| SimError::Journal { path, source })?;
                (Some(journal), counter)
            }
        };
        let listening = |source| SimError::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let machine = Machine::new(options.seed, counter);
        let device = Device {
            inner: Arc::new(Mutex::new(Inner { machine, journal })),
            delay: Duration::from_millis(options.delay_ms),
        };
        Ok(ModbusSim {
            listener,
            address,
            device,
            fault: options.fault,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`.
    ///
    /// # Errors
    /// When no connection can be accepted any more.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), SimError> {
        if let Some(fault) = self.fault {
            return faults::run(self.listener, fault, shutdown)
                .await
                .map_err(SimError::Accept);
        }
        let device = self.device;
        let accept = |stream, address| {
            let device = device.clone();
            async move { accept_tcp_connection(stream, address, move |_| Ok(Some(device.clone()))) }
        };
        Server::new(self.listener)
            .serve_until(&accept, |_| {}, shutdown.cancelled_owned())
            .await
            .map(|_| ())
            .map_err(SimError::Accept)
    }
}

/// Runs the device until `shutdown`, and says on the standard output when it is ready and where.
///
/// # Errors
/// See [`SimError`].
pub async fn serve(options: SimOptions, shutdown: CancellationToken) -> Result<(), SimError> {
    let sim = ModbusSim::bind(options).await?;
    println!("modbus device ready on {}", sim.address());
    sim.run(shutdown).await
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    journal: Option<Journal>,
}

#[derive(Debug, Clone)]
struct Device {
    inner: Arc<Mutex<Inner>>,
    delay: Duration,
}

impl Device {
    fn answer(&self, request: &SlaveRequest<'static>) -> Result<Option<Response>, ExceptionCode> {
        if request.slave != UNIT {
            return Ok(None);
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { machine, journal } = &mut *inner;
        let now = journal::wall_us();
        let response = match &request.request {
            Request::ReadInputRegisters(first, count) => {
                Response::ReadInputRegisters(read(machine, journal.as_mut(), (*first, *count), false)?)
            }
            Request::ReadHoldingRegisters(first, count) => {
                Response::ReadHoldingRegisters(read(machine, journal.as_mut(), (*first, *count), true)?)
            }
            Request::ReadCoils(first, count) => Response::ReadCoils(machine.bits(*first, *count, now)?),
            Request::ReadDiscreteInputs(first, count) => {
                Response::ReadDiscreteInputs(machine.bits(*first, *count, now)?)
            }
            Request::WriteSingleRegister(address, word) => {
                write(machine, journal.as_mut(), *address, &[*word])?;
                Response::WriteSingleRegister(*address, *word)
            }
            Request::WriteMultipleRegisters(address, words) => {
                write(machine, journal.as_mut(), *address, words)?;
                let count = u16::try_from(words.len()).map_err(|_| ExceptionCode::IllegalDataValue)?;
                Response::WriteMultipleRegisters(*address, count)
            }
            _ => return Err(ExceptionCode::IllegalFunction),
        };
        Ok(Some(response))
    }
}

/// Reads registers; what the counter gave out is in the journal before it is in an answer.
fn read(
    machine: &mut Machine,
    journal: Option<&mut Journal>,
    (first, count): (u16, u16),
    holding: bool,
) -> Result<Vec<u16>, ExceptionCode> {
    let now = journal::wall_us();
    let (words, counter) = machine.registers(first, count, holding, now)?;
    if let (Some(value), Some(journal)) = (counter, journal) {
        journal
            .append(&Entry::Counter { wall_us: now, value })
            .map_err(failed)?;
    }
    Ok(words)
}

/// Writes registers; a write is in the journal before it is confirmed.
fn write(
    machine: &mut Machine,
    journal: Option<&mut Journal>,
    address: u16,
    words: &[u16],
) -> Result<(), ExceptionCode> {
    machine.check_writable(address, words)?;
    if let Some(journal) = journal {
        let entry = Entry::Write {
            wall_us: journal::wall_us(),
            address,
            words: words.to_vec(),
        };
        journal.append(&entry).map_err(failed)?;
    }
    machine.write(address, words);
    Ok(())
}

/// A truth that cannot be written down must not be told.
fn failed(err: io::Error) -> ExceptionCode {
    eprintln!("modbus device: cannot write the journal: {err}");
    ExceptionCode::ServerDeviceFailure
}

type Answer = Result<Option<Response>, ExceptionCode>;

impl Service for Device {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let device = self.clone();
        Box::pin(async move {
            tokio::time::sleep(device.delay).await;
            device.answer(&request)
        })
    }
}

#[cfg(test)]
mod tests;
