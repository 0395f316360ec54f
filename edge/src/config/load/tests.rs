use clap::Parser;

use super::*;
use crate::config::{DEFAULT_FILE, LogFormat, MINIMAL_FILE};

const KUBEEDGE: &str = include_str!("../../../tests/config/kubeedge-edgecore.yaml");

fn args(line: &str) -> Args {
    Args::try_parse_from(line.split_whitespace()).unwrap()
}

fn load(line: &str, text: &str) -> Result<Config, ConfigError> {
    Config::from_text(&args(line), Path::new("edgecore.yaml"), text)
}

fn with(body: &str) -> String {
    format!("apiVersion: {}\nkind: {}\n{body}", SHAPE.versions[0], SHAPE.kind)
}

#[test]
fn the_default_file_says_what_no_file_means() {
    let without = Config::load(&args("edgecore")).unwrap();
    assert_eq!(load("edgecore", DEFAULT_FILE).unwrap(), without);
    assert_eq!(
        (without.cloud.as_deref(), without.node_name.as_deref()),
        (None, None)
    );
    assert_eq!(without.http_listen.unwrap().to_string(), "127.0.0.1:9600");
    assert_eq!(without.log.linger_data, Duration::from_millis(100));
}

#[test]
fn the_minimal_file_loads() {
    let config = load("edgecore", MINIMAL_FILE).unwrap();
    assert_eq!(config.cloud.as_deref(), Some("127.0.0.1:10001"));
}

#[test]
fn kubeedges_own_file_loads_as_it_is_once_the_address_is_known() {
    let config = load("edgecore --cloud 10.0.0.1:10001", KUBEEDGE).unwrap();
    assert_eq!(config.node_name.as_deref(), Some("edge-node-1"));
    assert_eq!(config.heartbeat, Duration::from_secs(15));
    assert_eq!(config.tls.ca, Path::new("/etc/kubeedge/ca/rootCA.crt"));
    let message = config.without_effect_message().unwrap();
    assert!(
        message.starts_with("accepted, without effect: database, modules.edged.enable, "),
        "{message}"
    );
    assert!(message.contains(", modules.edgeHub.websocket, "), "{message}");
    assert!(
        message.ends_with(
            ", modules.eventBus, modules.deviceTwin, modules.metaManager.remoteQueryTimeout, modules.serviceBus"
        ),
        "{message}"
    );
    assert_eq!(config.meta_server.unwrap().listen.to_string(), "127.0.0.1:10550");

    let message = load("edgecore", KUBEEDGE).unwrap_err().to_string();
    assert_eq!(
        message,
        "edgecore.yaml cannot be used:\n  line 41: modules.edgeHub.quic.server: `<CLOUD_IP>:10001` is still to be \
         filled in (replace <CLOUD_IP> by the real value)"
    );
    let filled_in = KUBEEDGE.replace("<CLOUD_IP>", "10.0.0.1");
    assert_eq!(
        load("edgecore", &filled_in).unwrap().cloud.as_deref(),
        Some("10.0.0.1:10001")
    );
}

#[test]
fn metaserver_is_on_the_loopback_unless_somebody_means_it() {
    let load = |flags: &str, body: &str| load(&format!("edgecore {flags}"), &with(body));
    let at = |config: Config| config.meta_server.map(|at| at.listen.to_string());
    assert_eq!(at(load("", "").unwrap()).as_deref(), Some("127.0.0.1:10550"));
    assert_eq!(at(load("--meta-server off", "").unwrap()), None);
    let off = "modules: {metaManager: {metaServer: {enable: false}}}\n";
    assert_eq!(at(load("", off).unwrap()), None);
    assert_eq!(
        at(load("", "modules: {metaManager: {enable: false}}\n").unwrap()),
        None
    );
    assert_eq!(
        at(load("--meta-server [::1]:7", off).unwrap()).as_deref(),
        Some("[::1]:7")
    );
    let open = "modules: {metaManager: {metaServer: {server: '0.0.0.0:10550'}}}\n";
    let message = load("", open).unwrap_err().to_string();
    assert!(
        message.contains("not on the loopback") && message.contains("ledge.metaServer.anyAddress"),
        "{message}"
    );
    let meant = format!("ledge: {{metaServer: {{anyAddress: true}}}}\n{open}");
    assert!(load("", &meant).unwrap().meta_server.unwrap().anywhere);
    let message = load("--meta-server 10.0.0.1:1", "").unwrap_err().to_string();
    assert!(message.contains("--meta-server"), "{message}");
}

#[test]
fn flags_win_over_the_file() {
    let text = with(
        "ledge: {dataDir: /file, httpAddress: '1.1.1.1:1', serverName: cloud.example.com}\n\
         modules: {edged: {hostnameOverride: file, labels: {a: '1', b: '1'}, nodeLabels: {b: '2'}}, \
         edgeHub: {heartbeat: 10s, tlsCAFile: /file/ca, quic: {server: 'file:1'}}}\n",
    );
    let config = load("edgecore", &text).unwrap();
    assert_eq!(config.node_name.as_deref(), Some("file"));
    assert_eq!(
        config.labels,
        BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())])
    );
    assert_eq!(
        config.tls.ca,
        Path::new("/file/ca"),
        "upper and lower case are the same"
    );
    assert_eq!(config.server_name.as_deref(), Some("cloud.example.com"));

    let config = load(
        "edgecore --data-dir /flag --cloud [::1]:1 --node-name flag --ca /flag/ca --cert /flag/cert --key /flag/key \
         --http-listen off --labels zone=a --log-level debug --log-format json",
        &text,
    )
    .unwrap();
    assert_eq!(config.data_dir, Path::new("/flag"));
    assert_eq!(config.cloud.as_deref(), Some("[::1]:1"));
    assert_eq!(config.node_name.as_deref(), Some("flag"));
    assert_eq!(config.http_listen, None);
    assert_eq!(config.labels, BTreeMap::from([("zone".into(), "a".into())]));
    assert_eq!(config.heartbeat, Duration::from_secs(10));
    assert_eq!(config.log_format, LogFormat::Json);
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let text = with(
        "ledge:\n  http: x\n  log:\n    lingerMs: {state: 1h, dta: 5}\nmodules:\n  edged:\n    hostnameOverride: Edge_1\n    \
         nodeLabels: {a: 'b c'}\n  edgeHub:\n    heartbeat: never\n    quic: {server: nohost}\n",
    );
    let message = load("edgecore", &text).unwrap_err().to_string();
    for told in [
        "line 4: ledge.http: unknown key",
        "line 6: ledge.log.lingerMs.state: 3600s is out of range: from 0ns to 10s",
        "line 6: ledge.log.lingerMs.dta: unknown key (did you mean `data`?)",
        "line 9: modules.edged.hostnameOverride: `Edge_1` is not a valid node name",
        "line 10: modules.edged.nodeLabels: `b c` is not a label value",
        "line 12: modules.edgeHub.heartbeat: `never` is not a duration",
        "line 13: modules.edgeHub.quic.server: `nohost` is not HOST:PORT",
    ] {
        assert!(message.contains(told), "{told}\n{message}");
    }
}

#[test]
fn a_wrong_flag_is_told() {
    for (line, why) in [
        ("edgecore --cloud nohost", "--cloud: `nohost` is not HOST:PORT"),
        ("edgecore --cloud a:0", "--cloud: `a:0` is not HOST:PORT"),
        (
            "edgecore --cloud https://a:1",
            "--cloud: `https://a:1` is not HOST:PORT",
        ),
        (
            "edgecore --node-name A",
            "--node-name: `A` is not a valid node name",
        ),
        ("edgecore --labels x", "--labels: `x` is not KEY=VALUE"),
        ("edgecore --http-listen x", "--http-listen: `x` is not an address"),
        ("edgecore --log-level x", "--log-level: `x` is not a level"),
        (
            "edgecore --config /no/such/file.yaml",
            "cannot read the configuration file",
        ),
    ] {
        let message = Config::load(&args(line)).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn flags_are_consistent() {
    <Args as clap::CommandFactory>::command().debug_assert();
}
