use ledge_yaml::Limits;
use ledge_yaml::tree::documents;

use super::*;

fn faults_of(text: &str, read: impl FnOnce(Fields<'_>, &mut Faults)) -> Vec<String> {
    let node = documents(text, &Limits::DEFAULT).unwrap().remove(0).unwrap();
    let mut faults = Faults::default();
    let fields = Fields::of(&node, "c", &mut faults);
    read(fields, &mut faults);
    faults.errors.iter().map(ToString::to_string).collect()
}

fn connection(text: &str) -> (Connection, Vec<String>) {
    let mut connection = Connection::default();
    let errors = faults_of(text, |fields, faults| connection.decode(fields, faults));
    (connection, errors)
}

fn visitor(text: &str) -> (Visitor, Vec<String>) {
    let mut visitor = Visitor::default();
    let errors = faults_of(text, |fields, faults| visitor.decode(fields, faults));
    (visitor, errors)
}

fn complete(text: &str) -> v1::ModbusDevice {
    let (connection, errors) = connection(text);
    assert_eq!(errors, Vec::<String>::new(), "{text}");
    connection.complete(&Connection::default()).unwrap()
}

fn tcp(device: &v1::ModbusDevice) -> (&str, u32, u32) {
    match &device.transport {
        Some(Transport::Tcp(tcp)) => (&tcp.host, tcp.port, device.unit_id),
        other => panic!("not TCP: {other:?}"),
    }
}

fn rtu(device: &v1::ModbusDevice) -> (&str, u32, u32, &str, u32, u32) {
    match &device.transport {
        Some(Transport::Rtu(rtu)) => (
            &rtu.path,
            rtu.baud_rate,
            rtu.data_bits,
            &rtu.parity,
            rtu.stop_bits,
            device.unit_id,
        ),
        other => panic!("not RTU: {other:?}"),
    }
}

#[test]
fn every_shape_of_a_tcp_connection_is_read() {
    for text in [
        "{ip: 10.0.0.1, port: 1502, slaveID: 3}",
        "{IP: '10.0.0.1', Port: '1502', slaveId: '3'}",
        "{communicateMode: TCP, ip: 10.0.0.1, port: 1502.0, unitID: 3, serialPort: /dev/ttyS0}",
        "{slaveID: 3, tcp: {ip: 10.0.0.1, port: 1502}}",
        "{modbus: {slaveID: 3}, common: {tcp: {ip: 10.0.0.1, port: 1502}, commType: tcp, customizedValues: {a: 1}}}",
    ] {
        assert_eq!(tcp(&complete(text)), ("10.0.0.1", 1502, 3), "{text}");
    }
    assert_eq!(tcp(&complete("{ip: plc-1.local}")), ("plc-1.local", 502, 1));
    assert_eq!(tcp(&complete("{ip: 'fe80::1', slaveID: 0}")), ("fe80::1", 502, 0));
    assert_eq!(complete("{ip: a, timeout: 250}").timeout_ms, 250);
}

#[test]
fn every_shape_of_a_serial_connection_is_read() {
    for text in [
        "{serialPort: /dev/ttyS0, baudRate: 115200, dataBits: 8, parity: even, stopBits: 2, slaveID: 3}",
        "{serialPort: /dev/ttyS0, baudRate: '115200', dataBits: '8', parity: E, stopBits: '2', slaveID: '3'}",
        "{com: {serialPort: /dev/ttyS0, baudRate: 115200, dataBits: 8, parity: Even, stopBits: 2}, slaveID: 3}",
        "{rtu: {serialPort: /dev/ttyS0, baudRate: 115200, dataBits: 8, parity: even, stopBits: 2, slaveID: 3}}",
        "{communicateMode: rtu, serialPort: /dev/ttyS0, baudRate: 115200, dataBits: 8, parity: even, stopBits: 2, slaveID: 3, ip: ''}",
    ] {
        assert_eq!(
            rtu(&complete(text)),
            ("/dev/ttyS0", 115_200, 8, "even", 2, 3),
            "{text}"
        );
    }
    assert_eq!(
        rtu(&complete("{serialPort: '1', slaveID: 1}")),
        ("1", 9600, 8, "none", 1, 1)
    );
}

#[test]
fn a_serial_line_carries_whole_bytes_and_speaks_to_one_device() {
    for (text, why) in [
        (
            "{serialPort: /dev/ttyS0, slaveID: 0}",
            "give the device's own number",
        ),
        (
            "{serialPort: /dev/ttyS0, slaveID: 1, dataBits: 7}",
            "write dataBits: 8",
        ),
    ] {
        let (connection, faults) = connection(text);
        assert_eq!(faults, Vec::<String>::new());
        let (message, hint) = connection.complete(&Connection::default()).unwrap_err();
        assert!(hint.contains(why), "{message}: {hint}");
    }
}

#[test]
fn a_connection_that_cannot_be_says_why() {
    for (text, why) in [
        (
            "{ip: a, slaveID: 248}",
            "c.slaveID: 248 is out of range: from 0 to 247",
        ),
        (
            "{ip: a, slaveID: one}",
            "c.slaveID: expected a whole number, found `one`",
        ),
        ("{ip: a, port: 0}", "c.port: 0 is out of range: from 1 to 65535"),
        ("{ip: 'a:502'}", "the port goes into `port`"),
        ("{ip: [a]}", "c.ip: expected a text, found a list"),
        ("{ip: a, parity: mark}", "`mark` is not a parity"),
        ("{ip: a, communicateMode: UDP}", "`UDP` is neither TCP nor RTU"),
        (
            "{ip: a, salveID: 1}",
            "c.salveID: unknown field (did you mean `slaveID`?)",
        ),
        (
            "{com: {serialPort: a, baudrat: 1}}",
            "c.com.baudrat: unknown field (did you mean `baudRate`?)",
        ),
    ] {
        let (_, errors) = connection(text);
        assert!(errors.iter().any(|e| e.contains(why)), "{text}: {errors:?}");
    }
    for (text, why) in [
        ("{}", "nothing says how to reach"),
        ("{ip: a, serialPort: b}", "communicateMode: TCP or RTU"),
        ("{serialPort: a}", "add slaveID"),
        ("{communicateMode: TCP, serialPort: a}", "add ip and port"),
        ("{communicateMode: RTU, ip: a}", "add serialPort"),
    ] {
        let (connection, errors) = connection(text);
        assert_eq!(errors, Vec::<String>::new());
        let (message, hint) = connection.complete(&Connection::default()).unwrap_err();
        assert!(
            format!("{message} ({hint})").contains(why),
            "{text}: {message} ({hint})"
        );
    }
}

#[test]
fn a_device_wins_over_its_model_key_by_key() {
    let (model, _) = connection("{ip: 10.0.0.1, port: 1502, slaveID: 7, timeout: 100}");
    let (device, _) = connection("{ip: 10.0.0.2, slaveID: 1}");
    let device = device.complete(&model).unwrap();
    assert_eq!((tcp(&device), device.timeout_ms), (("10.0.0.2", 1502, 1), 100));

    let (device, _) = connection("{serialPort: /dev/ttyS1}");
    let device = device.complete(&model).unwrap();
    assert_eq!(rtu(&device).0, "/dev/ttyS1");

    let (model, _) = visitor("{register: holding, offset: 5, scale: 0.1, isSwap: true}");
    let (own, _) = visitor("{offset: 6, isSwap: false}");
    let own = own.complete(&model, v1::DataType::Double).unwrap();
    assert_eq!(
        (own.offset, own.limit, own.scale, own.is_swap),
        (6, 1, 0.1, false)
    );
}

#[test]
fn every_name_of_a_register_is_read() {
    for (name, want) in [
        ("CoilRegister", Register::Coil),
        ("coil", Register::Coil),
        ("DiscreteInputRegister", Register::DiscreteInput),
        ("discrete_input", Register::DiscreteInput),
        ("discrete", Register::DiscreteInput),
        ("InputRegister", Register::Input),
        ("INPUT", Register::Input),
        ("HoldingRegister", Register::Holding),
        ("holding", Register::Holding),
    ] {
        let (visitor, errors) = visitor(&format!("{{register: {name}, offset: 0}}"));
        assert_eq!(errors, Vec::<String>::new());
        let visitor = visitor
            .complete(&Visitor::default(), v1::DataType::Boolean)
            .unwrap();
        assert_eq!(visitor.register(), want, "{name}");
        assert_eq!((visitor.limit, visitor.scale), (1, 1.0));
    }
}

#[test]
fn a_visitor_that_cannot_be_says_why() {
    for (text, why) in [
        ("{register: holdin, offset: 0}", "did you mean `holding`?"),
        (
            "{offset: 65536}",
            "c.offset: 65536 is out of range: from 0 to 65535",
        ),
        ("{offset: -1}", "c.offset: -1 is out of range"),
        ("{limit: 0}", "c.limit: 0 is out of range"),
        ("{scale: .inf}", "c.scale: expected a number"),
        (
            "{isSwap: maybe}",
            "c.isSwap: expected true or false, found `maybe`",
        ),
        ("{ofset: 1}", "did you mean `offset`?"),
    ] {
        let (_, errors) = visitor(text);
        assert!(errors.iter().any(|e| e.contains(why)), "{text}: {errors:?}");
    }
    use v1::DataType as T;
    for (text, data_type, why) in [
        ("{offset: 0}", T::Int, Some("register: missing")),
        ("{register: coil}", T::Int, Some("offset: missing")),
        ("{register: holding, offset: 65535, limit: 1}", T::Int, None),
        (
            "{register: holding, offset: 65535, limit: 2}",
            T::Int,
            Some("past the last address"),
        ),
        (
            "{register: holding, offset: 0, limit: 3}",
            T::Int,
            Some("allowed: 1, 2 or 4"),
        ),
        ("{register: holding, offset: 0, limit: 4}", T::Double, None),
        (
            "{register: holding, offset: 0, limit: 2}",
            T::Boolean,
            Some("allowed: 1"),
        ),
        ("{register: holding, offset: 0, limit: 125}", T::String, None),
        (
            "{register: holding, offset: 0, limit: 126}",
            T::String,
            Some("from 1 to 125"),
        ),
        (
            "{register: coil, offset: 0, limit: 33}",
            T::Int,
            Some("from 1 to 32"),
        ),
        ("{register: coil, offset: 0, limit: 32}", T::Int, None),
        ("{register: coil, offset: 0, limit: 8}", T::Bytes, Some("BYTES")),
        (
            "{register: holding, offset: 0}",
            T::Stream,
            Some("STREAM cannot be read"),
        ),
    ] {
        let (visitor, errors) = visitor(text);
        assert_eq!(errors, Vec::<String>::new());
        match (visitor.complete(&Visitor::default(), data_type), why) {
            (Ok(_), None) => {}
            (Err((field, message, hint)), Some(why)) => {
                let told = format!("{field}: {message} ({hint})");
                assert!(told.contains(why), "{text}: {told}");
            }
            (other, _) => panic!("{text}: {other:?}"),
        }
    }
}
