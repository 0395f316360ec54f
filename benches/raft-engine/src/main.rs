//! Writes to raft-engine from many threads, each with one record outstanding, for as long as it is told.
//!
//! `raft-engine-load DIR THREADS BYTES` prints `ready`. For each line `MILLISECONDS` it reads, it writes that long and
//! prints `RECORDS MICROSECONDS`. It ends with its input.

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

/// An entry is its index, then the record.
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let mut index = [0; 8];
        index.copy_from_slice(&entry.value[..8]);
        u64::from_le_bytes(index)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, threads, bytes] = args.as_slice() else {
        return Err("usage: raft-engine-load DIR THREADS BYTES".into());
    };
    let (threads, bytes): (u64, usize) = (threads.parse()?, bytes.parse()?);
    // As after some time in use: files that were written before are written over.
    let engine = Engine::open(Config {
        dir: dir.clone(),
        prefill_for_recycle: true,
        prefill_limit: Some(ReadableSize::mb(1024)),
        ..Config::default()
    })?;
    println!("ready");
    let mut written = vec![0; usize::try_from(threads)?];
    for line in std::io::stdin().lock().lines() {
        let length = Duration::from_millis(line?.trim().parse()?);
        let before: u64 = written.iter().sum();
        let over = AtomicBool::new(false);
        let began = Instant::now();
        let failed = std::thread::scope(|scope| {
            let writers: Vec<_> = (1..)
                .zip(&mut written)
                .map(|(region, last)| {
                    let (engine, over) = (&engine, &over);
                    scope.spawn(move || write(engine, region, bytes, last, over))
                })
                .collect();
            std::thread::sleep(length);
            over.store(true, Ordering::Relaxed);
            writers.into_iter().any(|writer| !matches!(writer.join(), Ok(Ok(()))))
        });
        if failed {
            return Err("a writer failed".into());
        }
        let records = written.iter().sum::<u64>() - before;
        println!("{records} {}", began.elapsed().as_micros());
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Writes record after record, each made durable before the next.
fn write(engine: &Engine, region: u64, bytes: usize, last: &mut u64, over: &AtomicBool) -> raft_engine::Result<()> {
    let mut batch = LogBatch::with_capacity(1);
    while !over.load(Ordering::Relaxed) {
        let mut value = vec![0xa5; 8 + bytes];
        value[..8].copy_from_slice(&(*last + 1).to_le_bytes());
        let mut entry = BytesValue::new();
        entry.value = value;
        batch.add_entries::<Indexed>(region, &[entry])?;
        engine.write(&mut batch, true)?;
        *last += 1;
    }
    Ok(())
}
