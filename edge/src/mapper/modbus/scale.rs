//! The factor between what a register holds and the value it means.

use super::shape::ShapeError;

/// A factor between raw number and value. A fraction such as 0.1 is kept as a divisor, so that 3 * 0.1 is 0.3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    One,
    Times(f64),
    Over(f64),
}

impl Scale {
    pub(super) fn new(scale: f64) -> Result<Scale, ShapeError> {
        if !scale.is_finite() {
            return Err(ShapeError::Scale(scale));
        }
        let divisor = 1.0 / scale;
        Ok(if scale == 0.0 || scale == 1.0 {
            Scale::One
        } else if (divisor - divisor.round()).abs() <= divisor.abs() * 1e-12 {
            Scale::Over(divisor.round())
        } else {
            Scale::Times(scale)
        })
    }

    pub(super) fn apply(self, raw: f64) -> f64 {
        match self {
            Scale::One => raw,
            Scale::Times(factor) => raw * factor,
            Scale::Over(divisor) => raw / divisor,
        }
    }

    pub(super) fn undo(self, value: f64) -> f64 {
        match self {
            Scale::One => value,
            Scale::Times(factor) => value / factor,
            Scale::Over(divisor) => value * divisor,
        }
    }
}
