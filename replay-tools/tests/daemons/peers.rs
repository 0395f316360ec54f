//! A peer with a good certificate and bad manners: cloudcore ends that link, says why, and serves the others.

use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledge_proto::frame::FrameWriter;
use ledge_proto::ids::{ClusterId, Incarnation, Lane, Scope, StreamId, StreamKey};
use ledge_proto::limits;
use ledge_proto::session::PROTOCOL_VERSION;
use ledge_proto::session::wire;
use ledge_proto::v1;
use ledge_proto::v1::control_message::Message;
use ledge_replication::certs::{CLOUD_SERVER_NAME, CertFiles};
use ledge_replication::tls;
use quinn::{Connection, Endpoint, RecvStream, SendStream};

use crate::support::place::{ANY, Everything, Place, until};

const NAME: &str = "edge-2";
const SOON: Duration = Duration::from_secs(30);
const INCARNATION: Incarnation = Incarnation([7; 16]);

thread_local! {
    /// The last token of this test's peer. Each test is a thread.
    static TOKEN: Cell<Option<v1::SessionToken>> = const { Cell::new(None) };
}

/// A peer that can say anything.
struct Peer {
    connection: Connection,
    control: (SendStream, RecvStream),
    _endpoint: Endpoint,
}

impl Peer {
    async fn connect(files: &CertFiles, hub: SocketAddr) -> Peer {
        let endpoint = Endpoint::client(ANY).unwrap();
        let mut config = tls::client_config(files).unwrap();
        // Nobody repeats a farewell that was lost, unless something is said: a peer that waits for room to write says nothing.
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        transport.max_idle_timeout(Some(SOON.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        let connecting = endpoint.connect_with(config, hub, CLOUD_SERVER_NAME).unwrap();
        let connection = connecting.await.unwrap();
        let control = connection.open_bi().await.unwrap();
        Peer {
            connection,
            control,
            _endpoint: endpoint,
        }
    }

    /// Connects, is welcomed, and confirms the session. Comes back with the token of the last time.
    async fn join(place: &Place, files: &CertFiles, hub: SocketAddr) -> Peer {
        let mut peer = Peer::connect(files, hub).await;
        let hello = v1::Hello {
            node: files.cert.file_stem().unwrap().to_str().unwrap().to_owned(),
            token: TOKEN.take(),
            ..hello(place)
        };
        peer.say(&wire::encode(Message::Hello(hello)).unwrap()).await;
        let Message::Welcome(welcome) = peer.hear().await else {
            panic!("not welcome");
        };
        TOKEN.set(welcome.token.clone());
        let confirm = v1::Confirm { token: welcome.token };
        peer.say(&wire::encode(Message::Confirm(confirm)).unwrap()).await;
        peer
    }

    /// Sends bytes on the control stream. The other end may have had enough already.
    async fn say(&mut self, bytes: &[u8]) {
        self.control.0.write_all(bytes).await.ok();
    }

    async fn hear(&mut self) -> Message {
        let mut prefix = [0; 4];
        self.control.1.read_exact(&mut prefix).await.unwrap();
        let mut body = vec![0; wire::decode_len(prefix).unwrap()];
        self.control.1.read_exact(&mut body).await.unwrap();
        wire::decode(&body).unwrap()
    }

    /// Sends bytes on a lane of its own.
    async fn send(&self, bytes: &[u8]) {
        // The other end may have had enough already.
        if let Ok(mut lane) = self.connection.open_uni().await {
            lane.write_all(bytes).await.ok();
            lane.finish().ok();
        }
    }

    /// Waits until the other end has closed the connection.
    async fn dropped(self) {
        let closed = tokio::time::timeout(SOON, self.connection.closed()).await;
        closed.expect("cloudcore keeps the connection");
    }
}

fn hello(place: &Place) -> v1::Hello {
    v1::Hello {
        version: PROTOCOL_VERSION,
        cluster: place.authority().cluster().0.to_vec(),
        node: NAME.to_owned(),
        incarnation: INCARNATION.0.to_vec(),
        software: "a bad peer".to_owned(),
        ..Default::default()
    }
}

/// A frame of `node`'s telemetry, as it travels on a lane.
fn frame(node: &str) -> Vec<u8> {
    let key = StreamKey {
        id: StreamId::new(Scope::node(node).unwrap(), Lane::UpData),
        incarnation: INCARNATION,
    };
    let record = v1::Record {
        kind: 1,
        key: "d/p/x".into(),
        wall_us: 1,
        payload: Bytes::from_static(b"payload"),
        ..Default::default()
    };
    let mut payload = Vec::new();
    ledge_proto::frame::push_record(&mut payload, &record);
    let frame = FrameWriter::new(key).frame(1, &payload).unwrap();
    prefixed(frame.bytes())
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&len.to_be_bytes(), body].concat()
}

/// Others are served: what the real edge collects goes on arriving.
async fn others_are_served(place: &Place) {
    let had = place.cloud_records();
    place.cloud_holds(had + 10).await;
}

async fn stop(place: Place, all: Everything) {
    all.edge.stop().await.unwrap();
    all.cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

#[tokio::test]
async fn what_is_no_frame_of_theirs_ends_their_link_only() {
    let place = Place::new().await;
    let files = place.issue_node(NAME);
    let all = place.start_everything().await;
    let mut damaged = frame(NAME);
    *damaged.last_mut().unwrap() ^= 1;
    let too_long = u32::try_from(limits::FRAME_MAX_BYTES + 1).unwrap().to_be_bytes();
    let cases: [(&[u8], &str); 5] = [
        (&too_long, "over the limit"),
        (&[0xff; 4], "over the limit"),
        (&prefixed(&[0x5a; 300]), "frame"),
        (&damaged, "checksum"),
        (&frame("edge-1"), "not its to write"),
    ];
    for (bytes, word) in cases {
        let peer = Peer::join(&place, &files, all.cloud.hub).await;
        peer.send(bytes).await;
        peer.dropped().await;
        place.cloud_says(&["link ended", NAME, word]).await;
        others_are_served(&place).await;
    }
    // The same peer with a good frame is welcome.
    let peer = Peer::join(&place, &files, all.cloud.hub).await;
    peer.send(&frame(NAME)).await;
    let scope = Scope::node(NAME).unwrap();
    until("its record", || {
        ledge::quickstart::claims::records_up(&place.site.cloud_dir(), &scope).unwrap() == 1
    })
    .await;
    drop(peer);
    stop(place, all).await;
}

#[tokio::test]
async fn what_is_no_control_message_ends_their_link_only() {
    let place = Place::new().await;
    let files = place.issue_node(NAME);
    let all = place.start_everything().await;
    let foreign = v1::Hello {
        cluster: ClusterId([9; 16]).0.to_vec(),
        ..hello(&place)
    };
    let pretender = v1::Hello {
        node: "edge-1".to_owned(),
        ..hello(&place)
    };
    let future = v1::Hello {
        version: PROTOCOL_VERSION + 1,
        ..hello(&place)
    };
    let streams = v1::Hello {
        streams: vec![v1::StreamState::default(); limits::SESSION_MAX_STREAMS + 1],
        ..hello(&place)
    };
    let nameless = v1::Hello {
        incarnation: vec![1],
        ..hello(&place)
    };
    let ping = wire::encode(Message::Ping(v1::Ping::default())).unwrap();
    let say = |hello| wire::encode(Message::Hello(hello)).unwrap();
    let cases: [(Bytes, &[&str]); 8] = [
        (
            Bytes::from_static(&[0xff; 8]),
            &["control message", "over the limit"],
        ),
        (prefixed(&[0xff; 40]).into(), &["malformed control message"]),
        (ping, &["protocol violation", "PING"]),
        (
            say(foreign),
            &["refused", "belongs to cluster", "empty data directory"],
        ),
        (
            say(pretender),
            &["refused", "names node edge-2", "says it is edge-1"],
        ),
        (say(future), &["refused", "version", "upgrade"]),
        (say(streams), &["protocol violation", "streams in one message"]),
        (say(nameless), &["protocol violation"]),
    ];
    for (bytes, words) in cases {
        let mut peer = Peer::connect(&files, all.cloud.hub).await;
        peer.say(&bytes).await;
        peer.dropped().await;
        place.cloud_says(&[&["link ended", NAME], words].concat()).await;
    }
    others_are_served(&place).await;
    stop(place, all).await;
}

#[tokio::test]
async fn peers_that_say_nothing_are_dropped() {
    let place = Place::new().await;
    let files = place.issue_node(NAME);
    let all = place.start_everything().await;
    let began = Instant::now();
    // A stream exists for the other end only once something was sent on it.
    let mute = Peer::connect(&files, all.cloud.hub).await;
    let mut stutters = Peer::connect(&place.issue_node("edge-3"), all.cloud.hub).await;
    stutters.say(&[0]).await;
    let falls_silent = Peer::join(&place, &place.issue_node("edge-4"), all.cloud.hub).await;
    falls_silent.dropped().await;
    place.cloud_says(&["link ended", "edge-4", "nothing heard"]).await;
    stutters.dropped().await;
    place.cloud_says(&["link ended", "edge-3", "nothing heard"]).await;
    mute.dropped().await;
    place.cloud_says(&["link ended", NAME, "nothing heard"]).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    others_are_served(&place).await;
    stop(place, all).await;
}

#[tokio::test]
async fn hundreds_of_bad_peers_leave_no_memory_behind() {
    let place = Place::new().await;
    let files = place.issue_node(NAME);
    let all = place.start_everything().await;
    let rss = || resident_kib(all.cloud.daemon.pid().unwrap());
    let bad_peer = async || {
        let peer = Peer::join(&place, &files, all.cloud.hub).await;
        // Announces the largest frame there is, on every lane, and sends a part of one.
        for _ in 0..8 {
            // A lane that ends in the middle of a frame ends the link, which may be noticed here already.
            let Ok(mut lane) = peer.connection.open_uni().await else {
                break;
            };
            let len = u32::try_from(limits::FRAME_MAX_BYTES).unwrap();
            lane.write_all(&len.to_be_bytes()).await.ok();
            lane.write_all(&[0; 64 * 1024]).await.ok();
        }
        peer.send(&[0xff; 64]).await;
        peer.dropped().await;
    };
    for _ in 0..20 {
        bad_peer().await;
    }
    let before = rss();
    for _ in 0..200 {
        bad_peer().await;
    }
    let grown = rss().saturating_sub(before);
    println!("{before} KiB, {grown} more after 200 bad peers");
    assert!(grown < 24 * 1024, "{grown} KiB more than {before}");
    others_are_served(&place).await;
    stop(place, all).await;
}

#[tokio::test]
async fn packets_that_are_not_quic_are_nothing() {
    let place = Place::new().await;
    let all = place.start_everything().await;
    let socket = UdpSocket::bind(ANY).unwrap();
    for n in 0..2000u32 {
        let packet: Vec<u8> = (0..n % 1400)
            .map(|i| i.wrapping_mul(n).to_be_bytes()[2])
            .collect();
        socket.send_to(&packet, all.cloud.hub).ok();
    }
    others_are_served(&place).await;
    stop(place, all).await;
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
