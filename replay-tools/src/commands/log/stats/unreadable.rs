//! What of a log cannot be read.

use std::collections::BTreeMap;

use ledge_log::{LogView, ReadError};
use ledge_proto::ids::{Seq, StreamKey};
use serde_json::json;

use crate::human;

/// Damage, and the records in it.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    /// Damaged blocks.
    pub(super) blocks: u64,
    /// First and last of each stretch.
    records: BTreeMap<StreamKey, Vec<(u64, u64)>>,
}

impl Unreadable {
    /// Looks for the records in damaged blocks: those the index has, and those that opening the log found missing.
    pub(super) fn find(&mut self, view: &LogView) -> Result<(), ReadError> {
        for info in view.streams() {
            let mut reader = view.read_stream(&info.key, Seq(info.first_seq.0.saturating_sub(1)));
            loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(ReadError::Jump { .. }) => reader.skip_jump(),
                    Err(err @ ReadError::Damaged { .. }) => {
                        let skipped = reader.skip_damage().ok_or(err)?;
                        self.add(&info.key, skipped.first.0, skipped.last.0);
                    }
                    Err(err) => return Err(err),
                }
            }
        }
        for lost in view.quarantined() {
            self.add(&lost.key, lost.first.0, lost.last.0);
        }
        Ok(())
    }

    fn add(&mut self, key: &StreamKey, first: u64, last: u64) {
        let of = self.records.entry(key.clone()).or_default();
        if of.iter().any(|(from, to)| *from <= first && last <= *to) {
            return;
        }
        match of.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => of.push((first, last)),
        }
    }

    fn stretches(&self) -> impl Iterator<Item = (&StreamKey, u64, u64)> {
        let all = self.records.iter();
        all.flat_map(|(key, of)| of.iter().map(move |(first, last)| (key, *first, *last)))
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let of = |(key, first, last): (&StreamKey, u64, u64)| {
            json!({
                "stream": key.id.to_string(), "incarnation": key.incarnation.to_string(),
                "first_seq": first, "last_seq": last, "records": last - first + 1,
            })
        };
        json!({"blocks": self.blocks, "records": self.stretches().map(of).collect::<Vec<_>>()})
    }

    pub(super) fn lines(&self) -> Vec<String> {
        if self.blocks == 0 {
            return Vec::new();
        }
        let many = human::plural(self.blocks, "block");
        let mut lines = vec![format!("\n{many} cannot be read; `ledge log verify` says where")];
        lines.extend(
            self.stretches()
                .map(|(key, first, last)| format!("  {} seq {first} to {last}", key.id)),
        );
        lines
    }
}
