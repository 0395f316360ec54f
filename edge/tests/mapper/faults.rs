//! Devices that misbehave: a clear state, no panic, no busy loop, and recovery when they behave.

use std::sync::Arc;
use std::time::Duration;

use ledge_edge::mapper::modbus::connection::ConnectionLimits;
use ledge_edge::mapper::modbus::{Address, Connection, Range, Raw, Table};
use ledge_edge::twin::value::double;

use crate::support::*;

/// Runs a healthy device, lets it misbehave for a minute, then heals it.
async fn survives(mood: Mood, state: &str, message: &str) {
    let dial = MemDial::default();
    let device = dial.device(1);
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    tokio::time::sleep(Duration::from_millis(4500)).await;
    if mood == Mood::Refusing || mood == Mood::BlackHole {
        // The established connection would not notice.
        device.with(|state| (state.mood, state.then) = (Mood::HangingUpOnce, mood));
    } else {
        device.set_mood(mood);
    }
    let (dials, requests) = device.with(|state| (state.dials, state.requests));
    pass(60).await;
    let (more_dials, more_requests) = device.with(|state| (state.dials - dials, state.requests - requests));
    assert!(more_dials <= 20, "{mood:?}: {more_dials} connections in a minute");
    assert!(
        more_requests <= 20,
        "{mood:?}: {more_requests} requests in a minute"
    );
    let states = world.journal.states("pump");
    let (_, now, why) = states.last().unwrap();
    assert_eq!(now, state, "{mood:?}: {states:?}");
    assert!(why.contains(message), "{mood:?}: {why}");
    assert_eq!(states.len(), 2, "{mood:?}: told once: {states:?}");

    let healed = world.start.elapsed().as_millis();
    device.set_mood(Mood::Well);
    pass(60).await;
    let (journal, stopped) = world.stop().await;
    assert_eq!(
        journal.state_names("pump"),
        ["online", state, "online"],
        "{mood:?}"
    );
    let after = journal
        .samples("pump", "temperature")
        .into_iter()
        .filter(|(at, _)| *at > healed);
    let after: Vec<_> = after.collect();
    assert!(
        after.len() >= 28,
        "{mood:?}: {} samples in the minute after",
        after.len()
    );
    assert!(
        journal
            .samples("pump", "temperature")
            .iter()
            .all(|(_, v)| *v == double(23.5)),
        "{mood:?}"
    );
    assert_eq!(stopped.late, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn refusing_connections() {
    survives(Mood::Refusing, "offline", "cannot connect to mem:1").await;
}

#[tokio::test(start_paused = true)]
async fn swallowing_connections() {
    survives(Mood::BlackHole, "offline", "no connection within").await;
}

#[tokio::test(start_paused = true)]
async fn silent() {
    survives(Mood::Silent, "offline", "no answer within 500ms").await;
}

#[tokio::test(start_paused = true)]
async fn closing_at_once() {
    survives(Mood::Closing, "offline", "the connection ended").await;
}

#[tokio::test(start_paused = true)]
async fn hanging_up_on_requests() {
    survives(Mood::HangingUp, "offline", "the connection ended").await;
}

#[tokio::test(start_paused = true)]
async fn garbage() {
    // What looks like a length is a long one, of which only the beginning comes.
    survives(Mood::Garbage, "offline", "no answer").await;
}

#[tokio::test(start_paused = true)]
async fn wrong_unit() {
    survives(Mood::WrongUnit, "unhealthy", "not an answer").await;
}

#[tokio::test(start_paused = true)]
async fn wrong_transaction() {
    survives(Mood::WrongTransaction, "unhealthy", "not an answer").await;
}

#[tokio::test(start_paused = true)]
async fn half_a_frame() {
    survives(Mood::HalfFrame, "offline", "no answer").await;
}

#[tokio::test(start_paused = true)]
async fn too_few_registers() {
    survives(
        Mood::Short,
        "unhealthy",
        "0 registers or bits where 1 were asked for",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn too_many_registers() {
    survives(
        Mood::Long,
        "unhealthy",
        "2 registers or bits where 1 were asked for",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn wrong_function() {
    survives(Mood::WrongFunction, "unhealthy", "not an answer").await;
}

#[tokio::test(start_paused = true)]
async fn empty_answer() {
    survives(Mood::Empty, "unhealthy", "not an answer").await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_whose_device_is_silent() {
    survives(Mood::Exception(11), "offline", "Modbus exception 11").await;
}

#[tokio::test(start_paused = true)]
async fn exceptions_are_of_properties_not_of_the_device() {
    let dial = MemDial::default();
    let device = dial.device(1);
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for code in [1, 2, 4, 6, 99] {
        device.set_mood(Mood::Exception(code));
        pass(10).await;
    }
    device.set_mood(Mood::Well);
    pass(10).await;
    assert_eq!(device.with(|state| state.dials), 1, "the connection is fine");
    let (journal, _) = world.stop().await;
    assert_eq!(journal.state_names("pump"), ["online"]);
    assert_eq!(
        journal.events("PropertyUnreadable").len(),
        10,
        "two properties, five reasons"
    );
    assert_eq!(journal.events("PropertyReadable").len(), 2);
    assert_eq!(journal.samples("pump", "temperature").len(), 13);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    let dial = MemDial::default();
    let device = dial.device(1);
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    device.set_mood(Mood::Slow(Duration::from_millis(700)));
    pass(30).await;
    device.set_mood(Mood::Well);
    pass(30).await;
    let (journal, _) = world.stop().await;
    assert_eq!(journal.state_names("pump"), ["online", "offline", "online"]);
    assert!(
        journal
            .samples("pump", "temperature")
            .iter()
            .all(|(_, v)| *v == double(23.5))
    );
    assert!(
        journal
            .samples("pump", "threshold")
            .iter()
            .all(|(_, v)| *v == double(30.0))
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_the_device_closed_is_no_fault() {
    let dial = MemDial::default();
    let device = dial.device(1);
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    for _ in 0..5 {
        pass(2).await;
        device.set_mood(Mood::HangingUpOnce);
    }
    pass(2).await;
    let (journal, _) = world.stop().await;
    assert_eq!(device.with(|state| state.dials), 6);
    assert_eq!(journal.state_names("pump"), ["online"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_unit_does_not_take_its_neighbour_down() {
    let dial = MemDial::default();
    let device = dial.device(1);
    let mut dead = sensor("dead", 1);
    dead.spec.modbus.as_mut().unwrap().unit_id = 2;
    let world = World::in_memory(&dial, vec![sensor("alive", 1), dead]);
    pass(2).await;
    device.with(|state| state.silent_unit = Some(2));
    pass(120).await;
    let (journal, _) = world.stop().await;
    assert_eq!(journal.state_names("alive"), ["online"]);
    assert_eq!(journal.state_names("dead"), ["online", "offline"]);
    let samples = journal.samples("alive", "temperature").len();
    assert!(samples >= 110, "{samples} samples in two minutes");
}

#[tokio::test(start_paused = true)]
async fn noise_in_correct_frames_breaks_nothing() {
    let dial = MemDial::default();
    dial.device(1).set_mood(Mood::Noise);
    let address = Address::Tcp {
        host: "mem".to_owned(),
        port: 1,
    };
    let limits = ConnectionLimits {
        backoff_max: Duration::from_millis(1),
        ..Default::default()
    };
    let (connection, task) = Connection::new(address, Arc::new(dial.clone()), limits, 7);
    let task = tokio::spawn(task);
    let (mut answers, limit) = (0, Duration::from_millis(100));
    let tables = [
        Table::Coils,
        Table::DiscreteInputs,
        Table::InputRegisters,
        Table::HoldingRegisters,
    ];
    for round in 0..8000u16 {
        let table = tables[usize::from(round % 4)];
        let range = Range {
            table,
            first: 0,
            count: 1,
        };
        let read = if table.writable() && round % 3 == 0 {
            let raw = if table.in_bits() {
                Raw::Bits(vec![true])
            } else {
                Raw::Words(vec![1])
            };
            connection.write(1, limit, range, raw.clone()).await.map(|()| raw)
        } else {
            connection.read(1, limit, range).await
        };
        if let Ok(raw) = read {
            answers += 1;
            let len = match raw {
                Raw::Words(words) => words.len(),
                Raw::Bits(bits) => bits.len(),
            };
            assert_eq!(len, 1, "what is not asked for is never handed on");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!task.is_finished(), "the connection survived");
    assert!(answers > 100, "{answers}: some noise is an answer");
}
