//! How a device is reached.

use std::fmt;

use ledge_proto::v1;
use ledge_proto::v1::modbus_device::Transport;

/// The other end of a connection. Devices with the same address share one connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A TCP server.
    Tcp {
        /// Name or IP address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A serial line.
    Serial(SerialLine),
}

/// A serial line and its settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialLine {
    /// Path of the device file.
    pub path: String,
    /// Bits per second.
    pub baud_rate: u32,
    /// Parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

/// The parity bit of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Even.
    Even,
    /// Odd.
    Odd,
}

/// Why a device's address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The specification has no Modbus part, or neither TCP nor RTU in it.
    #[error("the device has no Modbus address: give a TCP host and port, or a serial line")]
    Missing,
    /// TCP without a host, or a port outside 1 to 65535.
    #[error("`{host}` port {port} is not a TCP address")]
    Tcp {
        /// As given.
        host: String,
        /// As given.
        port: u32,
    },
    /// A serial setting that does not exist.
    #[error("serial line {path}: {setting} cannot be {value}")]
    Serial {
        /// As given.
        path: String,
        /// Which setting.
        setting: &'static str,
        /// As given.
        value: String,
    },
    /// Units are numbered 0 to 247 (255 over TCP), 0 being broadcast on a serial line.
    #[error("unit id {0} is outside {1}")]
    Unit(u32, &'static str),
    /// Another device uses the line with other settings.
    #[error("serial line {0} is in use with other settings")]
    Conflict(String),
}

/// Baud rate used when the specification gives none.
const DEFAULT_BAUD_RATE: u32 = 9600;

impl Address {
    /// Reads where a device is, and its unit identifier there.
    ///
    /// # Errors
    /// When the specification cannot be used as it is written.
    pub fn new(spec: &v1::DeviceSpec) -> Result<(Address, u8), AddressError> {
        let modbus = spec.modbus.as_ref().ok_or(AddressError::Missing)?;
        match modbus.transport.as_ref().ok_or(AddressError::Missing)? {
            Transport::Tcp(tcp) => {
                let port = u16::try_from(tcp.port).ok().filter(|port| *port != 0);
                match (port, tcp.host.trim()) {
                    (Some(port), host) if !host.is_empty() => {
                        let unit = unit(modbus.unit_id, |unit| unit <= 247 || unit == 255, "0 to 247")?;
                        Ok((
                            Address::Tcp {
                                host: host.to_owned(),
                                port,
                            },
                            unit,
                        ))
                    }
                    _ => Err(AddressError::Tcp {
                        host: tcp.host.clone(),
                        port: tcp.port,
                    }),
                }
            }
            Transport::Rtu(rtu) => {
                let unit = unit(
                    modbus.unit_id,
                    |unit| (1..=247).contains(&unit),
                    "1 to 247 (serial line)",
                )?;
                Ok((Address::Serial(serial_line(rtu)?), unit))
            }
        }
    }

    /// Whether both are the same line with other settings.
    pub fn conflicts_with(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Serial(a), Address::Serial(b)) => a.path == b.path && a != b,
            _ => false,
        }
    }
}

fn unit(unit: u32, allowed: impl Fn(u8) -> bool, range: &'static str) -> Result<u8, AddressError> {
    u8::try_from(unit)
        .ok()
        .filter(|unit| allowed(*unit))
        .ok_or(AddressError::Unit(unit, range))
}

fn serial_line(rtu: &v1::ModbusRtu) -> Result<SerialLine, AddressError> {
    let wrong = |setting, value: String| {
        Err(AddressError::Serial {
            path: rtu.path.clone(),
            setting,
            value,
        })
    };
    if rtu.path.trim().is_empty() {
        return wrong("path", "empty".to_owned());
    }
    let parity = match rtu.parity.to_ascii_lowercase().as_str() {
        "" | "none" => Parity::None,
        "even" => Parity::Even,
        "odd" => Parity::Odd,
        other => return wrong("parity", format!("`{other}`")),
    };
    // RTU frames are made of bytes; seven bits are for Modbus ASCII.
    if !matches!(rtu.data_bits, 0 | 8) {
        return wrong("data bits", rtu.data_bits.to_string());
    }
    let stop_bits = match rtu.stop_bits {
        0 | 1 => 1,
        2 => 2,
        other => return wrong("stop bits", other.to_string()),
    };
    let baud_rate = if rtu.baud_rate == 0 {
        DEFAULT_BAUD_RATE
    } else {
        rtu.baud_rate
    };
    Ok(SerialLine {
        path: rtu.path.trim().to_owned(),
        baud_rate,
        parity,
        stop_bits,
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Serial(line) => {
                let parity = match line.parity {
                    Parity::None => 'N',
                    Parity::Even => 'E',
                    Parity::Odd => 'O',
                };
                write!(
                    f,
                    "{} ({} 8{parity}{})",
                    line.path, line.baud_rate, line.stop_bits
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(transport: Transport, unit_id: u32) -> v1::DeviceSpec {
        let modbus = v1::ModbusDevice {
            transport: Some(transport),
            unit_id,
            timeout_ms: 0,
        };
        v1::DeviceSpec {
            modbus: Some(modbus),
            ..Default::default()
        }
    }

    fn tcp(host: &str, port: u32) -> Transport {
        Transport::Tcp(v1::ModbusTcp {
            host: host.to_owned(),
            port,
        })
    }

    fn rtu(parity: &str, baud_rate: u32) -> Transport {
        Transport::Rtu(v1::ModbusRtu {
            path: "/dev/ttyUSB0".to_owned(),
            baud_rate,
            parity: parity.to_owned(),
            ..Default::default()
        })
    }

    #[test]
    fn addresses_are_read_and_shown() {
        let (address, unit) = Address::new(&spec(tcp("plc-1", 502), 1)).unwrap();
        assert_eq!((address.to_string().as_str(), unit), ("plc-1:502", 1));
        let (address, _) = Address::new(&spec(rtu("even", 115_200), 7)).unwrap();
        assert_eq!(address.to_string(), "/dev/ttyUSB0 (115200 8E1)");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        assert_eq!(
            Address::new(&v1::DeviceSpec::default()),
            Err(AddressError::Missing)
        );
        assert!(Address::new(&spec(tcp("", 502), 1)).is_err());
        assert!(Address::new(&spec(tcp("plc-1", 70_000), 1)).is_err());
        assert!(Address::new(&spec(tcp("plc-1", 502), 300)).is_err());
        assert!(Address::new(&spec(tcp("plc-1", 502), 255)).is_ok());
        assert!(
            Address::new(&spec(rtu("none", 0), 0)).is_err(),
            "unit 0 is broadcast: nobody answers"
        );
        let err = Address::new(&spec(rtu("mark", 0), 1)).unwrap_err().to_string();
        assert_eq!(err, "serial line /dev/ttyUSB0: parity cannot be `mark`");
    }

    #[test]
    fn one_line_has_one_setting() {
        let line = |baud| Address::new(&spec(rtu("", baud), 1)).unwrap().0;
        assert!(line(9600).conflicts_with(&line(19_200)));
        assert!(!line(9600).conflicts_with(&line(0)));
    }
}
