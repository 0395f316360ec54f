//! Registers to values and back.
//!
//! As in KubeEdge's Modbus mapper, registers are big-endian with the high register first, `isRegisterSwap` reverses
//! the registers, `isSwap` the bytes of each, integers are signed, and `value = raw * scale`. Where KubeEdge refuses
//! a register count (a float or double of one register), the register is taken as a scaled 16-bit integer.

use ledge_proto::v1;
use ledge_proto::v1::DataType;
use ledge_proto::v1::value::Value as Kind;

use super::scale::Scale;
use super::shape::{Shape, ShapeError};
use super::wanted::{EncodeError, as_bool, as_exact_int, as_number, as_text, width, wrong_kind};
use crate::twin::value;

/// What a device holds at an address: whole registers, or single bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// Input or holding registers.
    Words(Vec<u16>),
    /// Coils or discrete inputs.
    Bits(Vec<bool>),
}

/// How the registers of a property become its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Codec {
    shape: Shape,
    /// Registers or bits.
    count: usize,
    scale: Scale,
    swap_bytes: bool,
    swap_registers: bool,
    minimum: Option<f64>,
    maximum: Option<f64>,
}

/// Why an answer is not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer or more registers or bits than asked for.
    #[error("{got} registers or bits where {wanted} were asked for")]
    Count {
        /// How many came.
        got: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// The registers of a string are not UTF-8.
    #[error("the registers do not hold text")]
    NotText,
}

impl Codec {
    /// The codec of a property whose value lies in `count` bits (`in_bits`) or registers.
    ///
    /// # Errors
    /// When type, count and scale do not fit together.
    pub fn new(
        data_type: DataType,
        count: usize,
        in_bits: bool,
        visitor: &v1::ModbusVisitor,
        (minimum, maximum): (Option<f64>, Option<f64>),
    ) -> Result<Codec, ShapeError> {
        let shape = if in_bits {
            Shape::of_bits(data_type, count)?
        } else {
            Shape::of_words(data_type, count)?
        };
        Ok(Codec {
            shape,
            count,
            scale: Scale::new(visitor.scale)?,
            swap_bytes: visitor.is_swap,
            swap_registers: visitor.is_register_swap,
            minimum,
            maximum,
        })
    }

    /// The value that `raw` stands for.
    ///
    /// # Errors
    /// When `raw` is not of this property's size, or not text where text was expected.
    pub fn decode(&self, raw: &Raw) -> Result<v1::Value, DecodeError> {
        match raw {
            Raw::Bits(bits) => self.decode_bits(bits),
            Raw::Words(words) => self.decode_words(words),
        }
    }

    /// The registers or bits that stand for `wanted`.
    ///
    /// # Errors
    /// When the value is of another kind, outside the model's range, or wider than the registers.
    pub fn encode(&self, wanted: &v1::Value, in_bits: bool) -> Result<Raw, EncodeError> {
        let words = match self.shape {
            Shape::Boolean => {
                let on = as_bool(wanted)?;
                if in_bits {
                    return Ok(Raw::Bits(vec![on]));
                }
                vec![u16::from(on)]
            }
            Shape::Int | Shape::ScaledInt => {
                let bits = if in_bits { self.count } else { self.count * 16 };
                let raw = self.raw_int(wanted, bits, in_bits)?;
                if in_bits {
                    return Ok(Raw::Bits((0..self.count).map(|i| raw >> i & 1 == 1).collect()));
                }
                words_of(&raw.to_be_bytes()[8 - self.count * 2..])
            }
            Shape::Float32 => {
                let raw = self.raw_number(wanted)?;
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "rounding to the nearest is what is wanted"
                )]
                let narrow = raw as f32;
                if !narrow.is_finite() {
                    return Err(width(wanted, format!("a 32-bit float (up to {:e})", f32::MAX)));
                }
                words_of(&narrow.to_be_bytes())
            }
            Shape::Float64 => words_of(&self.raw_number(wanted)?.to_be_bytes()),
            Shape::Text => {
                let text = as_text(wanted)?;
                self.padded(wanted, text.as_bytes())?
            }
            Shape::Bytes => match &wanted.value {
                Some(Kind::Bytes(bytes)) if bytes.len() == self.count * 2 => words_of(bytes),
                Some(Kind::Bytes(_)) => {
                    return Err(width(wanted, format!("exactly {} bytes", self.count * 2)));
                }
                _ => return Err(wrong_kind(wanted, "bytes")),
            },
        };
        Ok(Raw::Words(self.reorder(words)))
    }

    /// Whether a device that holds `held` holds what `target` was encoded from. Registers are compared, except
    /// where different registers stand for the same value (padding of text, zero and minus zero, true).
    pub fn holds(&self, target: &Raw, held: &Raw) -> bool {
        if target == held {
            return true;
        }
        let integer = matches!(self.shape, Shape::Int | Shape::ScaledInt | Shape::Bytes);
        match (self.decode(target), self.decode(held)) {
            (Ok(target), Ok(held)) => !integer && value::same(&target, &held),
            _ => false,
        }
    }

    fn decode_bits(&self, bits: &[bool]) -> Result<v1::Value, DecodeError> {
        self.check_count(bits.len())?;
        match self.shape {
            Shape::Boolean => Ok(value::boolean(bits.first().copied().unwrap_or_default())),
            // At most 32 bits: see `Shape::of_bits`.
            _ => {
                let raw = bits
                    .iter()
                    .rev()
                    .fold(0i64, |number, bit| number << 1 | i64::from(*bit));
                Ok(self.int_value(raw))
            }
        }
    }

    fn decode_words(&self, words: &[u16]) -> Result<v1::Value, DecodeError> {
        self.check_count(words.len())?;
        let words = self.reorder(words.to_vec());
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        Ok(match self.shape {
            Shape::Boolean => value::boolean(words.iter().any(|word| *word != 0)),
            Shape::Int => self.int_value(signed(&bytes)),
            #[allow(clippy::cast_precision_loss, reason = "the value is a double")]
            Shape::ScaledInt => value::double(self.scale.apply(signed(&bytes) as f64)),
            Shape::Float32 => {
                let raw = f32::from_be_bytes(array(&bytes));
                value::double(if self.scale == Scale::One {
                    shortest(raw)
                } else {
                    self.scale.apply(f64::from(raw))
                })
            }
            Shape::Float64 => value::double(self.scale.apply(f64::from_be_bytes(array(&bytes)))),
            Shape::Text => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                value::text(std::str::from_utf8(&bytes[..end]).map_err(|_| DecodeError::NotText)?)
            }
            Shape::Bytes => v1::Value {
                value: Some(Kind::Bytes(bytes)),
            },
        })
    }

    fn check_count(&self, got: usize) -> Result<(), DecodeError> {
        if got == self.count {
            Ok(())
        } else {
            Err(DecodeError::Count {
                got,
                wanted: self.count,
            })
        }
    }

    /// Swaps as the visitor says; its own inverse.
    fn reorder(&self, mut words: Vec<u16>) -> Vec<u16> {
        if self.swap_registers {
            words.reverse();
        }
        if self.swap_bytes {
            words.iter_mut().for_each(|word| *word = word.swap_bytes());
        }
        words
    }

    fn int_value(&self, raw: i64) -> v1::Value {
        if self.scale == Scale::One {
            return value::int(raw);
        }
        #[allow(clippy::cast_precision_loss, reason = "scaling is done in doubles")]
        let scaled = self.scale.apply(raw as f64).round();
        #[allow(clippy::cast_possible_truncation, reason = "saturates at the ends of i64")]
        value::int(scaled as i64)
    }

    /// The value in the model's range, as a number.
    fn checked_number(&self, wanted: &v1::Value) -> Result<f64, EncodeError> {
        let number = as_number(wanted)?;
        let low = self.minimum.is_some_and(|minimum| number < minimum);
        let high = self.maximum.is_some_and(|maximum| number > maximum);
        if low || high {
            let end = |end: Option<f64>| end.map_or("no limit".to_owned(), |end| end.to_string());
            let range = format!("{} to {}", end(self.minimum), end(self.maximum));
            return Err(EncodeError::Model {
                value: value::show(wanted),
                range,
            });
        }
        Ok(number)
    }

    fn raw_number(&self, wanted: &v1::Value) -> Result<f64, EncodeError> {
        let raw = self.scale.undo(self.checked_number(wanted)?);
        if raw.is_finite() {
            Ok(raw)
        } else {
            Err(width(wanted, "a 64-bit float".to_owned()))
        }
    }

    fn raw_int(&self, wanted: &v1::Value, bits: usize, unsigned: bool) -> Result<i64, EncodeError> {
        let number = self.checked_number(wanted)?;
        if self.shape == Shape::Int && number.fract() != 0.0 {
            return Err(wrong_kind(wanted, "a whole number"));
        }
        let (low, high) = if unsigned {
            (0, (1i64 << bits) - 1)
        } else {
            (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits))
        };
        let raw = match as_exact_int(wanted) {
            // Exact beyond 2^53.
            Some(exact) if self.scale == Scale::One => Some(exact),
            _ => {
                let raw = self.scale.undo(number).round();
                // 2^63 is a double and no i64: hence `<`.
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "compared with the ends of i64 first"
                )]
                (-(2f64.powi(63)) <= raw && raw < 2f64.powi(63)).then_some(raw as i64)
            }
        };
        raw.filter(|raw| (low..=high).contains(raw)).ok_or_else(|| {
            #[allow(clippy::cast_precision_loss, reason = "shown to people")]
            let (low, high) = (self.scale.apply(low as f64), self.scale.apply(high as f64));
            width(
                wanted,
                format!("{bits} bits (range {} to {})", low.min(high), low.max(high)),
            )
        })
    }

    fn padded(&self, wanted: &v1::Value, text: &[u8]) -> Result<Vec<u16>, EncodeError> {
        let room = self.count * 2;
        if text.len() > room {
            return Err(width(wanted, format!("{room} bytes")));
        }
        let mut bytes = text.to_vec();
        bytes.resize(room, 0);
        Ok(words_of(&bytes))
    }
}

/// Two, four or eight bytes, high byte first, with sign.
fn signed(bytes: &[u8]) -> i64 {
    let start = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        -1
    } else {
        0
    };
    bytes
        .iter()
        .fold(start, |number, byte| number << 8 | i64::from(*byte))
}

/// The bytes as an array; zeros where there are fewer. Counts are checked before.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

fn words_of(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

/// The shortest decimal number that means this float: 23.4 rather than 23.399999618530273, so that a desired 23.4
/// compares equal to what is reported.
fn shortest(raw: f32) -> f64 {
    raw.to_string().parse().unwrap_or_else(|_| f64::from(raw))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
