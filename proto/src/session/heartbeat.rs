//! Heartbeats: both ways, without an answer, more rarely while there is nothing to tell.
//!
//! Each end says with a heartbeat when the next one comes, so that the other knows what silence means. Idle, the
//! interval doubles from the shortest to the longest the cloud proposed; anything to tell brings the next heartbeat
//! within the shortest.

use std::collections::BTreeMap;
use std::time::Duration;

use super::SessionError;
use crate::limits;
use crate::v1;

type HeadKey = (String, u32);

#[derive(Debug)]
pub(super) struct Heartbeat {
    shortest: Duration,
    longest: Duration,
    /// What this end said last, and what the other did.
    mine: Duration,
    theirs: Duration,
    said: bool,
    busy: bool,
    last_heard: Duration,
    next: Duration,
    heads: BTreeMap<HeadKey, v1::LaneHead>,
    told: BTreeMap<HeadKey, v1::LaneHead>,
    peer: BTreeMap<HeadKey, v1::LaneHead>,
}

impl Heartbeat {
    pub(super) fn new(shortest: Duration, longest: Duration, now: Duration) -> Self {
        Heartbeat {
            shortest,
            longest: longest.max(shortest),
            mine: shortest,
            theirs: shortest,
            said: false,
            busy: true,
            last_heard: now,
            next: now + shortest,
            heads: BTreeMap::new(),
            told: BTreeMap::new(),
            peer: BTreeMap::new(),
        }
    }

    /// What this end said last.
    pub(super) fn mine(&self) -> Duration {
        self.mine
    }

    /// What the other end said last.
    pub(super) fn theirs(&self) -> Duration {
        self.theirs
    }

    /// Takes what the cloud proposes.
    pub(super) fn adopt(&mut self, shortest_ms: u64, longest_ms: u64) -> Result<(), SessionError> {
        for ms in [shortest_ms, longest_ms] {
            check(ms)?;
        }
        let shortest = Duration::from_millis(shortest_ms);
        self.shortest = shortest;
        self.longest = Duration::from_millis(longest_ms).max(shortest);
        self.mine = shortest;
        self.theirs = shortest;
        Ok(())
    }

    /// The shortest and the longest, milliseconds, for WELCOME.
    pub(super) fn proposal(&self) -> (u64, u64) {
        let ms = |interval: Duration| {
            u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).clamp(
                *limits::HEARTBEAT_RANGE_MS.start(),
                *limits::HEARTBEAT_RANGE_MS.end(),
            )
        };
        (ms(self.shortest), ms(self.longest))
    }

    /// The first heartbeat follows the handshake at once: it carries the heads, from which the peer tells its lag.
    pub(super) fn begin(&mut self, now: Duration) {
        self.next = now;
        self.said = false;
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.last_heard = now;
    }

    /// There is something to tell, or something was told.
    pub(super) fn stir(&mut self, now: Duration) {
        self.busy = true;
        self.next = self.next.min(now + self.shortest);
    }

    pub(super) fn set_heads(&mut self, heads: Vec<v1::LaneHead>, now: Duration) {
        for head in heads {
            let key = (head.scope.clone(), head.lane);
            let grew = self.heads.get(&key).map(|old| old.seq) != Some(head.seq);
            self.heads.insert(key, head);
            if grew {
                self.stir(now);
            }
        }
    }

    /// How long nothing was heard, once that is too long.
    pub(super) fn silence(&self, now: Duration) -> Option<Duration> {
        let silence = now.saturating_sub(self.last_heard);
        (silence >= self.theirs * 2).then_some(silence)
    }

    pub(super) fn gives_up_at(&self) -> Duration {
        self.last_heard + self.theirs * 2
    }

    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// The heartbeat that is due, if one is.
    pub(super) fn poll(&mut self, now: Duration) -> Option<v1::Ping> {
        if now < self.next {
            return None;
        }
        let before = self.mine;
        self.mine = if self.busy {
            self.shortest
        } else {
            (self.mine * 2).min(self.longest)
        };
        self.busy = false;
        self.next = now + self.mine;
        let says = !self.said || self.mine != before;
        self.said = true;
        let changed: Vec<_> = self
            .heads
            .iter()
            .filter(|(key, head)| self.told.get(*key).is_none_or(|told| differs(told, head)))
            .map(|(_, head)| head.clone())
            .collect();
        self.told.clone_from(&self.heads);
        Some(v1::Ping {
            heads: changed,
            heartbeat_ms: if says {
                u64::try_from(self.mine.as_millis()).unwrap_or(u64::MAX)
            } else {
                0
            },
        })
    }

    /// A heartbeat came; all the peer's heads, when any of them changed.
    pub(super) fn on_ping(&mut self, ping: v1::Ping) -> Result<Option<Vec<v1::LaneHead>>, SessionError> {
        if ping.heartbeat_ms != 0 {
            check(ping.heartbeat_ms)?;
            self.theirs = Duration::from_millis(ping.heartbeat_ms);
        }
        if ping.heads.is_empty() {
            return Ok(None);
        }
        for head in ping.heads {
            self.peer.insert((head.scope.clone(), head.lane), head);
            if self.peer.len() > limits::SESSION_MAX_STREAMS {
                return Err(SessionError::Protocol("too many heads in heartbeats".into()));
            }
        }
        Ok(Some(self.peer.values().cloned().collect()))
    }
}

/// Age alone is no news: the other end has a clock.
fn differs(told: &v1::LaneHead, head: &v1::LaneHead) -> bool {
    told.seq != head.seq || (told.oldest_unacked_ms == 0) != (head.oldest_unacked_ms == 0)
}

fn check(ms: u64) -> Result<(), SessionError> {
    if limits::HEARTBEAT_RANGE_MS.contains(&ms) {
        Ok(())
    } else {
        Err(SessionError::Protocol(format!("heartbeat of {ms} ms")))
    }
}
