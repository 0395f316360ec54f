//! How fast telemetry leaves: a token bucket, and hours in which it may leave at all.
//!
//! State, commands and acknowledgements are never held back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Telemetry is handed to the connection in pieces of at most this size, so that a frame is spread over time too.
const PIECE_BYTES: u32 = 4096;
/// An earlier wall clock was never set: then hours mean nothing.
const CLOCK_NEVER_SET_BEFORE: Duration = Duration::from_secs(1_767_225_600); // 2026-01-01
const DAY_MINUTES: u32 = 24 * 60;
const LOOK_AT_CLOCK_EVERY: Duration = Duration::from_secs(30);

/// A limit in bytes of frames; packets and what is sent twice come on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second in the long run; at least 1.
    pub bytes_per_second: u32,
    /// Bytes that may go at once after a pause; at least 1.
    pub burst: u32,
}

/// A part of the day, UTC: from its first minute up to and without its last. `22:00-06:00` passes midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: u32,
    to: u32,
}

/// Not `HH:MM-HH:MM`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a part of a day, for example 22:00-06:00 (UTC)")]
pub struct HoursError(String);

impl std::str::FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let wrong = || HoursError(text.to_owned());
        let minute = |time: &str| {
            let (hours, minutes) = time.trim().split_once(':')?;
            let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            if !two_digits(hours) || !two_digits(minutes) {
                return None;
            }
            let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
            let minute = hours * 60 + minutes;
            (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
        };
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let hours = Hours {
            from: minute(from)
                .filter(|from| *from < DAY_MINUTES)
                .ok_or_else(wrong)?,
            to: minute(to).ok_or_else(wrong)?,
        };
        if hours.from == hours.to {
            return Err(wrong());
        }
        Ok(hours)
    }
}

impl std::fmt::Display for Hours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Hours { from, to } = self;
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

impl Hours {
    fn contain(self, minute: u32) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// How fast telemetry leaves. Clones share one bucket, so that a link that comes back finds it as it was.
#[derive(Debug, Clone)]
pub struct Drain {
    hours: Arc<[Hours]>,
    bucket: Option<Arc<Mutex<Bucket>>>,
    wall_clock: fn() -> SystemTime,
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Drain {
    /// No limit, at any hour.
    pub fn unlimited() -> Self {
        Drain::new(None, Vec::new())
    }

    /// At most `rate`, in `hours` only; no hours stand for the whole day.
    pub fn new(rate: Option<Rate>, hours: Vec<Hours>) -> Self {
        let bucket = |rate: Rate| {
            Arc::new(Mutex::new(Bucket {
                rate: Rate {
                    bytes_per_second: rate.bytes_per_second.max(1),
                    burst: rate.burst.max(1),
                },
                tokens: rate.burst.into(),
                filled: Instant::now(),
            }))
        };
        Drain {
            hours: hours.into(),
            bucket: rate.map(bucket),
            wall_clock: SystemTime::now,
        }
    }

    /// Takes the wall clock from `wall_clock`, for simulations.
    #[must_use]
    pub fn with_clock(self, wall_clock: fn() -> SystemTime) -> Self {
        Drain { wall_clock, ..self }
    }

    /// Largest piece to be handed over at once; `None` for whole frames.
    pub(super) fn piece(&self) -> Option<usize> {
        let bucket = self.bucket.as_ref()?;
        let burst = bucket.lock().unwrap_or_else(PoisonError::into_inner).rate.burst;
        Some(burst.min(PIECE_BYTES) as usize)
    }

    /// Waits until `bytes` (at most [`Drain::piece`]) may leave.
    pub(super) async fn allow(&self, bytes: usize) {
        while !self.open() {
            tokio::time::sleep(LOOK_AT_CLOCK_EVERY).await;
        }
        let Some(bucket) = &self.bucket else { return };
        loop {
            let wait = {
                let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
                bucket.take(bytes, Instant::now())
            };
            match wait {
                None => return,
                Some(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Whether this is one of the hours.
    fn open(&self) -> bool {
        let since = (self.wall_clock)().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default();
        if self.hours.is_empty() || since < CLOCK_NEVER_SET_BEFORE {
            return true;
        }
        let minute = since.as_secs() / 60 % u64::from(DAY_MINUTES);
        self.hours
            .iter()
            .any(|hours| hours.contain(u32::try_from(minute).unwrap_or(0)))
    }
}

impl Bucket {
    /// Takes `bytes`, or tells how long to wait before asking again.
    #[allow(clippy::cast_precision_loss, reason = "a piece is at most 4096 bytes")]
    fn take(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let rate = f64::from(self.rate.bytes_per_second);
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * rate;
        self.tokens = (self.tokens + gained).min(self.rate.burst.into());
        self.filled = now;
        let wanted = (bytes as f64).min(self.rate.burst.into());
        if self.tokens >= wanted {
            self.tokens -= wanted;
            return None;
        }
        Some(Duration::from_secs_f64((wanted - self.tokens) / rate).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_and_written_alike_and_nothing_else_is_taken() {
        for text in ["22:00-06:00", "00:00-24:00", "01:30-01:31"] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "22-06",
            "25:00-06:00",
            "22:60-06:00",
            "6:00-7:00",
            "06:00-06:00",
            "24:00-01:00",
        ] {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
    }

    #[test]
    fn hours_may_pass_midnight() {
        let night: Hours = "22:00-06:00".parse().unwrap();
        let day: Hours = "06:00-22:00".parse().unwrap();
        for minute in 0..DAY_MINUTES {
            assert_ne!(night.contain(minute), day.contain(minute), "{minute}");
        }
        assert!(night.contain(0) && night.contain(22 * 60) && !night.contain(6 * 60));
    }

    #[tokio::test(start_paused = true)]
    async fn what_leaves_stays_within_rate_and_burst() {
        let rate = Rate {
            bytes_per_second: 1000,
            burst: 500,
        };
        let drain = Drain::new(Some(rate), Vec::new());
        let began = Instant::now();
        let mut sent = 0;
        while sent < 20_000 {
            let piece = drain.piece().unwrap().min(300);
            drain.allow(piece).await;
            sent += piece;
            let most = 500.0 + began.elapsed().as_secs_f64() * 1000.0 + 1.0;
            assert!((sent as f64) <= most, "{sent} after {:?}", began.elapsed());
        }
        let took = began.elapsed().as_secs_f64();
        assert!((19.0..21.0).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn outside_its_hours_nothing_leaves_but_a_clock_that_was_never_set_is_no_hour() {
        let noon = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_014_400); // 12:00 UTC
        let hours = |text: &str| vec![text.parse().unwrap()];
        let closed = Drain::new(None, hours("22:00-06:00")).with_clock(noon);
        let waited = tokio::time::timeout(Duration::from_secs(3600), closed.allow(1)).await;
        assert!(waited.is_err());
        Drain::new(None, hours("11:00-13:00"))
            .with_clock(noon)
            .allow(1)
            .await;
        let unset = || SystemTime::UNIX_EPOCH + Duration::from_secs(12 * 3600);
        Drain::new(None, hours("22:00-06:00"))
            .with_clock(unset)
            .allow(1)
            .await;
    }
}
