//! QUIC over a simulated network: quinn's sockets on turmoil's UDP, behind a line of limited speed that loses packets.
//!
//! Time is the simulation's: what waits for hours takes milliseconds.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, TokioRuntime, UdpPoller};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;
use turmoil::net::UdpSocket;

/// The sending side of a line. Delay is the simulation's business.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    /// Bits per second; what does not fit waits.
    pub(crate) bits_per_second: f64,
    /// Bytes that may wait; more is lost.
    pub(crate) queue_bytes: usize,
    /// Share of packets that are lost on the way.
    pub(crate) loss: f64,
}

/// IP and UDP headers, which take their time on the line too.
const HEADER_BYTES: usize = 28;

/// An endpoint on this host of the simulation, which sends over `line`.
pub(crate) async fn endpoint(
    port: u16,
    line: Line,
    seed: u64,
    server: Option<quinn::ServerConfig>,
) -> Endpoint {
    let socket = Socket::bind(port, line, seed).await;
    let mut config = EndpointConfig::default();
    config.rng_seed(Some(seeded(seed)));
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime)).unwrap()
}

fn seeded(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    SmallRng::seed_from_u64(seed).fill(&mut bytes);
    bytes
}

#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    line: Line,
    out: Mutex<Out>,
    more: Notify,
    arrived: Mutex<Arrived>,
}

#[derive(Debug, Default)]
struct Arrived {
    queue: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Out {
    rng: SmallRng,
    /// Where to, how long on the line, and what, unless it is lost there.
    queue: VecDeque<(SocketAddr, usize, Option<Vec<u8>>)>,
    bytes: usize,
}

impl Socket {
    async fn bind(port: u16, line: Line, seed: u64) -> Arc<Socket> {
        let inner = Arc::new(UdpSocket::bind(("0.0.0.0", port)).await.unwrap());
        let socket = Arc::new(Socket {
            local: inner.local_addr().unwrap(),
            line,
            out: Mutex::new(Out {
                rng: SmallRng::seed_from_u64(seed),
                queue: VecDeque::new(),
                bytes: 0,
            }),
            more: Notify::new(),
            arrived: Mutex::default(),
        });
        tokio::spawn(receive(socket.clone(), inner.clone()));
        tokio::spawn(send(socket.clone(), inner));
        socket
    }
}

async fn receive(socket: Arc<Socket>, inner: Arc<UdpSocket>) {
    let mut buf = vec![0; 65536];
    loop {
        let Ok((len, from)) = inner.recv_from(&mut buf).await else {
            return;
        };
        let mut arrived = socket.arrived.lock().unwrap();
        arrived.queue.push_back((from, buf[..len].to_vec()));
        if let Some(waker) = arrived.reader.take() {
            waker.wake();
        }
    }
}

/// Puts packets on the line one after the other, each for as long as its bits take.
async fn send(socket: Arc<Socket>, inner: Arc<UdpSocket>) {
    let mut free = Instant::now();
    loop {
        let next = socket.out.lock().unwrap().queue.pop_front();
        let Some((to, len, packet)) = next else {
            socket.more.notified().await;
            continue;
        };
        let takes = Duration::from_secs_f64(len as f64 * 8.0 / socket.line.bits_per_second);
        free = free.max(Instant::now()) + takes;
        tokio::time::sleep_until(free).await;
        socket.out.lock().unwrap().bytes -= len;
        if let Some(packet) = packet {
            // Nobody listens there: that is for quinn to notice.
            inner.send_to(&packet, to).await.ok();
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut out = self.out.lock().unwrap();
        let bytes = transmit.contents.len() + HEADER_BYTES;
        let lost = out.rng.random_bool(self.line.loss);
        if out.bytes + bytes <= self.line.queue_bytes {
            out.bytes += bytes;
            let packet = (!lost).then(|| transmit.contents.to_vec());
            out.queue.push_back((transmit.destination, bytes, packet));
            self.more.notify_one();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.arrived.lock().unwrap();
        let Some((addr, packet)) = arrived.queue.pop_front() else {
            arrived.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        bufs[0][..packet.len()].copy_from_slice(&packet);
        meta[0] = RecvMeta {
            addr,
            len: packet.len(),
            stride: packet.len(),
            ecn: None,
            dst_ip: None,
        };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
