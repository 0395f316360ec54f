//! Desired values: written, kept, refused.

use std::time::Duration;

use ledge_edge::twin::value::{boolean, double, text};
use ledge_edge::twin::{DeviceEntry, JournalError};
use ledge_proto::ids::Lane;
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;
use ledge_proto::v1::DataType;
use ledge_proto::v1::modbus_visitor::Register;
use ledge_proto::v1::write_result::Outcome;

use crate::support::*;

fn wishing(value: f64, seq: u64) -> DeviceEntry {
    let mut entry = sensor("pump", 1);
    wish(&mut entry, "threshold", double(value), seq);
    entry
}

fn threshold(dial: &MemDial) -> u16 {
    dial.device(1).with(|state| state.holding[&10])
}

fn outcomes(journal: &MemJournal) -> Vec<(u64, Outcome)> {
    let results = journal.results("pump", "threshold");
    results
        .iter()
        .map(|(_, result)| (result.desired.unwrap().seq, result.outcome()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_wish_is_intended_written_confirmed_and_reported_in_this_order() {
    let dial = MemDial::default();
    let mut slow = sensor("pump", 1);
    slow.spec.properties[1].collect_cycle_ms = 60_000;
    let world = World::in_memory(&dial, vec![slow.clone()]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    wish(&mut slow, "threshold", double(45.5), 7);
    world.set(vec![slow]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(threshold(&dial), 455, "at once, not at the next cycle");
    let (journal, _) = world.stop().await;

    let of_threshold: Vec<(Lane, RecordKind)> = journal
        .records()
        .iter()
        .filter(|(_, record)| record.key == "default/pump/threshold")
        .map(|(lane, record)| (*lane, RecordKind::from_wire(record.payload.encode().0).unwrap()))
        .collect();
    let tail = &of_threshold[of_threshold.len() - 3..];
    assert_eq!(
        tail,
        [
            (Lane::UpData, RecordKind::WriteIntent),
            (Lane::UpState, RecordKind::WriteResult),
            (Lane::UpState, RecordKind::TwinReported),
        ]
    );
    let (record, result) = journal.results("pump", "threshold").pop().unwrap();
    assert_eq!(result.outcome(), Outcome::Applied);
    assert_eq!(result.value, Some(double(45.5)));
    assert_eq!(result.desired, Some(v1::StreamPosition { epoch: 1, seq: 7 }));
    let cause = v1::Cause {
        scope: "edge-1".to_owned(),
        lane: Lane::Down.as_wire(),
        epoch: 1,
        seq: 7,
    };
    assert_eq!(record.cause, Some(cause));
    assert_eq!(
        journal.reports("pump", "threshold").last().unwrap().1,
        double(45.5)
    );
}

#[tokio::test(start_paused = true)]
async fn the_intent_is_durable_before_the_device_is_written() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    pass(2).await;
    world
        .journal
        .with(|state| state.delay = Duration::from_millis(300));
    world.set(vec![wishing(45.5, 7)]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(threshold(&dial), 300, "the intent is not durable yet");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(threshold(&dial), 455);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_an_intent_nothing_is_written() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    pass(2).await;
    world
        .journal
        .with(|state| state.error = Some(JournalError::Full("test".to_owned())));
    world.set(vec![wishing(45.5, 7)]);
    pass(30).await;
    assert_eq!(threshold(&dial), 300);
    world.journal.with(|state| state.error = None);
    pass(40).await;
    assert_eq!(threshold(&dial), 455);
    let (journal, _) = world.stop().await;
    assert_eq!(outcomes(&journal), [(7, Outcome::Applied)]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_already_has_the_value_is_not_written_but_confirmed() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![wishing(30.0, 7)]);
    pass(5).await;
    let (journal, _) = world.stop().await;
    assert_eq!(outcomes(&journal), [(7, Outcome::Applied)]);
    assert_eq!(journal.intents("pump", "threshold").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turned_knob_is_turned_back() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![wishing(45.5, 7)]);
    pass(90).await;
    dial.device(1).with(|state| state.holding.insert(10, 999));
    pass(2).await;
    assert_eq!(threshold(&dial), 455);
    let (journal, _) = world.stop().await;
    assert_eq!(journal.intents("pump", "threshold").len(), 2);
    let drifted = journal.events("DesiredDrifted");
    assert_eq!(drifted.len(), 1);
    assert_eq!(drifted[0].1, "99.9 where 45.5 was held: writing it again");
    assert!(
        journal
            .reports("pump", "threshold")
            .iter()
            .any(|(_, v)| *v == double(99.9)),
        "it was so"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_lost_its_settings_gets_them_back_when_it_returns() {
    let dial = MemDial::default();
    let mut entry = wishing(45.5, 7);
    entry.spec.properties[1].collect_cycle_ms = 3_600_000;
    let world = World::in_memory(&dial, vec![entry]);
    pass(5).await;
    let device = dial.device(1);
    device.set_mood(Mood::Silent);
    pass(60).await;
    device.with(|state| state.holding.insert(10, 0));
    device.set_mood(Mood::Well);
    pass(16).await;
    assert_eq!(threshold(&dial), 455, "though its own cycle is an hour");
    let (journal, _) = world.stop().await;
    assert_eq!(journal.state_names("pump"), ["online", "offline", "online"]);
}

#[tokio::test(start_paused = true)]
async fn a_stubborn_device_is_not_hammered() {
    let dial = MemDial::default();
    dial.device(1).set_mood(Mood::Stubborn);
    let world = World::in_memory(&dial, vec![wishing(45.5, 7)]);
    pass(3600).await;
    let (journal, _) = world.stop().await;
    let intents = journal.intents("pump", "threshold");
    let seconds: Vec<u128> = intents.iter().map(|ms| ms / 1000).collect();
    assert_eq!(seconds[..6], [0, 1, 3, 7, 15, 31]);
    assert!((18..=22).contains(&intents.len()), "{seconds:?}");
    assert_eq!(
        journal.events("DesiredNotHeld").len(),
        intents.len(),
        "each is visible"
    );
    assert_eq!(
        journal.samples("pump", "temperature").len(),
        3601,
        "and reading goes on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_refuses_the_write_is_asked_again_later() {
    let dial = MemDial::default();
    dial.device(1).set_mood(Mood::ReadOnly);
    let world = World::in_memory(&dial, vec![wishing(45.5, 7)]);
    pass(20).await;
    dial.device(1).set_mood(Mood::Well);
    pass(20).await;
    let (journal, _) = world.stop().await;
    let outcomes = outcomes(&journal);
    assert_eq!(outcomes.last(), Some(&(7, Outcome::Applied)));
    assert_eq!(outcomes.len(), 6, "after 0, 1, 3, 7, 15 and 31 s");
    let error = &journal.results("pump", "threshold")[0].1.error;
    assert!(error.contains("Modbus exception 3"), "{error}");
    assert_eq!(journal.state_names("pump"), ["online"], "a refusal is an answer");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_refused_once_per_wish() {
    let dial = MemDial::default();
    let mut entry = sensor("pump", 1);
    wish(&mut entry, "threshold", double(250.0), 1);
    wish(&mut entry, "temperature", double(20.0), 2);
    wish(&mut entry, "colour", text("red"), 3);
    let world = World::in_memory(&dial, vec![entry.clone()]);
    pass(10).await;
    wish(&mut entry, "threshold", text("hot"), 4);
    world.set(vec![entry.clone()]);
    pass(10).await;
    let (journal, _) = world.stop().await;
    let errors = |journal: &MemJournal, property| -> Vec<String> {
        journal
            .results("pump", property)
            .into_iter()
            .map(|(_, result)| result.error)
            .collect()
    };
    assert_eq!(
        errors(&journal, "threshold"),
        [
            "threshold: 250 is outside 0 to 100 (the device model's range)",
            "threshold: \"hot\" is not a number"
        ]
    );
    assert_eq!(errors(&journal, "temperature"), ["temperature is read-only"]);
    assert_eq!(errors(&journal, "colour"), ["the device has no property colour"]);
    assert_eq!(counts(&journal).get("WriteIntent"), None);

    let world = World::in_memory(&dial, vec![journal.replay(entry)]);
    pass(10).await;
    let (journal, _) = world.stop().await;
    assert_eq!(counts(&journal).get("WriteResult"), None, "the log knows already");
}

#[tokio::test(start_paused = true)]
async fn a_wish_taken_back_is_no_longer_enforced() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![wishing(45.5, 7)]);
    pass(2).await;
    world.set(vec![sensor("pump", 1)]);
    pass(1).await;
    dial.device(1).with(|state| state.holding.insert(10, 999));
    pass(100).await;
    assert_eq!(threshold(&dial), 999);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_intent_and_result_is_reconciled() {
    let dial = MemDial::default();
    // The write reached the device, the result did not reach the log.
    dial.device(1).with(|state| state.holding.insert(10, 455));
    let world = World::in_memory(&dial, vec![wishing(45.5, 7)]);
    pass(2).await;
    let (journal, _) = world.stop().await;
    assert_eq!(outcomes(&journal), [(7, Outcome::Applied)]);
    // The write did not reach the device either.
    dial.device(1).with(|state| state.holding.insert(10, 300));
    let world = World::in_memory(&dial, vec![wishing(45.5, 7)]);
    pass(2).await;
    let (journal, _) = world.stop().await;
    assert_eq!(outcomes(&journal), [(7, Outcome::Applied)]);
    assert_eq!(threshold(&dial), 455);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_unknown_and_looked_at_again() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    pass(2).await;
    world
        .journal
        .with(|state| state.delay = Duration::from_millis(300));
    world.set(vec![wishing(45.5, 7)]);
    // While the intent becomes durable the device falls silent.
    tokio::time::sleep(Duration::from_millis(200)).await;
    dial.device(1).set_mood(Mood::Silent);
    pass(5).await;
    dial.device(1).set_mood(Mood::Well);
    pass(30).await;
    let (journal, _) = world.stop().await;
    assert_eq!(outcomes(&journal), [(7, Outcome::Unknown), (7, Outcome::Applied)]);
    assert_eq!(threshold(&dial), 455);
}

#[tokio::test(start_paused = true)]
async fn coils_and_wide_registers_are_written_too() {
    let dial = MemDial::default();
    dial.device(1)
        .with(|state| state.holding.extend([(20, 0), (21, 0)]));
    let mut valve = property("valve", Register::Coil, DataType::Boolean, 0, 1);
    let mut level = holding("level", DataType::Float, 20, 2);
    valve.writable = true;
    level.writable = true;
    let mut entry = entry("pump", "mem", 1, vec![valve, level]);
    wish(&mut entry, "valve", boolean(true), 1);
    wish(&mut entry, "level", double(23.4), 2);
    let world = World::in_memory(&dial, vec![entry]);
    pass(1).await;
    dial.device(1).with(|state| {
        assert!(state.coils[&0]);
        assert_eq!((state.holding[&20], state.holding[&21]), (0x41BB, 0x3333));
    });
    let (journal, _) = world.stop().await;
    let intent = |record: &ledge_edge::twin::NewRecord| matches!(record.payload, Payload::WriteIntent(_));
    assert_eq!(journal.records().iter().filter(|(_, r)| intent(r)).count(), 2);
}
