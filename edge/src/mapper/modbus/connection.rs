//! One connection, shared by the devices behind it.
//!
//! A task owns the connection and makes one request at a time. Every request has a time limit. After anything but
//! an answer (or an exception, which is one) the connection is dropped, because the next thing it says may be the
//! answer to the last question; it is opened again when somebody asks, with growing, jittered delays after the
//! second failure in a row.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_modbus::client::{Client as _, Context};
use tokio_modbus::slave::{Slave, SlaveContext as _};
use tokio_modbus::{ExceptionCode, Request, Response};

use super::address::Address;
use super::codec::Raw;
use super::dial::Dial;
use super::point::{Range, Table};

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Longest time a connection may take to open.
    pub connect_timeout: Duration,
    /// First delay between two attempts to open it.
    pub backoff_min: Duration,
    /// Longest delay.
    pub backoff_max: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            connect_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(15),
        }
    }
}

/// Silence before the first request on a serial line.
const QUIET_AT_START: Duration = Duration::from_millis(50);

/// Requests waiting for their turn.
const QUEUE: usize = 32;

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection. Nothing was sent.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
    /// No answer in time. The request may have been carried out.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// The connection ended before the answer. The request may have been carried out.
    #[error("the connection ended: {0}")]
    Broken(String),
    /// The answer is not one to this request. The request may have been carried out.
    #[error("not an answer: {0}")]
    Malformed(String),
    /// The device refused. The connection is fine.
    #[error("Modbus exception {code}: {0}", code = u8::from(*.0))]
    Exception(ExceptionCode),
    /// The connection's task has ended.
    #[error("the connection is closed")]
    Closed,
}

impl CallError {
    /// Whether it tells of the device or the way to it, rather than of this request alone. A gateway's word that
    /// the device behind it is silent counts as silence.
    pub fn is_of_device(&self) -> bool {
        match self {
            CallError::Exception(code) => matches!(
                code,
                ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice
            ),
            _ => true,
        }
    }

    /// Whether the request certainly was not carried out.
    pub fn is_before_sending(&self) -> bool {
        matches!(self, CallError::Unreachable { .. })
    }
}

enum Op {
    Read(Range, oneshot::Sender<Result<Raw, CallError>>),
    Write(Range, Raw, oneshot::Sender<Result<(), CallError>>),
}

struct Call {
    unit: u8,
    limit: Duration,
    op: Op,
}

/// A handle to a connection. The connection is closed when the last handle is dropped.
#[derive(Clone)]
pub struct Connection {
    calls: mpsc::Sender<Call>,
    address: Arc<Address>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

impl Connection {
    /// A connection to `address`, and the task that must be run to serve it. `seed` sets its jitter.
    pub fn new(
        address: Address,
        dial: Arc<dyn Dial>,
        limits: ConnectionLimits,
        seed: u64,
    ) -> (Connection, impl Future<Output = ()> + Send + use<>) {
        let (calls, queue) = mpsc::channel(QUEUE);
        let address = Arc::new(address);
        let server = Server {
            address: Arc::clone(&address),
            dial,
            limits,
            rng: SmallRng::seed_from_u64(seed),
            context: None,
            failures: 0,
            last_failure: String::new(),
            retry_at: Instant::now(),
            quiet: QUIET_AT_START,
        };
        (Connection { calls, address }, server.run(queue))
    }

    /// Where it leads.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether both are handles of one connection.
    pub fn is_same(&self, other: &Connection) -> bool {
        self.calls.same_channel(&other.calls)
    }

    /// Whether the task that serves it has ended.
    pub fn is_closed(&self) -> bool {
        self.calls.is_closed()
    }

    /// Reads `range` of `unit`. The answer has exactly the registers or bits asked for.
    ///
    /// # Errors
    /// See [`CallError`]. Waits its turn first; `limit` is for the request alone.
    pub async fn read(&self, unit: u8, limit: Duration, range: Range) -> Result<Raw, CallError> {
        let (reply, result) = oneshot::channel();
        self.calls
            .send(Call {
                unit,
                limit,
                op: Op::Read(range, reply),
            })
            .await
            .map_err(|_| CallError::Closed)?;
        result.await.map_err(|_| CallError::Closed)?
    }

    /// Writes `raw` to `range` of `unit`.
    ///
    /// # Errors
    /// See [`CallError`]. Waits its turn first; `limit` is for the request alone.
    pub async fn write(&self, unit: u8, limit: Duration, range: Range, raw: Raw) -> Result<(), CallError> {
        let (reply, result) = oneshot::channel();
        self.calls
            .send(Call {
                unit,
                limit,
                op: Op::Write(range, raw, reply),
            })
            .await
            .map_err(|_| CallError::Closed)?;
        result.await.map_err(|_| CallError::Closed)?
    }
}

struct Server {
    address: Arc<Address>,
    dial: Arc<dyn Dial>,
    limits: ConnectionLimits,
    rng: SmallRng,
    context: Option<Context>,
    /// Failures since the last answer.
    failures: u32,
    last_failure: String,
    retry_at: Instant,
    /// How long a serial line must be silent before it is used again.
    quiet: Duration,
}

impl Server {
    async fn run(mut self, mut queue: mpsc::Receiver<Call>) {
        while let Some(call) = queue.recv().await {
            match call.op {
                // Whoever asked has gone.
                Op::Read(_, reply) if reply.is_closed() => {}
                Op::Write(_, _, reply) if reply.is_closed() => {}
                Op::Read(range, reply) => {
                    let answer = self.call(call.unit, call.limit, read_request(range)).await;
                    let result = answer.and_then(|response| self.check(read_answer(range, response)));
                    let _ = reply.send(result);
                }
                Op::Write(range, raw, reply) => {
                    let answer = self.call(call.unit, call.limit, write_request(range, &raw)).await;
                    let result = answer.and_then(|response| {
                        let checked = write_answer(range, &raw, &response);
                        self.check(checked)
                    });
                    let _ = reply.send(result);
                }
            }
        }
    }

    async fn call(&mut self, unit: u8, limit: Duration, request: Request<'_>) -> Result<Response, CallError> {
        let mut context = match self.context.take() {
            Some(context) => context,
            None => self.open().await?,
        };
        context.set_slave(Slave(unit));
        let failure = match timeout(limit, context.call(request)).await {
            Ok(Ok(answer)) => {
                self.failures = 0;
                self.context = Some(context);
                return answer.map_err(CallError::Exception);
            }
            Ok(Err(tokio_modbus::Error::Protocol(err))) => CallError::Malformed(err.to_string()),
            Ok(Err(tokio_modbus::Error::Transport(err))) => match err.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
                    CallError::Malformed(err.to_string())
                }
                std::io::ErrorKind::UnexpectedEof => CallError::Malformed("too short".to_owned()),
                // The end of a stream arrives here as whatever error the system saw last, so its text is no help.
                _ => CallError::Broken("before the answer was complete".to_owned()),
            },
            Err(_) => CallError::NoAnswer(limit),
        };
        // The late answer, or the rest of it, may still come for as long again.
        self.quiet = limit.max(QUIET_AT_START);
        self.failed(failure.to_string());
        Err(failure)
    }

    /// An answer that does not fit its request is as bad as none.
    fn check<T>(&mut self, answer: Result<T, CallError>) -> Result<T, CallError> {
        if let Err(CallError::Malformed(reason)) = &answer {
            self.failed(reason.clone());
        }
        answer
    }

    async fn open(&mut self) -> Result<Context, CallError> {
        let unreachable = |reason: String, address: &Address| CallError::Unreachable {
            address: address.to_string(),
            reason,
        };
        // The first failure after an answer costs nothing: devices restart.
        if self.failures > 1 && Instant::now() < self.retry_at {
            return Err(unreachable(self.last_failure.clone(), &self.address));
        }
        let limit = self.limits.connect_timeout + self.quiet;
        let reason = match timeout(limit, self.dial.dial(&self.address, self.quiet)).await {
            Ok(Ok(context)) => {
                self.quiet = QUIET_AT_START;
                return Ok(context);
            }
            Ok(Err(err)) => err.to_string(),
            Err(_) => format!("no connection within {limit:?}"),
        };
        self.failed(reason.clone());
        Err(unreachable(reason, &self.address))
    }

    fn failed(&mut self, reason: String) {
        self.context = None;
        self.failures = self.failures.saturating_add(1);
        let growth = 1u32
            .checked_shl(self.failures.saturating_sub(2))
            .unwrap_or(u32::MAX);
        let delay = self
            .limits
            .backoff_min
            .saturating_mul(growth)
            .min(self.limits.backoff_max);
        // Between half and all of it, so that daemons that lost the same device do not come back together.
        let delay = delay.mul_f64(self.rng.random_range(0.5..=1.0));
        tracing::debug!(address = %self.address, failures = self.failures, ?delay, reason, "connection failed");
        self.last_failure = reason;
        self.retry_at = Instant::now() + delay;
    }
}

fn read_request(range: Range) -> Request<'static> {
    match range.table {
        Table::Coils => Request::ReadCoils(range.first, range.count),
        Table::DiscreteInputs => Request::ReadDiscreteInputs(range.first, range.count),
        Table::InputRegisters => Request::ReadInputRegisters(range.first, range.count),
        Table::HoldingRegisters => Request::ReadHoldingRegisters(range.first, range.count),
    }
}

fn read_answer(range: Range, response: Response) -> Result<Raw, CallError> {
    let wanted = usize::from(range.count);
    let short =
        |got: usize| CallError::Malformed(format!("{got} registers or bits where {wanted} were asked for"));
    match response {
        // Bits come in whole bytes.
        Response::ReadCoils(mut bits) | Response::ReadDiscreteInputs(mut bits) => {
            if bits.len() != wanted.next_multiple_of(8) {
                return Err(short(bits.len()));
            }
            bits.truncate(wanted);
            Ok(Raw::Bits(bits))
        }
        Response::ReadInputRegisters(words) | Response::ReadHoldingRegisters(words) => {
            if words.len() == wanted {
                Ok(Raw::Words(words))
            } else {
                Err(short(words.len()))
            }
        }
        other => Err(CallError::Malformed(format!(
            "function {}",
            other.function_code()
        ))),
    }
}

fn write_request(range: Range, raw: &Raw) -> Request<'_> {
    // The single forms first: simple devices know no others.
    match raw {
        Raw::Words(words) => match words.as_slice() {
            [word] => Request::WriteSingleRegister(range.first, *word),
            words => Request::WriteMultipleRegisters(range.first, Cow::Borrowed(words)),
        },
        Raw::Bits(bits) => match bits.as_slice() {
            [bit] => Request::WriteSingleCoil(range.first, *bit),
            bits => Request::WriteMultipleCoils(range.first, Cow::Borrowed(bits)),
        },
    }
}

fn write_answer(range: Range, raw: &Raw, response: &Response) -> Result<(), CallError> {
    let echoed = match (response, raw) {
        (Response::WriteSingleRegister(first, word), Raw::Words(words)) => {
            *first == range.first && words.first() == Some(word)
        }
        (Response::WriteSingleCoil(first, bit), Raw::Bits(bits)) => {
            *first == range.first && bits.first() == Some(bit)
        }
        (Response::WriteMultipleRegisters(first, count) | Response::WriteMultipleCoils(first, count), _) => {
            *first == range.first && *count == range.count
        }
        _ => false,
    };
    if echoed {
        Ok(())
    } else {
        Err(CallError::Malformed(format!(
            "{response:?} to a write of {range}"
        )))
    }
}
