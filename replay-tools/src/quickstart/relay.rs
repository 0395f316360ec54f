//! The link that can be cut: a UDP relay between edgecore and cloudcore that drops every packet while cut, as a
//! dead radio does. Neither side is told.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const PACKET_MAX: usize = 65_536;

/// A relay on loopback. Dropping it closes it.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    cut: AtomicBool,
    target: Mutex<SocketAddr>,
    dropped: AtomicU64,
}

impl Relay {
    /// A relay to `target`, on a port of its own.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn start(target: SocketAddr) -> io::Result<Relay> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            cut: AtomicBool::new(false),
            target: Mutex::new(target),
            dropped: AtomicU64::new(0),
        });
        let task = tokio::spawn(relay(socket, shared.clone()));
        Ok(Relay {
            shared,
            address,
            task,
        })
    }

    /// Where edgecore dials.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the link.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Relaxed);
    }

    /// Restores the link.
    pub fn restore(&self) {
        self.shared.cut.store(false, Ordering::Relaxed);
    }

    /// cloudcore is elsewhere now.
    pub fn retarget(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Packets dropped while cut.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn passes(&self) -> bool {
        let passes = !self.cut.load(Ordering::Relaxed);
        if !passes {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    fn target(&self) -> SocketAddr {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One socket towards the cloud per edge address; errors of UDP are lost packets, which is what a relay may do.
async fn relay(edge_side: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut upstreams: HashMap<(SocketAddr, SocketAddr), Arc<UdpSocket>> = HashMap::new();
    let mut back = JoinSet::new();
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let Ok((len, from)) = edge_side.recv_from(&mut packet).await else {
            continue;
        };
        if !shared.passes() {
            continue;
        }
        let target = shared.target();
        let upstream = match upstreams.get(&(from, target)) {
            Some(upstream) => upstream.clone(),
            None => {
                let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                    continue;
                };
                if socket.connect(target).await.is_err() {
                    continue;
                }
                let socket = Arc::new(socket);
                upstreams.insert((from, target), socket.clone());
                back.spawn(relay_back(
                    socket.clone(),
                    edge_side.clone(),
                    from,
                    shared.clone(),
                ));
                socket
            }
        };
        upstream.send(&packet[..len]).await.ok();
    }
}

async fn relay_back(
    upstream: Arc<UdpSocket>,
    edge_side: Arc<UdpSocket>,
    to: SocketAddr,
    shared: Arc<Shared>,
) {
    let mut packet = vec![0; PACKET_MAX];
    loop {
        let Ok(len) = upstream.recv(&mut packet).await else {
            // Nobody listens there now (cloudcore is down): wait for it to come back.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        if shared.passes() {
            edge_side.send_to(&packet[..len], to).await.ok();
        }
    }
}
