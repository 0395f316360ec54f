//! Frames this end has lost, asked for from the other end.

use std::collections::BTreeMap;

use super::{Event, Message, Phase, Session, SessionError, key_of};
use crate::ids::{Seq, StreamKey};
use crate::limits;
use crate::v1;

/// Requests that are open.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    last_id: u64,
    ours: BTreeMap<u64, (StreamKey, Seq, Seq)>,
    theirs: usize,
}

impl Fetches {
    /// One of ours was answered; whether it was open.
    pub(super) fn done(&mut self, id: u64) -> bool {
        self.ours.remove(&id).is_some()
    }
}

impl Session {
    /// Asks the peer for records of `key` that were lost here: either [`Event::NotHeld`] comes, or frames do, on a
    /// stream of their own, which [`Session::fetches`] lets in. Names the request; `None` when the session is not
    /// open, or too many requests are.
    pub fn fetch(&mut self, key: &StreamKey, first: Seq, last: Seq) -> Option<u64> {
        if self.phase != Phase::Open || self.fetches.ours.len() >= limits::SESSION_MAX_FETCHES || first > last
        {
            return None;
        }
        self.fetches.last_id += 1;
        let id = self.fetches.last_id;
        self.fetches.ours.insert(id, (key.clone(), first, last));
        self.out.push_back(Message::Fetch(v1::Fetch {
            id,
            scope: key.id.scope.as_wire().to_owned(),
            lane: key.id.lane.as_wire(),
            incarnation: key.incarnation.0.to_vec(),
            first_seq: first.0,
            last_seq: last.0,
        }));
        Some(id)
    }

    /// Whether a frame that holds the records `first` to `last` of `key` was asked for: it may fill what was lost.
    pub fn fetches(&self, key: &StreamKey, first: Seq, last: Seq) -> bool {
        self.phase == Phase::Open
            && self
                .fetches
                .ours
                .values()
                .any(|(asked, from, to)| asked == key && first <= *to && last >= *from)
    }

    /// What was asked for has arrived.
    pub fn handle_fetched(&mut self, id: u64) {
        self.fetches.done(id);
    }

    /// The frames the peer asked for with [`Event::Fetch`] were sent.
    pub fn handle_fetch_sent(&mut self) {
        self.fetches.theirs = self.fetches.theirs.saturating_sub(1);
    }

    /// The frames the peer asked for with [`Event::Fetch`] are not held here.
    pub fn refuse_fetch(&mut self, id: u64) {
        self.handle_fetch_sent();
        self.out.push_back(Message::NotHeld(v1::NotHeld { id }));
    }

    pub(super) fn on_fetch(&mut self, fetch: &v1::Fetch) -> Result<(), SessionError> {
        let key = key_of(&fetch.scope, fetch.lane, &fetch.incarnation)?;
        let (first, last) = (Seq(fetch.first_seq), Seq(fetch.last_seq));
        // Only what one of the two ends writes, and so the other may hold: never another node's.
        let between_us =
            key.id.lane.is_replicated() && (self.sends.contains(&key) || self.accepts.contains(&key));
        if !between_us || first > last || first == Seq::ZERO {
            return Err(SessionError::Protocol(format!(
                "FETCH of {key} from {first} to {last}"
            )));
        }
        self.fetches.theirs += 1;
        if self.fetches.theirs > limits::SESSION_MAX_FETCHES {
            return Err(SessionError::Protocol("too many FETCH requests at once".into()));
        }
        self.events.push_back(Event::Fetch {
            id: fetch.id,
            key,
            first,
            last,
        });
        Ok(())
    }
}
