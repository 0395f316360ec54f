//! Over real sockets, in real time, against tokio-modbus' server.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledge_edge::twin::value::double;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};

use crate::support::*;

/// Holding and input registers of one unit.
#[derive(Clone)]
pub(crate) struct Registers(pub(crate) Arc<Mutex<BTreeMap<u16, u16>>>);

impl Registers {
    pub(crate) fn new() -> Self {
        Registers(Arc::new(Mutex::new(BTreeMap::from([(0, 235), (10, 300)]))))
    }

    fn read(&self, first: u16, count: u16) -> Result<Vec<u16>, ExceptionCode> {
        let registers = self.0.lock().unwrap();
        (first..first + count)
            .map(|address| {
                registers
                    .get(&address)
                    .copied()
                    .ok_or(ExceptionCode::IllegalDataAddress)
            })
            .collect()
    }
}

impl tokio_modbus::server::Service for Registers {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Self::Response, Self::Exception>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        if request.slave != 1 {
            return ready(Ok(None));
        }
        ready(match request.request {
            Request::ReadInputRegisters(first, count) => self
                .read(first, count)
                .map(Response::ReadInputRegisters)
                .map(Some),
            Request::ReadHoldingRegisters(first, count) => self
                .read(first, count)
                .map(Response::ReadHoldingRegisters)
                .map(Some),
            Request::WriteSingleRegister(address, word) => {
                self.0.lock().unwrap().insert(address, word);
                Ok(Some(Response::WriteSingleRegister(address, word)))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}

async fn serve(registers: Registers, port: u16) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let accept = |stream, address| {
            let registers = registers.clone();
            async move { accept_tcp_connection(stream, address, move |_| Ok(Some(registers.clone()))) }
        };
        Server::new(listener).serve(&accept, |_| {}).await.unwrap();
    });
    (port, task)
}

#[tokio::test]
async fn reads_and_writes_and_comes_back_when_the_server_restarts() {
    let registers = Registers::new();
    let (port, server) = serve(registers.clone(), 0).await;
    let mut entry = sensor("plc", u32::from(port));
    let tcp = v1_tcp(port);
    let modbus = entry.spec.modbus.as_mut().unwrap();
    modbus.transport = Some(tcp);
    modbus.timeout_ms = 2000;
    entry
        .spec
        .properties
        .iter_mut()
        .for_each(|property| property.collect_cycle_ms = 50);
    wish(&mut entry, "threshold", double(45.5), 7);
    let world = World::start(MemJournal::default(), vec![entry], |_| {});
    let limit = Duration::from_secs(10);
    world
        .until("a sample", limit, |w| {
            w.journal.samples("plc", "temperature").len() > 3
        })
        .await;
    world
        .until("a result", limit, |w| {
            !w.journal.results("plc", "threshold").is_empty()
        })
        .await;
    assert_eq!(registers.0.lock().unwrap()[&10], 455);

    server.abort();
    world
        .until("offline", limit, |w| {
            w.journal.state_names("plc") == ["online", "offline"]
        })
        .await;
    registers.0.lock().unwrap().insert(10, 0);
    let (_, server) = serve(registers.clone(), port).await;
    let states = ["online", "offline", "online"];
    world
        .until("online again", Duration::from_secs(30), |w| {
            w.journal.state_names("plc") == states
        })
        .await;
    world
        .until("written again", limit, |_| {
            registers.0.lock().unwrap()[&10] == 455
        })
        .await;
    let (journal, stopped) = world.stop().await;
    assert_eq!(stopped.late, Vec::<String>::new());
    assert!(
        journal
            .samples("plc", "temperature")
            .iter()
            .all(|(_, v)| *v == double(23.5))
    );
    server.abort();
}

#[tokio::test]
async fn every_nasty_answer_arrives_over_a_socket_as_it_does_in_memory() {
    for (mood, state) in [
        (Mood::Silent, "offline"),
        (Mood::Closing, "offline"),
        (Mood::HangingUp, "offline"),
        (Mood::Garbage, "offline"),
        (Mood::HalfFrame, "offline"),
        (Mood::WrongUnit, "unhealthy"),
        (Mood::WrongTransaction, "unhealthy"),
        (Mood::Short, "unhealthy"),
    ] {
        let device = MemDevice::new();
        device.set_mood(mood);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = device.clone();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(served.clone().serve(stream));
            }
        });
        let mut entry = sensor("plc", u32::from(port));
        let modbus = entry.spec.modbus.as_mut().unwrap();
        modbus.transport = Some(v1_tcp(port));
        modbus.timeout_ms = 300;
        let world = World::start(MemJournal::default(), vec![entry], |_| {});
        let limit = Duration::from_secs(10);
        world
            .until(&format!("{mood:?}"), limit, |w| {
                w.journal.state_names("plc") == [state]
            })
            .await;
        device.set_mood(Mood::Well);
        world
            .until("recovery", limit, |w| {
                w.journal.state_names("plc") == [state, "online"]
            })
            .await;
        world.stop().await;
        server.abort();
    }
}

fn v1_tcp(port: u16) -> ledge_proto::v1::modbus_device::Transport {
    ledge_proto::v1::modbus_device::Transport::Tcp(ledge_proto::v1::ModbusTcp {
        host: "127.0.0.1".to_owned(),
        port: u32::from(port),
    })
}
