//! Values that stay the same: every reading is accounted for, few records are written.

use std::time::Duration;

use ledge_edge::mapper::MapperOptions;
use ledge_edge::twin::value::double;
use ledge_proto::record::{Payload, property_key};
use ledge_proto::v1;

use crate::support::*;

/// What is recorded of the temperature: milliseconds since start of the first and the last reading, how many, and the value.
fn told(journal: &MemJournal) -> Vec<(u64, u64, u64, v1::Value)> {
    let key = property_key("default", "pump", "temperature");
    let of_it = journal
        .records()
        .into_iter()
        .filter(|(_, record)| record.key == key);
    of_it
        .filter_map(|(_, record)| {
            let at = record.stamp.mono_us / 1000;
            match record.payload {
                Payload::Sample(sample) => Some((at, at, 1, sample.value.unwrap())),
                Payload::SampleRun(run) => Some((at - run.span_us / 1000, at, run.count, run.value.unwrap())),
                _ => None,
            }
        })
        .collect()
}

fn quiet(dial: &MemDial) -> World {
    let dial = dial.clone();
    World::start(
        MemJournal::default(),
        vec![sensor("pump", 1)],
        |options: &mut MapperOptions| {
            options.dial = std::sync::Arc::new(dial);
            options.unchanged.samples = Duration::from_secs(300);
            options.unchanged.reports = Duration::from_secs(300);
        },
    )
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_change_is_a_dozen_records_that_count_every_reading() {
    let dial = MemDial::default();
    let world = quiet(&dial);
    pass(3599).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Stopping in order records what was only counted.
    let (journal, _) = world.stop().await;
    let told = told(&journal);
    assert_eq!(told.len(), 13, "{told:?}");
    assert_eq!(told.iter().map(|(_, _, count, _)| count).sum::<u64>(), 3600);
    assert!(told.iter().all(|(.., value)| *value == double(23.5)));
    // Nothing between them: each begins one cycle after the last.
    for pair in told.windows(2) {
        assert_eq!(pair[1].0, pair[0].1 + 1000, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_ends_the_run_and_comes_after_it() {
    let dial = MemDial::default();
    let world = quiet(&dial);
    pass(9).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    dial.device(1).with(|state| state.input.insert(0, 240));
    pass(3).await;
    let (journal, _) = world.stop().await;
    assert_eq!(
        told(&journal),
        [
            (0, 0, 1, double(23.5)),
            (1000, 9000, 9, double(23.5)),
            (10_000, 10_000, 1, double(24.0)),
            (11_000, 12_000, 2, double(24.0)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_goes_silent_leaves_the_run_before_the_event() {
    let dial = MemDial::default();
    let world = quiet(&dial);
    pass(9).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    dial.device(1).set_mood(Mood::Silent);
    pass(30).await;
    let places = |records: &[_], is: &dyn Fn(&Payload) -> bool| {
        let records: &[(ledge_proto::ids::Lane, ledge_edge::twin::NewRecord)] = records;
        records.iter().position(|(_, record)| is(&record.payload))
    };
    let records = world.journal.records();
    let run = places(&records, &|payload| matches!(payload, Payload::SampleRun(_)));
    let event = places(
        &records,
        &|payload| matches!(payload, Payload::DeviceEvent(event) if event.reason == "DeviceUnreachable"),
    );
    assert!(run.unwrap() < event.unwrap(), "{}", world.journal.show());
    // The first reading afterwards is a sample, although it says the same.
    dial.device(1).set_mood(Mood::Well);
    pass(60).await;
    let (journal, _) = world.stop().await;
    let told = told(&journal);
    assert_eq!((told[1].1, told[1].2), (9000, 9), "{told:?}");
    assert_eq!(told[2].2, 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_taken_away_leaves_its_run() {
    let dial = MemDial::default();
    let world = quiet(&dial);
    pass(9).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.set(Vec::new());
    pass(5).await;
    let counted = |journal: &MemJournal| told(journal).iter().map(|(_, _, count, _)| count).sum::<u64>();
    assert_eq!(counted(&world.journal), 10);
    world.stop().await;
}
