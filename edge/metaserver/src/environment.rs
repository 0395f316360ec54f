//! Clock and randomness for the protocol.

use std::time::{Duration, SystemTime};

use futures::future::{BoxFuture, FutureExt};
use ledge_kubeapi::Environment;

/// Characters of generated names: no vowels, and none that are mistaken for others.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The system's clock and random numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn now_us(&self) -> i64 {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn timer(&self, after_ms: u64) -> BoxFuture<'static, ()> {
        tokio::time::sleep(Duration::from_millis(after_ms)).boxed()
    }

    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn name_suffix(&self) -> String {
        let random = uuid::Uuid::new_v4();
        let bytes = random.as_bytes().iter().take(5);
        bytes
            .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
            .collect()
    }
}
