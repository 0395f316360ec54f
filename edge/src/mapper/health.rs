//! Whether a device answers, and when one that does not is asked again.

use std::time::Duration;

use tokio::time::Instant;

/// First and longest delay between two attempts to reach a device that does not answer.
const PROBE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What a device's state is called in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It answers.
    Online,
    /// It does not.
    Offline,
    /// It answers what is no answer, or its specification cannot be used.
    Unhealthy,
    /// Nothing was asked.
    Unknown,
}

impl Condition {
    /// As written in `DeviceState` records.
    pub(super) fn name(self) -> &'static str {
        match self {
            Condition::Online => "online",
            Condition::Offline => "offline",
            Condition::Unhealthy => "unhealthy",
            Condition::Unknown => "unknown",
        }
    }

    /// The reason given in the event that tells of the change.
    pub(super) fn event(self) -> &'static str {
        match self {
            Condition::Online => "DeviceOnline",
            Condition::Offline => "DeviceUnreachable",
            Condition::Unhealthy => "DeviceUnhealthy",
            Condition::Unknown => "DeviceUnknown",
        }
    }
}

/// The state of one device.
#[derive(Debug)]
pub(super) struct Health {
    /// As last reported, perhaps before a restart.
    reported: Option<String>,
    condition: Option<Condition>,
    failures: u32,
    probe_at: Option<Instant>,
}

impl Health {
    /// Starts from the state in the log.
    pub(super) fn new(reported: Option<String>) -> Self {
        Health {
            reported,
            condition: None,
            failures: 0,
            probe_at: None,
        }
    }

    /// Not known to be anything but online.
    pub(super) fn may_be_online(&self) -> bool {
        matches!(self.condition, None | Some(Condition::Online))
    }

    /// When to ask again, while it does not answer.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// It answered. Says whether it had not before.
    pub(super) fn answered(&mut self) -> bool {
        self.failures = 0;
        self.probe_at = None;
        self.condition.replace(Condition::Online) != Some(Condition::Online)
    }

    /// It did not answer, or nonsense. Sets when it is asked again.
    pub(super) fn failed(&mut self, condition: Condition, now: Instant) {
        let growth = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.probe_at = Some(now + PROBE.0.saturating_mul(growth).min(PROBE.1));
        self.condition = Some(condition);
    }

    /// It cannot be asked as long as its specification is what it is.
    pub(super) fn cannot_ask(&mut self, condition: Condition) {
        self.condition = Some(condition);
        self.probe_at = None;
    }

    /// Something about it changed: whatever is known is to be found out again, now.
    pub(super) fn forget(&mut self) {
        self.failures = 0;
        self.probe_at = None;
        self.condition = None;
    }

    /// The condition, when it is not the one last reported. Takes it as reported.
    pub(super) fn news(&mut self) -> Option<Condition> {
        let condition = self.condition?;
        if self.reported.as_deref() == Some(condition.name()) {
            return None;
        }
        self.reported = Some(condition.name().to_owned());
        Some(condition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_news_also_after_a_restart() {
        let now = Instant::now();
        let mut health = Health::new(Some("online".to_owned()));
        assert!(health.answered());
        assert_eq!(health.news(), None, "online before the restart");
        health.failed(Condition::Offline, now);
        assert_eq!(health.news(), Some(Condition::Offline));
        health.failed(Condition::Offline, now);
        assert_eq!(health.news(), None);
        assert!(health.answered());
        assert_eq!(health.news(), Some(Condition::Online));
        assert!(!health.answered());
    }

    #[test]
    fn a_silent_device_is_asked_less_and_less_often() {
        let now = Instant::now();
        let mut health = Health::new(None);
        let delays: Vec<u64> = (0..100)
            .map(|_| {
                health.failed(Condition::Offline, now);
                health.probe_at().unwrap().duration_since(now).as_secs()
            })
            .collect();
        assert_eq!(delays[..6], [1, 2, 4, 8, 15, 15]);
        assert_eq!(delays[99], 15);
        health.answered();
        assert_eq!(health.probe_at(), None);
    }
}
