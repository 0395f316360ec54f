//! What the device does, as a function of its seed, the time and what was written.

use tokio_modbus::ExceptionCode;

/// The state of the device.
#[derive(Debug)]
pub(super) struct Machine {
    seed: u64,
    counter: u32,
    threshold: u16,
    setting: u16,
}

const TEMPERATURE: u16 = 0;
const HUMIDITY: u16 = 1;
const COUNTER_HIGH: u16 = 2;
const COUNTER_LOW: u16 = 3;
const THRESHOLD: u16 = 10;
const SETTING: u16 = 11;

/// Alarm threshold when the device is switched on, tenths of a degree.
const THRESHOLD_AT_START: u16 = 300;
/// One turn of the temperature, seconds.
const PERIOD_S: f64 = 120.0;

impl Machine {
    /// A device just switched on, whose counter last gave out `counter`.
    pub(super) fn new(seed: u64, counter: u32) -> Self {
        Machine {
            seed,
            counter,
            threshold: THRESHOLD_AT_START,
            setting: 0,
        }
    }

    /// `count` registers from `first`, and the counter's value if register 2 was read.
    pub(super) fn registers(
        &mut self,
        first: u16,
        count: u16,
        holding: bool,
        wall_us: i64,
    ) -> Result<(Vec<u16>, Option<u32>), ExceptionCode> {
        let end = first
            .checked_add(count)
            .ok_or(ExceptionCode::IllegalDataAddress)?;
        if count == 0 {
            return Err(ExceptionCode::IllegalDataValue);
        }
        let known = |address| match address {
            TEMPERATURE..=COUNTER_LOW => true,
            THRESHOLD | SETTING => holding,
            _ => false,
        };
        if !(first..end).all(known) {
            return Err(ExceptionCode::IllegalDataAddress);
        }
        let counted = (first..end).contains(&COUNTER_HIGH);
        if counted {
            // A value that was given out is never given out again: at the end the device refuses.
            self.counter = self
                .counter
                .checked_add(1)
                .ok_or(ExceptionCode::ServerDeviceFailure)?;
        }
        let [a, b, c, d] = self.counter.to_be_bytes();
        let words = (first..end)
            .map(|address| match address {
                TEMPERATURE => self.temperature(wall_us).cast_unsigned(),
                HUMIDITY => self.humidity(wall_us),
                COUNTER_HIGH => u16::from_be_bytes([a, b]),
                COUNTER_LOW => u16::from_be_bytes([c, d]),
                THRESHOLD => self.threshold,
                _ => self.setting,
            })
            .collect();
        Ok((words, counted.then_some(self.counter)))
    }

    /// Coils and discrete inputs: the alarm.
    pub(super) fn bits(&self, first: u16, count: u16, wall_us: i64) -> Result<Vec<bool>, ExceptionCode> {
        if (first, count) != (0, 1) {
            return Err(ExceptionCode::IllegalDataAddress);
        }
        Ok(vec![self.temperature(wall_us) > self.threshold.cast_signed()])
    }

    /// Whether `words` may be written from `address`.
    pub(super) fn check_writable(&self, address: u16, words: &[u16]) -> Result<(), ExceptionCode> {
        match (address, words.len()) {
            (THRESHOLD, 1 | 2) | (SETTING, 1) => Ok(()),
            _ => Err(ExceptionCode::IllegalDataAddress),
        }
    }

    /// Writes `words` from `address`, which were checked.
    pub(super) fn write(&mut self, address: u16, words: &[u16]) {
        for (address, word) in (address..).zip(words) {
            match address {
                THRESHOLD => self.threshold = *word,
                _ => self.setting = *word,
            }
        }
    }

    /// Tenths of a degree: 25 degrees, 8 up and down, and half a degree of noise.
    fn temperature(&self, wall_us: i64) -> i16 {
        tenths(250.0 + 80.0 * phase(wall_us, PERIOD_S).sin() + 5.0 * self.noise(wall_us, 0))
    }

    /// Tenths of a per cent: half, 10 up and down, and one per cent of noise.
    fn humidity(&self, wall_us: i64) -> u16 {
        tenths(500.0 + 100.0 * phase(wall_us, PERIOD_S * 1.7).cos() + 10.0 * self.noise(wall_us, 1))
            .cast_unsigned()
    }

    /// Between -1 and 1, another one every 100 ms.
    #[allow(clippy::cast_precision_loss, reason = "any number will do")]
    fn noise(&self, wall_us: i64, channel: u64) -> f64 {
        let tick = (wall_us / 100_000).cast_unsigned();
        let mixed = mix(self.seed ^ mix(tick ^ channel.rotate_left(32)));
        (mixed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[allow(clippy::cast_precision_loss, reason = "a phase")]
fn phase(wall_us: i64, period_s: f64) -> f64 {
    wall_us as f64 / 1e6 / period_s * std::f64::consts::TAU
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the values above are small, and the cast saturates"
)]
fn tenths(value: f64) -> i16 {
    value.round() as i16
}

/// The finaliser of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
