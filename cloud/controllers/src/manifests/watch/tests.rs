use std::fs;

use super::*;

const FAST: WatchOptions = WatchOptions {
    debounce: Duration::from_millis(20),
    rescan: Duration::from_millis(200),
};

fn model(name: &str, unit: &str) -> String {
    format!(
        "apiVersion: devices.kubeedge.io/v1beta1\nkind: DeviceModel\nmetadata: {{name: {name}}}\nspec:\n  \
         properties: [{{name: t, type: INT, accessMode: ReadOnly, unit: {unit}}}]\n"
    )
}

/// Waits for a snapshot of which `wanted` holds, and fails with the last one seen.
async fn until(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    wanted: impl FnMut(&Arc<Snapshot>) -> bool,
) -> Arc<Snapshot> {
    let seen = snapshots.clone();
    match tokio::time::timeout(Duration::from_secs(20), snapshots.wait_for(wanted)).await {
        Ok(Ok(snapshot)) => snapshot.clone(),
        Ok(Err(_)) => panic!("the watcher stopped"),
        Err(_) => panic!("still waiting; last: {:?}", seen.borrow()),
    }
}

fn unit(snapshot: &Snapshot) -> Option<String> {
    let model = snapshot.objects.models.values().next()?;
    Some(model.properties["t"].unit.clone())
}

#[tokio::test]
async fn an_absent_directory_is_an_error_at_the_start() {
    let parent = tempfile::tempdir().unwrap();
    let err = Watcher::start(parent.path().join("none"), FAST)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        err.starts_with("cannot read the manifests directory ") && err.contains("none"),
        "{err}"
    );
}

#[tokio::test]
async fn changes_are_followed_and_mistakes_keep_what_was_good() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.yaml");
    fs::write(&file, model("m", "a")).unwrap();
    fs::write(directory.path().join(".hidden.yaml"), "[").unwrap();
    fs::write(directory.path().join("README.md"), "[").unwrap();
    fs::create_dir(directory.path().join("d.yaml")).unwrap();
    let watcher = Watcher::start(directory.path(), FAST).await.unwrap();
    let mut snapshots = watcher.subscribe();
    assert_eq!(unit(&snapshots.borrow_and_update()).as_deref(), Some("a"));
    assert_eq!(snapshots.borrow().problems, []);

    fs::write(&file, model("m", "b")).unwrap();
    until(&mut snapshots, |s| unit(s).as_deref() == Some("b")).await;

    // A broken file, a binary file, a file that is too long.
    for content in [
        &b"kind: ["[..],
        &[0xff, 0xfe, 0x00],
        &vec![b'a'; Limits::DEFAULT.max_bytes + 1],
    ] {
        fs::write(&file, content).unwrap();
        let snapshot = until(&mut snapshots, |s| !s.problems.is_empty()).await;
        assert_eq!(unit(&snapshot).as_deref(), Some("b"));
        assert!(!snapshot.objects.incomplete, "what the file held is known");
        fs::write(&file, model("m", "b")).unwrap();
        until(&mut snapshots, |s| s.problems.is_empty()).await;
    }

    // The way editors save: another file takes the name.
    let other = directory.path().join("m.tmp");
    fs::write(&other, model("m", "c")).unwrap();
    fs::rename(&other, &file).unwrap();
    until(&mut snapshots, |s| unit(s).as_deref() == Some("c")).await;

    fs::remove_file(&file).unwrap();
    until(&mut snapshots, |s| s.objects.models.is_empty()).await;
    watcher.stop().await;
}

#[tokio::test]
async fn a_directory_that_disappears_keeps_its_objects_and_may_come_back() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("manifests");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("m.yaml"), model("m", "a")).unwrap();
    let watcher = Watcher::start(&directory, FAST).await.unwrap();
    let mut snapshots = watcher.subscribe();

    let aside = parent.path().join("aside");
    fs::rename(&directory, &aside).unwrap();
    let snapshot = until(&mut snapshots, |s| !s.problems.is_empty()).await;
    assert_eq!(unit(&snapshot).as_deref(), Some("a"));
    assert!(
        snapshot.problems[0].message.contains("stays in force"),
        "{:?}",
        snapshot.problems
    );

    fs::write(aside.join("m.yaml"), model("m", "b")).unwrap();
    fs::rename(&aside, &directory).unwrap();
    let snapshot = until(&mut snapshots, |s| s.problems.is_empty()).await;
    assert_eq!(unit(&snapshot).as_deref(), Some("b"));
    // The new directory is watched like the old one.
    fs::write(directory.join("m.yaml"), model("m", "c")).unwrap();
    until(&mut snapshots, |s| unit(s).as_deref() == Some("c")).await;
}

#[tokio::test]
async fn nothing_is_emitted_when_nothing_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.yaml");
    fs::write(&file, model("m", "a")).unwrap();
    let watcher = Watcher::start(directory.path(), FAST).await.unwrap();
    let mut snapshots = watcher.subscribe();
    snapshots.mark_unchanged();
    fs::write(&file, model("m", "a")).unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(700), snapshots.changed()).await;
    assert!(waited.is_err(), "the same content was emitted again");
}
