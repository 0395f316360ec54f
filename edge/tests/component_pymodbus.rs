//! The mapper against a Modbus server we did not write: pymodbus, with values that pymodbus encoded.
//! See `pymodbus/mod.rs` for what it needs.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "tests, with small numbers"
)]

#[path = "mapper/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;

#[path = "pymodbus/mod.rs"]
mod pymodbus;

use ledge_edge::twin::DeviceEntry;
use ledge_edge::twin::value::{boolean, double, int, text};
use ledge_proto::v1::modbus_visitor::Register;
use ledge_proto::v1::write_result::Outcome;
use ledge_proto::v1::{self, DataType};
use pymodbus::{LIMIT, Python, Server, free_port};
use support::*;

fn device(port: u16) -> DeviceEntry {
    use DataType::{Boolean, Double, Float, Int, String};
    let mut temperature = property("temperature", Register::Input, Double, 0, 1);
    let mut threshold = property("threshold", Register::Holding, Double, 10, 1);
    for property in [&mut temperature, &mut threshold] {
        property.modbus.as_mut().unwrap().scale = 0.1;
    }
    let mut properties = vec![
        temperature,
        threshold,
        property("energy", Register::Input, Int, 1, 2),
        property("coil", Register::Coil, Boolean, 1, 1),
        property("coils", Register::Coil, Int, 0, 5),
        property("discrete", Register::DiscreteInput, Boolean, 2, 1),
        property("level", Register::Holding, Float, 20, 2),
        property("name", Register::Holding, String, 30, 3),
        property("total", Register::Holding, Int, 40, 4),
        property("ratio", Register::Holding, Double, 50, 4),
        property("fixed", Register::Holding, Int, 60, 1),
        property("nowhere", Register::Holding, Int, 500, 1),
    ];
    for property in &mut properties {
        property.collect_cycle_ms = 50;
        property.writable = matches!(property.name.as_str(), "threshold" | "coil" | "level" | "fixed");
    }
    let mut entry = entry("plc", "127.0.0.1", u32::from(port), properties);
    entry.spec.modbus.as_mut().unwrap().timeout_ms = 1000;
    entry
}

fn latest(world: &World, property: &str) -> Option<v1::Value> {
    world
        .journal
        .reports("plc", property)
        .pop()
        .map(|(_, value)| value)
}

#[tokio::test]
async fn every_kind_of_register_is_read_and_exceptions_stay_with_their_property() {
    let Some(python) = Python::or_skip("component_pymodbus").await else {
        return;
    };
    let port = free_port();
    let server = Server::start(&python, port).await;
    let world = World::start(MemJournal::default(), vec![device(port)], |_| {});
    let expected = [
        ("temperature", double(-5.5)),
        ("threshold", double(30.0)),
        ("energy", int(-70_000)),
        ("coil", boolean(true)),
        ("coils", int(0b10110)),
        ("discrete", boolean(true)),
        ("level", double(23.4)),
        ("name", text("Ledge!")),
        ("total", int(-5_000_000_000)),
        ("ratio", double(0.1)),
        ("fixed", int(1)),
    ];
    for (property, value) in expected {
        world
            .until(property, LIMIT, |w| latest(w, property) == Some(value.clone()))
            .await;
    }
    world
        .until("the exception", LIMIT, |w| {
            !w.journal.events("PropertyUnreadable").is_empty()
        })
        .await;
    let (journal, stopped) = world.stop().await;
    let unreadable = journal.events("PropertyUnreadable");
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
    assert_eq!(unreadable[0].0, "default/plc/nowhere");
    assert!(unreadable[0].1.contains("Modbus exception 2"), "{unreadable:?}");
    assert_eq!(journal.state_names("plc"), ["online"]);
    assert_eq!(stopped, ledge_edge::mapper::Stopped::default());
    server.kill().await;
}

#[tokio::test]
async fn desired_values_reach_the_server_and_again_after_it_restarts() {
    let Some(python) = Python::or_skip("component_pymodbus").await else {
        return;
    };
    let port = free_port();
    let mut server = Server::start(&python, port).await;
    let mut entry = device(port);
    wish(&mut entry, "threshold", double(45.5), 1);
    let world = World::start(MemJournal::default(), vec![entry.clone()], |_| {});
    let written = r#"{"function": 6, "address": 10, "values": [455]}"#;
    assert_eq!(server.line().await, written);
    world
        .until("reported", LIMIT, |w| {
            latest(w, "threshold") == Some(double(45.5))
        })
        .await;

    wish(&mut entry, "coil", boolean(false), 2);
    world.set(vec![entry.clone()]);
    assert_eq!(
        server.line().await,
        r#"{"function": 5, "address": 1, "values": [false]}"#
    );
    wish(&mut entry, "level", double(-1.5), 3);
    wish(&mut entry, "fixed", int(9), 4);
    world.set(vec![entry]);
    assert_eq!(
        server.line().await,
        r#"{"function": 16, "address": 20, "values": [49088, 0]}"#
    );
    world
        .until("reported", LIMIT, |w| latest(w, "level") == Some(double(-1.5)))
        .await;
    let outcome = |w: &World, property| w.journal.results("plc", property).pop().map(|(_, r)| r.outcome());
    world
        .until("refused", LIMIT, |w| outcome(w, "fixed") == Some(Outcome::Failed))
        .await;

    // The server forgets its settings, as devices do.
    server.kill().await;
    world
        .until("offline", LIMIT, |w| {
            w.journal.state_names("plc").last().unwrap() == "offline"
        })
        .await;
    let mut server = Server::start(&python, port).await;
    let again = [server.line().await, server.line().await, server.line().await];
    assert!(again.iter().any(|line| line == written), "{again:?}");
    world
        .until("online", LIMIT, |w| {
            w.journal.state_names("plc") == ["online", "offline", "online"]
        })
        .await;
    world
        .until("reported", LIMIT, |w| {
            latest(w, "threshold") == Some(double(45.5))
        })
        .await;
    let (journal, _) = world.stop().await;
    for property in ["threshold", "coil", "level"] {
        let outcomes: Vec<Outcome> = journal
            .results("plc", property)
            .iter()
            .map(|(_, result)| result.outcome())
            .collect();
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Applied),
            "{property}: {outcomes:?}"
        );
    }
    server.kill().await;
}
