//! Over a serial line: a pair of pseudo-terminals.

use std::fs::File;
use std::time::Duration;

use ledge_edge::twin::DeviceEntry;
use ledge_edge::twin::value::double;
use ledge_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_modbus::server::rtu::Server;
use tokio_serial::{SerialPort as _, SerialStream};

use crate::support::*;
use crate::tcp::Registers;

/// A line: the device's end, the mapper's end (kept open so that the line stays up) and its path.
fn line() -> (SerialStream, File, String) {
    let (device, mapper) = SerialStream::pair().unwrap();
    let path = mapper.name().unwrap();
    let keep = File::open(&path).unwrap();
    // The mapper wants the line for itself.
    drop(mapper);
    (device, keep, path)
}

fn on_line(path: &str, name: &str, baud_rate: u32) -> DeviceEntry {
    let mut entry = sensor(name, 1);
    let rtu = v1::ModbusRtu {
        path: path.to_owned(),
        baud_rate,
        ..Default::default()
    };
    let modbus = entry.spec.modbus.as_mut().unwrap();
    modbus.transport = Some(v1::modbus_device::Transport::Rtu(rtu));
    modbus.timeout_ms = 200;
    entry
        .spec
        .properties
        .iter_mut()
        .for_each(|property| property.collect_cycle_ms = 50);
    entry
}

#[tokio::test]
async fn reads_and_writes() {
    let (device, _line, path) = line();
    let registers = Registers::new();
    let server = tokio::spawn(Server::new(device).serve_forever(registers.clone()));
    let mut entry = on_line(&path, "meter", 9600);
    wish(&mut entry, "threshold", double(45.5), 7);
    let mut other = on_line(&path, "other", 19_200);
    other.spec.modbus.as_mut().unwrap().unit_id = 2;
    let world = World::start(MemJournal::default(), vec![entry, other], |_| {});
    let limit = Duration::from_secs(10);
    world
        .until("samples", limit, |w| {
            w.journal.samples("meter", "temperature").len() > 5
        })
        .await;
    world
        .until("written", limit, |_| registers.0.lock().unwrap()[&10] == 455)
        .await;
    let (journal, _) = world.stop().await;
    assert!(
        journal
            .samples("meter", "temperature")
            .iter()
            .all(|(_, v)| *v == double(23.5))
    );
    let states = journal.states("other");
    assert!(states[0].2.contains("in use with other settings"), "{states:?}");
    server.abort();
}

/// An RTU frame with its checksum.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut crc = 0xFFFFu16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 };
        }
    }
    [bytes, &crc.to_le_bytes()].concat()
}

/// RTU has no transaction numbers: after a timeout the late answer of one request must not be read as the answer to
/// the next. The device answers each register with its own address, the first few answers late.
#[tokio::test]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    let (mut device, _line, path) = line();
    let server = tokio::spawn(async move {
        let mut request = [0; 8];
        let mut asked = 0;
        while device.read_exact(&mut request).await.is_ok() {
            asked += 1;
            if asked <= 3 {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            let answer = frame(&[request[0], request[1], 2, request[2], request[3]]);
            device.write_all(&answer).await.unwrap();
        }
    });
    let mut entry = on_line(&path, "meter", 9600);
    // One request each: temperature at 0, threshold at 10.
    entry.spec.properties[0].collect_cycle_ms = 70;
    let world = World::start(MemJournal::default(), vec![entry], |_| {});
    let limit = Duration::from_secs(20);
    let enough = |w: &World| {
        w.journal.samples("meter", "temperature").len() > 10
            && w.journal.samples("meter", "threshold").len() > 10
    };
    world.until("samples of both", limit, enough).await;
    let (journal, _) = world.stop().await;
    assert!(
        journal.state_names("meter").contains(&"offline".to_owned()),
        "answers were late"
    );
    assert!(
        journal
            .samples("meter", "temperature")
            .iter()
            .all(|(_, v)| *v == double(0.0))
    );
    assert!(
        journal
            .samples("meter", "threshold")
            .iter()
            .all(|(_, v)| *v == double(1.0))
    );
    server.abort();
}

#[tokio::test]
async fn a_line_that_is_not_there_is_offline() {
    let entry = on_line("/dev/ledge-no-such-line", "meter", 9600);
    let world = World::start(MemJournal::default(), vec![entry], |_| {});
    let limit = Duration::from_secs(10);
    world
        .until("offline", limit, |w| {
            w.journal.state_names("meter") == ["offline"]
        })
        .await;
    let (journal, _) = world.stop().await;
    let states = journal.states("meter");
    assert!(
        states[0].2.contains("/dev/ledge-no-such-line (9600 8N1)"),
        "{states:?}"
    );
}

#[tokio::test]
async fn a_line_that_becomes_free_is_taken_by_the_device_that_waited() {
    let path = "/dev/ledge-no-such-line";
    let (first, second) = (on_line(path, "a", 9600), on_line(path, "b", 19_200));
    let world = World::start(MemJournal::default(), vec![first, second.clone()], |_| {});
    let limit = Duration::from_secs(10);
    world
        .until("conflict", limit, |w| w.journal.state_names("b") == ["unhealthy"])
        .await;
    world.set(vec![second]);
    world
        .until("its turn", limit, |w| {
            w.journal.state_names("b") == ["unhealthy", "offline"]
        })
        .await;
    world.stop().await;
}
