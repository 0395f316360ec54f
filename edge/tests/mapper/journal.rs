//! Logs that are full, slow or broken.

use std::time::Duration;

use ledge_edge::twin::JournalError;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_full_log_holds_collection_back_and_nothing_is_lost() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let requests = dial.device(1).with(|state| state.requests);
    world
        .journal
        .with(|state| state.error = Some(JournalError::Full("test".to_owned())));
    // Longer than the queues last.
    pass(3600).await;
    let more = dial.device(1).with(|state| state.requests) - requests;
    assert!(
        more < 2 * 1000,
        "{more} requests: collection goes on with nowhere to put it"
    );
    world.journal.with(|state| state.error = None);
    pass(100).await;
    let (journal, stopped) = world.stop().await;
    assert_eq!(stopped.journal, None);
    let samples = journal.samples("pump", "temperature");
    let times: Vec<u128> = samples.iter().map(|(at, _)| at / 1000).collect();
    assert!(
        times.windows(2).all(|pair| pair[0] < pair[1]),
        "in order, none twice"
    );
    let skipped = journal.events("SamplesSkipped");
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    let told: usize = skipped[0].1.split(' ').next().unwrap().parse().unwrap();
    // Every tick of both properties was sampled or is told of.
    let taken = samples.len() + journal.samples("pump", "threshold").len();
    let ticks = 2 * (*times.last().unwrap() as usize + 1);
    assert_eq!(taken + told, ticks);
}

#[tokio::test(start_paused = true)]
async fn a_slow_log_does_not_slow_collection() {
    let dial = MemDial::default();
    let mut entry = sensor("fast", 1);
    entry.spec.properties.truncate(1);
    entry.spec.properties[0].collect_cycle_ms = 100;
    let world = World::start(MemJournal::default(), vec![entry], |options| {
        options.dial = std::sync::Arc::new(dial.clone());
    });
    world
        .journal
        .with(|state| state.delay = Duration::from_millis(1000));
    tokio::time::sleep(Duration::from_millis(59_950)).await;
    let (journal, _) = world.stop().await;
    assert_eq!(journal.samples("fast", "temperature").len(), 600);
    let appends = journal.with(|state| state.appends);
    assert!(
        appends < 70,
        "{appends} appends: records gather while the log is busy"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_log_ends_the_mappers() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    pass(5).await;
    let failed = JournalError::Failed("fsync: input/output error".to_owned());
    world.journal.with(|state| state.error = Some(failed.clone()));
    let stopped = tokio::time::timeout(Duration::from_secs(5), world.manager)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stopped.journal, Some(failed));
    assert_eq!(stopped.late, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_full_log_does_not_keep_the_mappers_from_stopping() {
    let dial = MemDial::default();
    let world = World::in_memory(&dial, vec![sensor("pump", 1)]);
    pass(5).await;
    world
        .journal
        .with(|state| state.error = Some(JournalError::Full("test".to_owned())));
    pass(2000).await;
    let begun = tokio::time::Instant::now();
    let (_, stopped) = world.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(stopped.late, Vec::<String>::new());
}
