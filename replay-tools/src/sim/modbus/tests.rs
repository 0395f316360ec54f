use std::net::{Ipv4Addr, SocketAddr};

use tokio::task::JoinHandle;
use tokio_modbus::client::{Context, Reader as _, Writer as _, tcp};
use tokio_modbus::slave::{Slave, SlaveContext as _};

use super::*;

fn options() -> SimOptions {
    SimOptions {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        seed: 7,
        journal: None,
        delay_ms: 0,
        fault: None,
    }
}

async fn start(options: SimOptions) -> (Context, CancellationToken, JoinHandle<Result<(), SimError>>) {
    let sim = ModbusSim::bind(options).await.unwrap();
    let address = sim.address();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(sim.run(shutdown.clone()));
    (
        tcp::connect_slave(address, Slave(1)).await.unwrap(),
        shutdown,
        task,
    )
}

#[tokio::test]
async fn the_device_has_the_registers_it_promises() {
    let (mut device, shutdown, task) = start(options()).await;
    let words = device.read_input_registers(0, 4).await.unwrap().unwrap();
    assert!((165..=335).contains(&words[0]), "{words:?}");
    assert!((390..=610).contains(&words[1]), "{words:?}");
    assert_eq!(words[2..], [0, 1]);
    assert_eq!(
        device.read_holding_registers(2, 2).await.unwrap().unwrap(),
        [0, 2]
    );
    assert_eq!(
        device.read_input_registers(3, 1).await.unwrap().unwrap(),
        [2],
        "the low word alone does not count"
    );
    assert_eq!(
        device.read_holding_registers(10, 2).await.unwrap().unwrap(),
        [300, 0]
    );
    let illegal = Err(ExceptionCode::IllegalDataAddress);
    assert_eq!(device.read_input_registers(10, 1).await.unwrap(), illegal);
    assert_eq!(device.read_holding_registers(4, 1).await.unwrap(), illegal);
    assert_eq!(
        device.write_single_register(0, 1).await.unwrap(),
        Err(ExceptionCode::IllegalDataAddress)
    );
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_alarm_follows_the_threshold() {
    let (mut device, _shutdown, _task) = start(options()).await;
    device.write_single_register(10, 0).await.unwrap().unwrap();
    assert_eq!(device.read_coils(0, 1).await.unwrap().unwrap(), [true]);
    device
        .write_multiple_registers(10, &[999, 5])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(device.read_discrete_inputs(0, 1).await.unwrap().unwrap(), [false]);
    assert_eq!(
        device.read_holding_registers(10, 2).await.unwrap().unwrap(),
        [999, 5]
    );
}

#[tokio::test]
async fn the_journal_holds_what_was_handed_out_and_the_counter_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.jsonl");
    let with_journal = || SimOptions {
        journal: Some(path.clone()),
        ..options()
    };
    let (mut device, shutdown, task) = start(with_journal()).await;
    device.read_holding_registers(0, 4).await.unwrap().unwrap();
    device.write_single_register(10, 455).await.unwrap().unwrap();
    device.read_holding_registers(2, 2).await.unwrap().unwrap();
    shutdown.cancel();
    task.await.unwrap().unwrap();
    drop(device);

    // Killed in the middle of a line.
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend(b"{\"event\":\"counter\",\"wall_us\":1,\"val");
    std::fs::write(&path, torn).unwrap();
    let (mut device, _shutdown, _task) = start(with_journal()).await;
    assert_eq!(
        device.read_holding_registers(2, 2).await.unwrap().unwrap(),
        [0, 3]
    );

    let entries: Vec<Entry> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<String> = entries
        .iter()
        .map(|entry| match entry {
            Entry::Counter { value, .. } => format!("counter {value}"),
            Entry::Write { address, words, .. } => format!("write {address} {words:?}"),
        })
        .collect();
    assert_eq!(told, ["counter 1", "write 10 [455]", "counter 2", "counter 3"]);
}

#[test]
fn the_same_seed_moves_the_same_way() {
    let at = |seed, second: i64| {
        let mut machine = Machine::new(seed, 0);
        machine
            .registers(0, 2, false, 1_700_000_000_000_000 + second * 1_000_000)
            .unwrap()
            .0
    };
    let run = |seed| (0..600).map(|second| at(seed, second)).collect::<Vec<_>>();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let temperatures: Vec<u16> = run(1).iter().map(|words| words[0]).collect();
    assert!(*temperatures.iter().min().unwrap() < 180 && *temperatures.iter().max().unwrap() > 320);
}

#[test]
fn the_counter_ends_rather_than_begin_again() {
    let mut machine = Machine::new(1, u32::MAX - 1);
    assert_eq!(machine.registers(2, 2, false, 0).unwrap().0, [0xFFFF, 0xFFFF]);
    assert_eq!(
        machine.registers(2, 2, false, 0),
        Err(ExceptionCode::ServerDeviceFailure)
    );
}

#[tokio::test]
async fn other_units_and_sick_devices_do_not_answer() {
    let wait = Duration::from_millis(200);
    let (mut device, _shutdown, _task) = start(options()).await;
    device.set_slave(Slave(9));
    assert!(
        tokio::time::timeout(wait, device.read_input_registers(0, 1))
            .await
            .is_err()
    );
    for fault in [Fault::Silent, Fault::Garbage, Fault::Close] {
        let (mut device, shutdown, task) = start(SimOptions {
            fault: Some(fault),
            ..options()
        })
        .await;
        let answer = tokio::time::timeout(wait, device.read_input_registers(0, 1)).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{fault:?}: {answer:?}");
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_delay_delays() {
    let (mut device, _shutdown, _task) = start(SimOptions {
        delay_ms: 120,
        ..options()
    })
    .await;
    let begun = std::time::Instant::now();
    device.read_input_registers(0, 1).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(120));
}
