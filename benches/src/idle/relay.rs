//! A UDP relay between one edge and the cloud that counts what passes.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Sub;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Of IPv4 and UDP, per datagram.
const HEADERS: usize = 20 + 8;
const DATAGRAM_MAX: usize = 65_536;

/// Datagrams by length, one way.
#[derive(Debug, Clone, Default)]
pub(super) struct Way(BTreeMap<usize, u64>);

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
impl Way {
    /// All bytes, headers of IP and UDP included.
    pub(super) fn bytes(&self) -> f64 {
        self.0
            .iter()
            .map(|(len, count)| (*len + HEADERS) as f64 * *count as f64)
            .sum()
    }

    pub(super) fn datagrams(&self) -> f64 {
        self.0.values().map(|count| *count as f64).sum()
    }
}

impl Sub for Way {
    type Output = Way;

    fn sub(mut self, before: Way) -> Way {
        for (len, count) in before.0 {
            if let Some(now) = self.0.get_mut(&len) {
                *now -= count;
            }
        }
        self.0.retain(|_, count| *count > 0);
        self
    }
}

/// Datagrams both ways.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) from_edge: Way,
    pub(super) from_cloud: Way,
}

impl Counts {
    /// The most frequent sizes of payloads, those of the edge with `>`.
    pub(super) fn sizes(&self) -> Vec<(String, u64)> {
        let ways = [(">", &self.from_edge), ("<", &self.from_cloud)];
        let mut sizes: Vec<(String, u64)> = ways
            .iter()
            .flat_map(|(sign, way)| {
                way.0
                    .iter()
                    .map(move |(len, count)| (format!("{sign}{len}"), *count))
            })
            .collect();
        sizes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        sizes.truncate(16);
        sizes
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        Counts {
            from_edge: self.from_edge - before.from_edge,
            from_cloud: self.from_cloud - before.from_cloud,
        }
    }
}

/// A relay on loopback for one edge. Dropping it closes it.
pub(super) struct Relay {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<io::Result<()>>,
}

impl Relay {
    pub(super) async fn start(target: SocketAddr) -> io::Result<Relay> {
        let edge_side = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let cloud_side = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        cloud_side.connect(target).await?;
        let address = edge_side.local_addr()?;
        let counts = Arc::new(Mutex::new(Counts::default()));
        let task = tokio::spawn(relay(edge_side, cloud_side, counts.clone()));
        Ok(Relay {
            address,
            counts,
            task,
        })
    }

    /// Where edgecore dials.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has passed so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(edge_side: UdpSocket, cloud_side: UdpSocket, counts: Arc<Mutex<Counts>>) -> io::Result<()> {
    let mut edge = None;
    let (mut up, mut down) = (vec![0; DATAGRAM_MAX], vec![0; DATAGRAM_MAX]);
    loop {
        tokio::select! {
            received = edge_side.recv_from(&mut up) => {
                let (len, from) = received?;
                edge = Some(from);
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                *counts.from_edge.0.entry(len).or_default() += 1;
                cloud_side.try_send(&up[..len]).ok();
            }
            received = cloud_side.recv(&mut down) => {
                let len = received?;
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                *counts.from_cloud.0.entry(len).or_default() += 1;
                if let Some(edge) = edge {
                    edge_side.try_send_to(&down[..len], edge).ok();
                }
            }
        }
    }
}
