//! Where a property lies in a device, checked once when its specification arrives.

use ledge_proto::v1;
use ledge_proto::v1::modbus_visitor::Register;

use super::codec::{Codec, DecodeError, Raw};
use super::shape::ShapeError;
use super::wanted::EncodeError;

/// Most registers one request reads, by the Modbus specification.
pub const READ_MAX_REGISTERS: u16 = 125;
/// Most registers one request writes.
pub const WRITE_MAX_REGISTERS: u16 = 123;
/// Most coils or discrete inputs one request reads.
pub const READ_MAX_BITS: u16 = 2000;

/// One of the four tables of a Modbus device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Bits that can be written.
    Coils,
    /// Bits that cannot.
    DiscreteInputs,
    /// Registers that cannot be written.
    InputRegisters,
    /// Registers that can.
    HoldingRegisters,
}

impl Table {
    /// Whether it holds bits rather than registers.
    pub fn in_bits(self) -> bool {
        matches!(self, Table::Coils | Table::DiscreteInputs)
    }

    /// Whether a master may write it.
    pub fn writable(self) -> bool {
        matches!(self, Table::Coils | Table::HoldingRegisters)
    }

    /// Most registers or bits read at once.
    pub fn read_max(self) -> u16 {
        if self.in_bits() {
            READ_MAX_BITS
        } else {
            READ_MAX_REGISTERS
        }
    }

    fn name(self) -> &'static str {
        match self {
            Table::Coils => "coils",
            Table::DiscreteInputs => "discrete inputs",
            Table::InputRegisters => "input registers",
            Table::HoldingRegisters => "holding registers",
        }
    }
}

/// Addresses of one table that follow each other. `first + count` is at most 65536, `count` at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// Which table.
    pub table: Table,
    /// First address, from 0.
    pub first: u16,
    /// Number of registers or bits.
    pub count: u16,
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = u32::from(self.first) + u32::from(self.count) - 1;
        write!(f, "{} {} to {last}", self.table.name(), self.first)
    }
}

/// A property's place and encoding.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Where it lies.
    pub range: Range,
    /// Whether a desired value may be written: the model says so and the table allows it.
    pub writable: bool,
    codec: Codec,
}

/// Why a property cannot be served.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PointError {
    /// The property has no Modbus visitor.
    #[error("has no Modbus visitor")]
    NoVisitor,
    /// The visitor names no table.
    #[error("names no register: give coil, discrete input, input or holding")]
    NoRegister,
    /// Addresses go from 0 to 65535.
    #[error("addresses {0} and {1} more do not fit 0 to 65535")]
    Address(u32, u32),
    /// One request reads it, one writes it.
    #[error("{0} registers or bits at once: at most {1}")]
    TooMany(u32, u16),
    /// Type, count and scale do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl Point {
    /// Reads a property's specification.
    ///
    /// # Errors
    /// When it cannot be served as it is written.
    pub fn new(property: &v1::DeviceProperty) -> Result<Point, PointError> {
        let visitor = property.modbus.as_ref().ok_or(PointError::NoVisitor)?;
        let table = match visitor.register() {
            Register::Unspecified => return Err(PointError::NoRegister),
            Register::Coil => Table::Coils,
            Register::DiscreteInput => Table::DiscreteInputs,
            Register::Input => Table::InputRegisters,
            Register::Holding => Table::HoldingRegisters,
        };
        let limit = if visitor.limit == 0 {
            default_limit(property.data_type())
        } else {
            visitor.limit
        };
        let writable = property.writable && table.writable();
        let most = if writable && !table.in_bits() {
            WRITE_MAX_REGISTERS
        } else {
            table.read_max()
        };
        let count = u16::try_from(limit)
            .ok()
            .filter(|count| *count <= most)
            .ok_or(PointError::TooMany(limit, most))?;
        let outside = PointError::Address(visitor.offset, limit);
        let first = u16::try_from(visitor.offset).map_err(|_| outside.clone())?;
        if u32::from(first) + u32::from(count) > 65_536 {
            return Err(outside);
        }
        let limits = (property.minimum, property.maximum);
        let codec = Codec::new(
            property.data_type(),
            usize::from(count),
            table.in_bits(),
            visitor,
            limits,
        )?;
        Ok(Point {
            range: Range { table, first, count },
            writable,
            codec,
        })
    }

    /// The value that `raw` stands for.
    ///
    /// # Errors
    /// See [`Codec::decode`].
    pub fn decode(&self, raw: &Raw) -> Result<v1::Value, DecodeError> {
        self.codec.decode(raw)
    }

    /// What to write for `wanted`.
    ///
    /// # Errors
    /// See [`Codec::encode`].
    pub fn encode(&self, wanted: &v1::Value) -> Result<Raw, EncodeError> {
        self.codec.encode(wanted, self.range.table.in_bits())
    }

    /// Whether a device that holds `held` holds what `target` stands for.
    pub fn holds(&self, target: &Raw, held: &Raw) -> bool {
        self.codec.holds(target, held)
    }
}

/// What a missing limit means.
fn default_limit(data_type: v1::DataType) -> u32 {
    match data_type {
        v1::DataType::Float => 2,
        v1::DataType::Double => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(register: Register, offset: u32, limit: u32) -> v1::DeviceProperty {
        let mut visitor = v1::ModbusVisitor {
            offset,
            limit,
            ..Default::default()
        };
        visitor.set_register(register);
        let mut property = v1::DeviceProperty {
            writable: true,
            modbus: Some(visitor),
            ..Default::default()
        };
        property.set_data_type(v1::DataType::String);
        property
    }

    #[test]
    fn addresses_and_counts_are_checked() {
        assert!(Point::new(&property(Register::Holding, 65_535, 1)).is_ok());
        assert_eq!(
            Point::new(&property(Register::Holding, 65_535, 2)),
            Err(PointError::Address(65_535, 2))
        );
        assert_eq!(
            Point::new(&property(Register::Holding, 70_000, 1)),
            Err(PointError::Address(70_000, 1))
        );
        assert_eq!(
            Point::new(&property(Register::Holding, 0, 124)),
            Err(PointError::TooMany(124, 123))
        );
        assert!(Point::new(&property(Register::Input, 0, 125)).is_ok());
        assert_eq!(
            Point::new(&property(Register::Input, 0, u32::MAX))
                .unwrap_err()
                .to_string(),
            "4294967295 registers or bits at once: at most 125"
        );
        assert_eq!(
            Point::new(&property(Register::Unspecified, 0, 1)),
            Err(PointError::NoRegister)
        );
        assert_eq!(
            Point::new(&v1::DeviceProperty::default()),
            Err(PointError::NoVisitor)
        );
    }

    #[test]
    fn input_registers_are_never_writable() {
        assert!(Point::new(&property(Register::Holding, 0, 1)).unwrap().writable);
        assert!(!Point::new(&property(Register::Input, 0, 1)).unwrap().writable);
    }
}
