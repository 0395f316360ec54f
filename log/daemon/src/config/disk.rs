//! The settings `ledge.disk`.

use std::time::Duration;

use ledge_retention::Degrade;
use ledge_retention::budget::{DiskOptions, Limit};
use ledge_yaml::units;

use super::{ConfigError, ConfigFile};

/// A reserve is a part of one segment.
const RESERVE_MAX_BYTES: u64 = 4 << 20;
const MAX_AGE_MIN: Duration = Duration::from_secs(60);
const MAX_AGE_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl ConfigFile {
    /// How much of the disk may be used; `flag` is `--disk-limit`.
    ///
    /// # Errors
    /// When the flag is wrong.
    pub fn disk(&mut self, flag: Option<&str>) -> Result<DiskOptions, ConfigError> {
        const LIMIT: &str = "ledge.disk.limit";
        const DEGRADE: &str = "ledge.disk.degrade";
        let default = DiskOptions::default();
        let limit = match flag {
            Some(text) => Some(limit(text).map_err(|message| ConfigError::flag("--disk-limit", message))?),
            None => match self.settings.text(LIMIT).as_deref().map(limit) {
                Some(Err(message)) => {
                    self.settings.problem(LIMIT, message, None);
                    None
                }
                Some(Ok(limit)) => Some(limit),
                None => None,
            },
        };
        let degrade = match self.settings.text(DEGRADE).map(|text| text.parse::<Degrade>()) {
            Some(Err(message)) => {
                self.settings.problem(DEGRADE, message, None);
                None
            }
            Some(Ok(degrade)) => Some(degrade),
            None => None,
        };
        let (day, range) = (Duration::from_secs(86_400), MAX_AGE_MIN..=MAX_AGE_MAX);
        Ok(DiskOptions {
            limit: limit.unwrap_or(default.limit),
            reserve_bytes: self
                .settings
                .bytes("ledge.disk.reserve", 0..=RESERVE_MAX_BYTES)
                .unwrap_or(default.reserve_bytes),
            max_age: self.settings.duration("ledge.disk.maxAge", day, range),
            degrade: degrade.unwrap_or(default.degrade),
        })
    }
}

/// A size, a percentage or `none`.
fn limit(text: &str) -> Result<Limit, String> {
    match units::bytes(text) {
        Ok(bytes) => Ok(Limit::Bytes(bytes)),
        Err(_) => text.trim().parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_size_a_share_or_none() {
        assert_eq!(limit("2GiB"), Ok(Limit::Bytes(2 << 30)));
        assert_eq!(limit(" 75% "), Ok(Limit::Percent(75)));
        assert_eq!(limit("None"), Ok(Limit::None));
        let err = limit("lots").unwrap_err();
        assert!(err.contains("2GiB, 80% or none"), "{err}");
    }
}
