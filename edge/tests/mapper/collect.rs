//! Collect and report cycles.

use std::time::Duration;

use ledge_edge::twin::value::{boolean, double, int, text};
use ledge_proto::v1::DataType;
use ledge_proto::v1::modbus_visitor::Register;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn every_cycle_gives_one_sample_of_every_property() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    pass(9).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (journal, _) = world.stop().await;
    for (property, value) in [("temperature", 23.5), ("threshold", 30.0)] {
        let samples = journal.samples("pump", property);
        let times: Vec<u128> = samples.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, (0..10).map(|s| s * 1000).collect::<Vec<_>>());
        assert!(samples.iter().all(|(_, v)| *v == double(value)), "{samples:?}");
        assert_eq!(
            journal.reports("pump", property),
            [(0, double(value))],
            "unchanged: reported once"
        );
    }
    assert_eq!(journal.state_names("pump"), ["online"]);
    assert_eq!(journal.events("DeviceOnline").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reports_follow_changes_and_the_report_cycle() {
    let dial = MemDial::default();
    let mut entry = sensor("pump", 1);
    entry.spec.properties[0].report_cycle_ms = 10_000;
    let world = World::in_memory(&dial, vec![entry]);
    let device = dial.device(1);
    tokio::time::sleep(Duration::from_millis(12_500)).await;
    device.with(|state| state.input.insert(0, 240));
    pass(20).await;
    let (journal, _) = world.stop().await;
    let reports = journal.reports("pump", "temperature");
    let expected = [(0, 23.5), (10_000, 23.5), (13_000, 24.0), (23_000, 24.0)];
    assert_eq!(reports, expected.map(|(at, v)| (at, double(v))));
    assert_eq!(
        journal.reports("pump", "threshold").len(),
        1,
        "report cycle 0: only on change"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_reports_only_what_changed() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    pass(3).await;
    let (journal, _) = world.stop().await;
    let entry = journal.replay(sensor("pump", 1));
    assert_eq!(entry.state.as_deref(), Some("online"));
    dial.device(1).with(|state| state.input.insert(0, 111));

    let world = World::in_memory(&dial, vec![entry]);
    pass(3).await;
    let (journal, _) = world.stop().await;
    assert_eq!(journal.reports("pump", "temperature"), [(0, double(11.1))]);
    assert_eq!(journal.reports("pump", "threshold"), []);
    assert_eq!(journal.states("pump"), [], "online before, online now");
}

#[tokio::test(start_paused = true)]
async fn every_table_and_type_is_read() {
    let dial = MemDial::default();
    let device = dial.device(1);
    device.with(|state| {
        state.holding.extend([
            (20, 0x4C65),
            (21, 0x6467),
            (22, 0x6500),
            (23, 0x41BB),
            (24, 0x3333),
        ]);
        state.input.extend([(2, 1), (3, 2)]);
    });
    let properties = vec![
        property("coil", Register::Coil, DataType::Boolean, 1, 1),
        property("discrete", Register::DiscreteInput, DataType::Boolean, 0, 1),
        property("counter", Register::Input, DataType::Int, 2, 2),
        property("name", Register::Holding, DataType::String, 20, 3),
        property("level", Register::Holding, DataType::Float, 23, 2),
    ];
    let world = World::in_memory(&dial, vec![entry("all", "mem", 1, properties)]);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (journal, _) = world.stop().await;
    for (property, value) in [
        ("coil", boolean(true)),
        ("discrete", boolean(true)),
        ("counter", int(65_538)),
        ("name", text("Ledge")),
        ("level", double(23.4)),
    ] {
        assert_eq!(journal.samples("all", property), [(0, value.clone())]);
        assert_eq!(journal.reports("all", property), [(0, value)]);
    }
    assert_eq!(
        device.with(|state| state.log.clone()),
        [(1, 1, 1), (2, 0, 1), (4, 2, 2), (3, 20, 5)],
        "neighbouring registers in one request"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_objects_to_reading_across_its_values_is_read_one_by_one() {
    let dial = MemDial::default();
    let device = dial.device(1);
    device.with(|state| state.unreadable_across = Some(11));
    let properties = vec![
        holding("a", DataType::Int, 10, 1),
        holding("b", DataType::Int, 11, 1),
    ];
    let world = World::in_memory(&dial, vec![entry("fussy", "mem", 1, properties)]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let (journal, _) = world.stop().await;
    assert_eq!(journal.samples("fussy", "a").len(), 2);
    assert_eq!(journal.samples("fussy", "b").len(), 2);
    assert_eq!(
        device.with(|state| state.requests),
        5,
        "one refused, then one each"
    );
    assert_eq!(journal.events("PropertyUnreadable"), []);
}

#[tokio::test(start_paused = true)]
async fn missed_ticks_are_skipped_and_told_of() {
    let dial = MemDial::default();
    dial.device(1).set_mood(Mood::Slow(Duration::from_millis(400)));
    let mut entry = sensor("slow", 1);
    entry.spec.properties[0].collect_cycle_ms = 100;
    entry.spec.properties.truncate(1);
    let world = World::in_memory(&dial, vec![entry]);
    pass(10).await;
    let (journal, _) = world.stop().await;
    let samples = journal.samples("slow", "temperature").len();
    assert!(
        (20..=26).contains(&samples),
        "{samples} samples of 400 ms in 10 s"
    );
    let events = journal.events("SamplesSkipped");
    assert_eq!(events.len(), 1, "at most one a minute");
}

#[tokio::test(start_paused = true)]
async fn reports_of_a_property_can_stay_on_the_edge() {
    let dial = MemDial::default();
    let mut entry = sensor("pump", 1);
    entry.spec.properties[0].report_to_cloud = false;
    let world = World::in_memory(&dial, vec![entry]);
    pass(3).await;
    let (journal, _) = world.stop().await;
    assert_eq!(journal.reports("pump", "temperature"), []);
    assert!(!journal.samples("pump", "temperature").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_property_that_cannot_be_read_does_not_keep_the_others_from_it() {
    let dial = MemDial::default();
    let mut entry = sensor("pump", 1);
    entry
        .spec
        .properties
        .push(holding("nowhere", DataType::Int, 500, 1));
    entry.spec.properties.push(holding("odd", DataType::Int, 10, 3));
    entry.spec.properties.push(holding("a/b", DataType::Int, 10, 1));
    let world = World::in_memory(&dial, vec![entry]);
    tokio::time::sleep(Duration::from_millis(5500)).await;
    dial.device(1).with(|state| state.holding.insert(500, 7));
    pass(2).await;
    let (journal, _) = world.stop().await;
    assert_eq!(journal.samples("pump", "temperature").len(), 8);
    let unreadable = journal.events("PropertyUnreadable");
    assert_eq!(unreadable.len(), 1, "told once: {unreadable:?}");
    assert!(unreadable[0].1.contains("Modbus exception 2"), "{unreadable:?}");
    assert_eq!(journal.events("PropertyReadable").len(), 1);
    assert_eq!(
        journal.samples("pump", "nowhere"),
        [(6000, int(7)), (7000, int(7))]
    );
    let invalid = journal.events("PropertyInvalid");
    assert_eq!(invalid.len(), 1);
    assert!(invalid[0].1.contains("limit 1, 2 or 4"), "{invalid:?}");
    assert_eq!(journal.events("PropertyNameInvalid").len(), 1);
    assert_eq!(journal.state_names("pump"), ["online"]);
}
