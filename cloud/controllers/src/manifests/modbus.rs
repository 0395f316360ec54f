//! Modbus: how a device is reached, and where a property's value is in it.
//!
//! Keys and their meaning are those of KubeEdge's Modbus mappers: `protocol.modbus`, `protocol.common` and
//! `propertyVisitors[].modbus` of v1alpha2, and the same keys, flat or nested, in `configData` of v1beta1. What a
//! device leaves out its model may say, key by key.

use ledge_proto::v1;
use ledge_proto::v1::modbus_device::Transport;
use ledge_proto::v1::modbus_visitor::Register;

use super::fields::{Faults, Fields};

/// Registers or bits are numbered from 0 to 65535.
const ADDRESSES: i64 = 65_536;
/// Most registers one request may read.
const MAX_REGISTERS: i64 = 125;
/// Most bits one request may read.
const MAX_BITS: i64 = 2000;
const DEFAULT_TCP_PORT: u32 = 502;
const DEFAULT_BAUD_RATE: u32 = 9600;
const DEFAULT_DATA_BITS: u32 = 8;
const DEFAULT_STOP_BITS: u32 = 1;
/// Answered by most devices reached over TCP, where the unit rarely matters.
const DEFAULT_TCP_UNIT: u32 = 1;

/// How a device is reached, as far as one object says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    mode: Option<Mode>,
    host: Option<String>,
    port: Option<u32>,
    path: Option<String>,
    baud_rate: Option<u32>,
    data_bits: Option<u32>,
    parity: Option<&'static str>,
    stop_bits: Option<u32>,
    unit_id: Option<u32>,
    timeout_ms: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tcp,
    Rtu,
}

/// Where a property's value is, as far as one object says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Visitor {
    register: Option<Register>,
    offset: Option<u32>,
    limit: Option<u32>,
    scale: Option<f64>,
    is_swap: Option<bool>,
    is_register_swap: Option<bool>,
}

impl Connection {
    /// Takes what `fields` says, and looks into the maps KubeEdge's versions nest it in.
    pub(super) fn decode(&mut self, fields: Fields<'_>, faults: &mut Faults) {
        let mut fields = fields.any_case();
        let small = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
        if let Some(text) = fields.text("communicateMode", faults) {
            self.mode = match text.to_ascii_uppercase().as_str() {
                "TCP" => Some(Mode::Tcp),
                "RTU" | "COM" => Some(Mode::Rtu),
                _ => {
                    let path = fields.path_of("communicateMode");
                    faults.error(fields.line, &path, format!("`{text}` is neither TCP nor RTU"));
                    None
                }
            };
        }
        for name in ["slaveID", "unitID"] {
            set(&mut self.unit_id, small(fields.int(name, 0..=247, faults)));
        }
        for name in ["ip", "host"] {
            let Some(text) = fields.text(name, faults) else {
                continue;
            };
            if is_host(text) {
                self.host = Some(text.to_owned());
            } else {
                let message = format!(
                    "`{}` is not a host name or IP address",
                    ledge_yaml::units::shown(text)
                );
                faults.error_with_hint(
                    fields.line,
                    &fields.path_of(name),
                    message,
                    "the port goes into `port`",
                );
            }
        }
        set(&mut self.port, small(fields.int("port", 1..=65_535, faults)));
        set(
            &mut self.path,
            fields.text("serialPort", faults).map(str::to_owned),
        );
        set(
            &mut self.baud_rate,
            small(fields.int("baudRate", 50..=4_000_000, faults)),
        );
        set(&mut self.data_bits, small(fields.int("dataBits", 5..=8, faults)));
        set(&mut self.stop_bits, small(fields.int("stopBits", 1..=2, faults)));
        set(
            &mut self.timeout_ms,
            small(fields.int("timeout", 0..=600_000, faults)),
        );
        if let Some(text) = fields.text("parity", faults) {
            self.parity = match text.to_ascii_lowercase().as_str() {
                "none" | "n" => Some("none"),
                "even" | "e" => Some("even"),
                "odd" | "o" => Some("odd"),
                _ => {
                    let message = format!("`{text}` is not a parity: none, even or odd");
                    faults.error(fields.line, &fields.path_of("parity"), message);
                    None
                }
            };
        }
        for name in ["modbus", "common", "com", "rtu", "tcp"] {
            if let Some(inner) = fields.map(name, faults) {
                self.decode(inner, faults);
            }
        }
        fields.without_effect(
            &[
                "commType",
                "reconnTimeout",
                "reconnRetryTimes",
                "collectTimeout",
                "collectRetryTimes",
                "collectType",
                "customizedValues",
            ],
            faults,
        );
        fields.finish(faults);
    }

    /// This connection where it says something, `model` where it does not.
    ///
    /// # Errors
    /// What is missing or contradicts itself, with the way out.
    pub(super) fn complete(&self, model: &Connection) -> Result<v1::ModbusDevice, (String, String)> {
        let path = self.path.as_ref().or(model.path.as_ref());
        let host = self.host.as_ref().or(model.host.as_ref());
        // What the device itself says wins over what its model says of another way to reach it.
        let own = match (&self.path, &self.host) {
            (Some(_), None) => Some(Mode::Rtu),
            (None, Some(_)) => Some(Mode::Tcp),
            _ => None,
        };
        let mode = self.mode.or(own).or(model.mode).or(match (path, host) {
            (Some(_), None) => Some(Mode::Rtu),
            (None, Some(_)) => Some(Mode::Tcp),
            _ => None,
        });
        let unit_id = self.unit_id.or(model.unit_id);
        let (transport, unit_id) = match (mode, path, host) {
            (Some(Mode::Tcp), _, Some(host)) => {
                let port = self.port.or(model.port).unwrap_or(DEFAULT_TCP_PORT);
                let tcp = v1::ModbusTcp {
                    host: host.clone(),
                    port,
                };
                (Transport::Tcp(tcp), unit_id.unwrap_or(DEFAULT_TCP_UNIT))
            }
            (Some(Mode::Rtu), Some(path), _) => {
                let data_bits = self.data_bits.or(model.data_bits).unwrap_or(DEFAULT_DATA_BITS);
                if data_bits != DEFAULT_DATA_BITS {
                    return Err((
                        format!("dataBits is {data_bits}, but Modbus RTU sends whole bytes"),
                        "write dataBits: 8".to_owned(),
                    ));
                }
                let rtu = v1::ModbusRtu {
                    path: path.clone(),
                    baud_rate: self.baud_rate.or(model.baud_rate).unwrap_or(DEFAULT_BAUD_RATE),
                    data_bits,
                    parity: self.parity.or(model.parity).unwrap_or("none").to_owned(),
                    stop_bits: self.stop_bits.or(model.stop_bits).unwrap_or(DEFAULT_STOP_BITS),
                };
                let missing = || {
                    (
                        "on a serial line every device has a number".to_owned(),
                        "add slaveID".to_owned(),
                    )
                };
                let unit_id = unit_id.ok_or_else(missing)?;
                if unit_id == 0 {
                    return Err((
                        "slaveID 0 speaks to every device on a serial line at once, and none answers"
                            .to_owned(),
                        "give the device's own number, 1 to 247".to_owned(),
                    ));
                }
                (Transport::Rtu(rtu), unit_id)
            }
            (None, Some(_), Some(_)) => {
                return Err((
                    "there is a serial port and an IP address".to_owned(),
                    "say which with communicateMode: TCP or RTU".to_owned(),
                ));
            }
            (Some(Mode::Tcp), ..) => {
                return Err((
                    "the device's address is missing".to_owned(),
                    "add ip and port".to_owned(),
                ));
            }
            (Some(Mode::Rtu), ..) => {
                return Err((
                    "the serial port is missing".to_owned(),
                    "add serialPort".to_owned(),
                ));
            }
            (None, ..) => {
                return Err((
                    "nothing says how to reach the device".to_owned(),
                    "add ip and port, or serialPort, to its protocol".to_owned(),
                ));
            }
        };
        let timeout_ms = self.timeout_ms.or(model.timeout_ms).unwrap_or(0);
        Ok(v1::ModbusDevice {
            transport: Some(transport),
            unit_id,
            timeout_ms,
        })
    }
}

impl Visitor {
    /// Takes what `fields` says.
    pub(super) fn decode(&mut self, fields: Fields<'_>, faults: &mut Faults) {
        let mut fields = fields.any_case();
        let small = |value: Option<i64>| value.and_then(|v| u32::try_from(v).ok());
        if let Some(text) = fields.text("register", faults) {
            self.register = register(text);
            if self.register.is_none() {
                const NAMES: [&str; 8] = [
                    "CoilRegister",
                    "DiscreteInputRegister",
                    "InputRegister",
                    "HoldingRegister",
                    "coil",
                    "discrete",
                    "input",
                    "holding",
                ];
                let hint = ledge_yaml::names::hint(text, NAMES).unwrap_or_default();
                let message = format!("`{}` is not a kind of register", ledge_yaml::units::shown(text));
                faults.error_with_hint(fields.line, &fields.path_of("register"), message, hint);
            }
        }
        set(
            &mut self.offset,
            small(fields.int("offset", 0..=ADDRESSES - 1, faults)),
        );
        set(&mut self.limit, small(fields.int("limit", 1..=MAX_BITS, faults)));
        set(&mut self.scale, fields.float("scale", faults));
        set(&mut self.is_swap, fields.boolean("isSwap", faults));
        set(
            &mut self.is_register_swap,
            fields.boolean("isRegisterSwap", faults),
        );
        fields.finish(faults);
    }

    /// This visitor where it says something, `model` where it does not, checked for values of type `data_type`.
    ///
    /// # Errors
    /// The key that is wrong, what is wrong with it, and the way out.
    pub(super) fn complete(
        &self,
        model: &Visitor,
        data_type: v1::DataType,
    ) -> Result<v1::ModbusVisitor, (&'static str, String, String)> {
        let missing = |key| move || (key, "missing".to_owned(), format!("add {key}"));
        let register = self.register.or(model.register).ok_or_else(missing("register"))?;
        let offset = self.offset.or(model.offset).ok_or_else(missing("offset"))?;
        let limit = self.limit.or(model.limit).unwrap_or(1);
        let bits = matches!(register, Register::Coil | Register::DiscreteInput);
        check_limit(i64::from(limit), data_type, bits).map_err(|(message, hint)| ("limit", message, hint))?;
        if i64::from(offset) + i64::from(limit) > ADDRESSES {
            let message = format!("offset {offset} and limit {limit} reach past the last address, 65535");
            return Err(("offset", message, "addresses count from 0".to_owned()));
        }
        // KubeEdge's scale of 0 means none.
        let scale = self
            .scale
            .or(model.scale)
            .filter(|scale| *scale != 0.0)
            .unwrap_or(1.0);
        Ok(v1::ModbusVisitor {
            register: register.into(),
            offset,
            limit,
            scale,
            is_swap: self.is_swap.or(model.is_swap).unwrap_or(false),
            is_register_swap: self.is_register_swap.or(model.is_register_swap).unwrap_or(false),
        })
    }
}

/// Whether devices accept writes to this kind of register.
pub(super) fn is_writable(visitor: &v1::ModbusVisitor) -> bool {
    matches!(visitor.register(), Register::Coil | Register::Holding)
}

/// How many registers or bits a value of a type may take.
fn check_limit(limit: i64, data_type: v1::DataType, bits: bool) -> Result<(), (String, String)> {
    use v1::DataType as T;
    let (allowed, ok) = match (data_type, bits) {
        (T::Stream | T::Unspecified, _) => {
            return Err((
                format!(
                    "a value of type {} cannot be read over Modbus",
                    data_type.as_str_name()
                ),
                "INT, FLOAT, DOUBLE, STRING, BOOLEAN or BYTES can".to_owned(),
            ));
        }
        (T::String | T::Bytes, false) => ("from 1 to 125", (1..=MAX_REGISTERS).contains(&limit)),
        // Bits are a flag, or a number made of a few of them; nothing else is.
        (T::Int, true) => ("from 1 to 32", (1..=32).contains(&limit)),
        (T::Float | T::Double | T::String | T::Bytes, true) => {
            return Err((
                format!(
                    "a coil or discrete input cannot hold a value of type {}",
                    data_type.as_str_name()
                ),
                "BOOLEAN and INT can; or read another register".to_owned(),
            ));
        }
        (T::Boolean, _) => ("1", limit == 1),
        (T::Int | T::Float | T::Double, false) => ("1, 2 or 4", matches!(limit, 1 | 2 | 4)),
    };
    if ok {
        return Ok(());
    }
    let what = if bits { "bits" } else { "registers of 16 bits" };
    Err((
        format!(
            "a value of type {} cannot take {limit} {what}",
            data_type.as_str_name()
        ),
        format!("allowed: {allowed}"),
    ))
}

fn register(text: &str) -> Option<Register> {
    let lower = text.to_ascii_lowercase();
    let short: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    match short
        .strip_suffix("registers")
        .or(short.strip_suffix("register"))
        .unwrap_or(&short)
    {
        "coil" | "coils" => Some(Register::Coil),
        "discrete" | "discreteinput" | "discreteinputs" => Some(Register::DiscreteInput),
        "input" => Some(Register::Input),
        "holding" => Some(Register::Holding),
        _ => None,
    }
}

fn is_host(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
        || (text.len() <= 253
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')))
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

#[cfg(test)]
mod tests;
