//! A Modbus TCP device written by hand, byte by byte, so that it can misbehave in every way. It speaks over a pipe
//! in memory (simulated time) or a socket.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledge_edge::mapper::modbus::dial::Dialling;
use ledge_edge::mapper::modbus::{Address, Dial};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_modbus::client::tcp;
use tokio_modbus::slave::Slave;

/// How a device behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    Well,
    /// Refuses connections.
    Refusing,
    /// Connections are never established.
    BlackHole,
    /// Takes requests and says nothing.
    Silent,
    /// Closes right after accepting.
    Closing,
    /// Closes after the request.
    HangingUp,
    /// Closes after one request; then it is in the mood `State::then`.
    HangingUpOnce,
    /// Sends bytes that are no Modbus.
    Garbage,
    /// Answers for another unit.
    WrongUnit,
    /// Answers another request.
    WrongTransaction,
    /// Sends the first bytes of an answer, then nothing.
    HalfFrame,
    /// Sends fewer registers than asked for.
    Short,
    /// Sends more registers than asked for.
    Long,
    /// Answers with another function.
    WrongFunction,
    /// An answer without a body.
    Empty,
    /// Answers with an exception.
    Exception(u8),
    /// Answers correctly, after a while.
    Slow(Duration),
    /// Answers with noise in a correct frame.
    Noise,
    /// Takes writes and does not keep them.
    Stubborn,
    /// Takes no writes.
    ReadOnly,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mood: Mood,
    pub(crate) then: Mood,
    pub(crate) holding: BTreeMap<u16, u16>,
    pub(crate) input: BTreeMap<u16, u16>,
    pub(crate) coils: BTreeMap<u16, bool>,
    pub(crate) discrete: BTreeMap<u16, bool>,
    pub(crate) dials: usize,
    pub(crate) requests: usize,
    /// Function, first address, count or value of every request answered in a good mood.
    pub(crate) log: Vec<(u8, u16, u16)>,
    /// Refuse requests that span these addresses and more.
    pub(crate) unreadable_across: Option<u16>,
    /// Requests to this unit are not answered.
    pub(crate) silent_unit: Option<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct MemDevice(Arc<Mutex<State>>);

impl MemDevice {
    /// Temperature 23.5 in input 0, threshold 30.0 in holding 10.
    pub(crate) fn new() -> Self {
        MemDevice(Arc::new(Mutex::new(State {
            mood: Mood::Well,
            then: Mood::Well,
            holding: BTreeMap::from([(10, 300), (11, 0)]),
            input: BTreeMap::from([(0, 235), (1, 500), (2, 0), (3, 0)]),
            coils: BTreeMap::from([(0, false), (1, true)]),
            discrete: BTreeMap::from([(0, true)]),
            dials: 0,
            requests: 0,
            log: Vec::new(),
            unreadable_across: None,
            silent_unit: None,
        })))
    }

    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.0.lock().unwrap())
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.with(|state| state.mood = mood);
    }

    /// Serves one connection until it ends.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) -> io::Result<()> {
        loop {
            if self.with(|state| state.mood) == Mood::Closing {
                return Ok(());
            }
            let mut header = [0; 7];
            stream.read_exact(&mut header).await?;
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let mut pdu = vec![0; length - 1];
            stream.read_exact(&mut pdu).await?;
            let mood = self.with(|state| {
                state.requests += 1;
                state.mood
            });
            if self.with(|state| state.silent_unit) == Some(header[6]) {
                continue;
            }
            if let Mood::Slow(delay) = mood {
                tokio::time::sleep(delay).await;
            }
            let mut answer = self.with(|state| answer(state, &pdu));
            match mood {
                Mood::Silent => continue,
                Mood::HangingUp => return Ok(()),
                Mood::HangingUpOnce => {
                    self.with(|state| state.mood = state.then);
                    return Ok(());
                }
                Mood::Garbage => {
                    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
                    continue;
                }
                Mood::Exception(code) => answer = vec![pdu[0] | 0x80, code],
                Mood::WrongFunction => answer[0] ^= 1,
                Mood::Empty => answer.clear(),
                Mood::Noise => answer = self.with(|state| noise(state.requests as u64, &answer)),
                Mood::Short => {
                    answer.truncate(answer.len() - 2);
                    answer[1] -= 2;
                }
                Mood::Long => {
                    answer.extend([0, 0]);
                    answer[1] += 2;
                }
                Mood::WrongUnit => header[6] ^= 3,
                Mood::WrongTransaction => header[1] ^= 1,
                _ => {}
            }
            header[4..6].copy_from_slice(&(answer.len() as u16 + 1).to_be_bytes());
            let mut frame = header.to_vec();
            frame.extend(&answer);
            if mood == Mood::HalfFrame {
                frame.truncate(8);
            }
            stream.write_all(&frame).await?;
        }
    }
}

/// Deterministic noise: a right answer with a few bytes changed and its length too, or nothing right at all.
fn noise(seed: u64, right: &[u8]) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut answer = if rng.random() {
        right.to_vec()
    } else {
        vec![0; 260]
    };
    let changed = rng.random_range(0..4);
    for _ in 0..changed {
        let at = rng.random_range(0..answer.len());
        answer[at] = rng.random();
    }
    if answer.len() == 260 {
        rng.fill(answer.as_mut_slice());
        answer[0] = [1, 2, 3, 4, 5, 6, 15, 16, 0x83, 0x11, 0x2B][rng.random_range(0..11)];
    }
    let len = rng.random_range(0..=answer.len());
    if rng.random() {
        answer.truncate(len);
    }
    answer
}

fn answer(state: &mut State, pdu: &[u8]) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
    let (function, first, count) = (pdu[0], word(1), word(3));
    state.log.push((function, first, count));
    let exception = |code| vec![function | 0x80, code];
    let spans = |state: &State| {
        state
            .unreadable_across
            .is_some_and(|a| first < a && first + count > a)
    };
    match function {
        1 | 2 => {
            let table = if function == 1 {
                &state.coils
            } else {
                &state.discrete
            };
            let mut bytes = vec![0u8; usize::from(count).div_ceil(8)];
            for i in 0..count {
                let Some(bit) = table.get(&(first + i)) else {
                    return exception(2);
                };
                bytes[usize::from(i / 8)] |= u8::from(*bit) << (i % 8);
            }
            [vec![function, bytes.len() as u8], bytes].concat()
        }
        3 | 4 => {
            if spans(state) {
                return exception(2);
            }
            let table = if function == 3 {
                &state.holding
            } else {
                &state.input
            };
            let words: Option<Vec<u16>> = (0..count).map(|i| table.get(&(first + i)).copied()).collect();
            let Some(words) = words else { return exception(2) };
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            [vec![function, bytes.len() as u8], bytes].concat()
        }
        5 | 6 | 15 | 16 if state.mood == Mood::ReadOnly => exception(3),
        5 | 6 | 15 | 16 if state.mood == Mood::Stubborn => pdu[..5].to_vec(),
        5 => {
            state.coils.insert(first, count == 0xFF00);
            pdu.to_vec()
        }
        6 => {
            state.holding.insert(first, count);
            pdu.to_vec()
        }
        16 => {
            for i in 0..count {
                state.holding.insert(first + i, word(6 + 2 * usize::from(i)));
            }
            pdu[..5].to_vec()
        }
        _ => exception(1),
    }
}

/// Connects to devices in memory by their port.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemDial(Arc<Mutex<BTreeMap<u16, MemDevice>>>);

impl MemDial {
    /// A device that answers at `mem:<port>`.
    pub(crate) fn device(&self, port: u16) -> MemDevice {
        self.0
            .lock()
            .unwrap()
            .entry(port)
            .or_insert_with(MemDevice::new)
            .clone()
    }
}

impl Dial for MemDial {
    fn dial<'a>(&'a self, address: &'a Address, _quiet: Duration) -> Dialling<'a> {
        Box::pin(async move {
            let Address::Tcp { port, .. } = address else {
                unreachable!("serial lines are tested with ptys")
            };
            let device = self.device(*port);
            let mood = device.with(|state| {
                state.dials += 1;
                state.mood
            });
            match mood {
                Mood::Refusing => return Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                Mood::BlackHole => std::future::pending().await,
                _ => {}
            }
            let (near, far) = tokio::io::duplex(1024);
            tokio::spawn(device.serve(far));
            Ok(tcp::attach_slave(near, Slave::tcp_device()))
        })
    }
}
