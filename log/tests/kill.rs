//! A real process appending to a real disk, killed with SIGKILL at no particular moment: whatever it said was
//! acknowledged must be there.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::*;
use ledge_log::{DiskStorage, Log, Options};
use ledge_proto::ids::{Lane, Seq};

const DIR: &str = "LEDGE_KILL_TEST_DIR";
const ROUNDS: u64 = 12;

fn open_on_disk(dir: &Path) -> Log {
    let options = Options {
        segment_bytes: 256 * 1024,
        ..Options::new(CLUSTER, "edge-1")
    };
    Log::open(Arc::new(DiskStorage), dir, options).unwrap().0
}

/// The child, which does nothing unless the test below starts it: four threads append until the end, and say so
/// line by line.
#[test]
fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let log = open_on_disk(Path::new(&dir));
    std::thread::scope(|scope| {
        for lane in [Lane::UpData, Lane::UpState, Lane::Down, Lane::UpData] {
            let log = &log;
            scope.spawn(move || {
                for n in 0.. {
                    let appended = log.append_blocking(&stream(lane), vec![record(n)]).unwrap();
                    let line = format!("acked {lane} {} {}\n", appended.last.seq, record(n).key);
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

#[test]
fn acknowledged_records_survive_kill_9() {
    let temp = tempfile::tempdir().unwrap();
    let mut acked: Vec<(String, u64, String)> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_appends_until_killed", "--nocapture"])
            .env(DIR, temp.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Where exactly it is killed is up to the scheduler; how far it gets differs from round to round.
        let wanted = 20 + round * 97;
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            seen += u64::from(note(&mut acked, &line));
            if seen == wanted {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= wanted, "the child died early in round {round}");
        let log = open_on_disk(temp.path());
        for lane in Lane::ALL {
            let all = read_all(&mut log.read_stream(&log.own_key(&stream(lane)), Seq::ZERO));
            for (_, seq, key) in acked.iter().filter(|(name, ..)| name == lane.name()) {
                let found = all.get(usize::try_from(*seq - 1).unwrap());
                assert_eq!(found, Some(&(Seq(*seq), key.clone())), "round {round}, {lane}");
            }
        }
        drop(log);
        let report = ledge_log::verify(&DiskStorage, temp.path()).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
    assert!(acked.len() > 1000);
}

/// Notes an acknowledgement; other output of the test runner is not one.
fn note(acked: &mut Vec<(String, u64, String)>, line: &str) -> bool {
    let Some(at) = line.find("acked ") else {
        return false;
    };
    let mut words = line[at..].split(' ').skip(1);
    let (Some(lane), Some(seq), Some(key), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return false; // Cut off by the kill.
    };
    let Ok(seq) = seq.parse() else { return false };
    acked.push((lane.to_owned(), seq, key.to_owned()));
    true
}
