//! Which data types fit which number of registers or bits.

use ledge_proto::v1::DataType;

/// How a value lies in registers or bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One coil, or one register that is zero or not.
    Boolean,
    /// Signed integer of 16, 32 or 64 bits in registers; unsigned in coils, first coil lowest. Value is an int.
    Int,
    /// The same in registers, the value being a double.
    ScaledInt,
    Float32,
    Float64,
    Text,
    Bytes,
}

/// Why a property's data type, register count and scale do not fit together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// The mapper has no encoding for the type.
    #[error("data type {0} cannot be read from {1}")]
    Type(&'static str, &'static str),
    /// The type needs another number of registers or bits.
    #[error("{0} of {1} {2}: give {3}")]
    Count(&'static str, usize, &'static str, &'static str),
    /// Not a finite number.
    #[error("scale {0} is not a number")]
    Scale(f64),
}

/// Largest unsigned integer read from coils, bits.
const COIL_INT_MAX_BITS: usize = 32;

impl Shape {
    /// The shape of a type in `count` coils or discrete inputs.
    pub(super) fn of_bits(data_type: DataType, count: usize) -> Result<Shape, ShapeError> {
        match (data_type, count) {
            (DataType::Boolean, 1) => Ok(Shape::Boolean),
            (DataType::Boolean, _) => Err(ShapeError::Count("BOOLEAN", count, "bits", "limit 1")),
            (DataType::Int, 1..=COIL_INT_MAX_BITS) => Ok(Shape::Int),
            (DataType::Int, _) => Err(ShapeError::Count("INT", count, "bits", "limit 1 to 32")),
            _ => Err(ShapeError::Type(
                data_type.as_str_name(),
                "coils or discrete inputs (use BOOLEAN or INT)",
            )),
        }
    }

    /// The shape of a type in `count` registers.
    pub(super) fn of_words(data_type: DataType, count: usize) -> Result<Shape, ShapeError> {
        let wrong = |name, limits| Err(ShapeError::Count(name, count, "registers", limits));
        match (data_type, count) {
            (DataType::Boolean, 1) => Ok(Shape::Boolean),
            (DataType::Boolean, _) => wrong("BOOLEAN", "limit 1"),
            (DataType::Int, 1 | 2 | 4) => Ok(Shape::Int),
            (DataType::Int, _) => wrong("INT", "limit 1, 2 or 4 (16, 32 or 64 bits)"),
            (DataType::Float | DataType::Double, 1) => Ok(Shape::ScaledInt),
            (DataType::Float | DataType::Double, 2) => Ok(Shape::Float32),
            (DataType::Float | DataType::Double, 4) => Ok(Shape::Float64),
            (DataType::Float, _) => wrong("FLOAT", "limit 1 (scaled integer), 2 or 4"),
            (DataType::Double, _) => wrong("DOUBLE", "limit 1 (scaled integer), 2 or 4"),
            (DataType::String, _) => Ok(Shape::Text),
            (DataType::Bytes, _) => Ok(Shape::Bytes),
            _ => Err(ShapeError::Type(data_type.as_str_name(), "registers")),
        }
    }
}
