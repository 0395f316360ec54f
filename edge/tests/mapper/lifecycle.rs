//! Devices come, change and go; the mappers stop.

use std::time::Duration;

use ledge_edge::twin::value::double;
use ledge_proto::v1::DataType;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn devices_come_and_go_with_the_table() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![]);
    pass(1).await;
    world.set(vec![sensor("a", 1), sensor("b", 2)]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.set(vec![sensor("b", 2)]);
    pass(3).await;
    world.set(vec![sensor("a", 1), sensor("b", 2)]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (journal, stopped) = world.stop().await;
    let times = |device| {
        journal
            .samples(device, "temperature")
            .into_iter()
            .map(|(at, _)| at)
            .collect::<Vec<_>>()
    };
    assert_eq!(times("a"), [1000, 2000, 3000, 6500]);
    assert_eq!(times("b"), [1000, 2000, 3000, 4000, 5000, 6000, 7000]);
    assert_eq!(stopped.late, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_changed_specification_is_taken_without_a_restart() {
    let dial = MemDial::default();
    dial.device(2).with(|state| state.input.insert(0, 100));
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut moved = sensor("pump", 2);
    moved.spec.properties[0].collect_cycle_ms = 500;
    moved.spec.properties.push(holding("extra", DataType::Int, 11, 1));
    world.set(vec![moved]);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let (journal, _) = world.stop().await;
    let samples = journal.samples("pump", "temperature");
    let expected = [(0, 23.5), (1000, 23.5), (1500, 10.0), (2000, 10.0), (2500, 10.0)];
    assert_eq!(samples, expected.map(|(at, v)| (at, double(v))));
    assert_eq!(journal.samples("pump", "extra").len(), 2);
    assert_eq!(journal.state_names("pump"), ["online"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_cannot_be_served_says_why_and_can_be_mended() {
    let dial = MemDial::default();
    let mut broken = sensor("pump", 1);
    broken.spec.modbus.as_mut().unwrap().unit_id = 900;
    let mut empty = sensor("empty", 2);
    empty.spec.properties.clear();
    let mut other = sensor("other", 3);
    other.spec.protocol = "opcua".to_owned();
    let world = World::in_memory(&dial, vec![broken, empty.clone(), other]);
    pass(5).await;
    world.set(vec![sensor("pump", 1), empty]);
    pass(5).await;
    let (journal, _) = world.stop().await;
    let states = journal.states("pump");
    assert_eq!(journal.state_names("pump"), ["unhealthy", "online"]);
    assert!(states[0].2.contains("unit id 900"), "{states:?}");
    assert_eq!(
        journal.states("empty"),
        [(0, "unknown".to_owned(), "no property can be read".to_owned())]
    );
    assert!(
        journal
            .records()
            .iter()
            .all(|(_, record)| !record.key.contains("other")),
        "another mapper's"
    );
}

#[tokio::test(start_paused = true)]
async fn devices_at_one_address_share_a_connection() {
    let dial = MemDial::default();
    let entries = (0..20).map(|i| sensor(&format!("d{i}"), 1)).collect();
    let world = World::in_memory(&dial, entries);
    pass(5).await;
    assert_eq!(dial.device(1).with(|state| state.dials), 1);
    let (journal, _) = world.stop().await;
    assert_eq!(journal.samples("d19", "temperature").len(), 6);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_request_under_way_and_no_longer() {
    let dial = MemDial::default();
    dial.device(1).set_mood(Mood::Slow(Duration::from_millis(450)));
    let world = World::in_memory(&dial, vec![sensor("pump", 1), sensor("quick", 2)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = tokio::time::Instant::now();
    let (journal, stopped) = world.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(stopped.late, Vec::<String>::new());
    assert_eq!(journal.samples("quick", "temperature").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_never_answers_is_left_behind_by_name() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    world
        .journal
        .with(|state| state.delay = Duration::from_secs(1_000_000));
    pass(5).await;
    let begun = tokio::time::Instant::now();
    let (_, stopped) = world.stop().await;
    assert!(begun.elapsed() <= Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(stopped.late, ["recorder up.data", "recorder up.state"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_run_twice_gives_the_same_records() {
    async fn run() -> String {
        let dial = MemDial::default();
        let entries = (1..8).map(|i| sensor(&format!("d{i}"), i)).collect();
        let world = World::in_memory(&dial, entries);
        pass(10).await;
        dial.device(3).set_mood(Mood::Silent);
        dial.device(4).set_mood(Mood::Closing);
        pass(60).await;
        dial.device(3).set_mood(Mood::Well);
        dial.device(4).set_mood(Mood::Well);
        pass(60).await;
        world.stop().await.0.show()
    }
    let (first, second) = (run().await, run().await);
    assert!(first == second, "the simulation is not deterministic");
}

#[tokio::test(start_paused = true)]
async fn a_device_whose_task_panics_is_served_again_and_the_others_do_not_notice() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("a", 1), sensor("b", 2)]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.panic.store(true, std::sync::atomic::Ordering::SeqCst);
    pass(18).await;
    assert!(!world.panic.load(std::sync::atomic::Ordering::SeqCst));
    let (journal, stopped) = world.stop().await;
    let counts = ["a", "b"].map(|device| journal.samples(device, "temperature").len());
    assert!(counts.contains(&21), "one was left alone: {counts:?}");
    let missed = 21 - counts.iter().min().unwrap();
    assert!(
        (9..=11).contains(&missed),
        "the other was away for ten seconds: {counts:?}"
    );
    assert_eq!(stopped.late, Vec::<String>::new());
}
