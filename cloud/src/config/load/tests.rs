use clap::Parser;

use super::*;
use crate::config::{DEFAULT_FILE, LogFormat, MINIMAL_FILE};

fn args(line: &str) -> Args {
    Args::try_parse_from(line.split_whitespace()).unwrap()
}

fn load(line: &str, text: &str) -> Result<Config, ConfigError> {
    Config::from_text(&args(line), Path::new("cloudcore.yaml"), text)
}

fn with(body: &str) -> String {
    format!("apiVersion: {}\nkind: {}\n{body}", SHAPE.versions[0], SHAPE.kind)
}

#[test]
fn the_default_file_says_what_no_file_means() {
    let without = Config::load(&args("cloudcore")).unwrap();
    assert_eq!(load("cloudcore", DEFAULT_FILE).unwrap(), without);
    assert_eq!(without.heartbeat, Duration::from_secs(5));
    assert_eq!(without.http_listen.unwrap().to_string(), "127.0.0.1:9091");
    assert_eq!(without.without_effect_message(), None);
}

#[test]
fn the_minimal_file_loads() {
    let config = load("cloudcore", MINIMAL_FILE).unwrap();
    assert_eq!(config.manifests, Some("/etc/ledge/manifests".into()));
}

#[test]
fn kubeedges_own_file_loads_as_it_is() {
    let config = load(
        "cloudcore",
        include_str!("../../../tests/config/kubeedge-cloudcore.yaml"),
    )
    .unwrap();
    assert_eq!(config.quic_listen.to_string(), "0.0.0.0:10001");
    assert_eq!(config.tls.key, Path::new("/etc/kubeedge/certs/server.key"));
    assert_eq!(
        config.without_effect_message().unwrap(),
        "accepted, without effect: kubeAPIConfig, modules.cloudHub.advertiseAddress, modules.cloudHub.nodeLimit, \
         modules.cloudHub.websocket, modules.cloudHub.quic.enable, modules.cloudHub.quic.maxIncomingStreams, \
         modules.cloudHub.https, modules.cloudStream, modules.dynamicController, modules.router"
    );
}

#[test]
fn flags_win_over_the_file() {
    let text = with(
        "ledge: {dataDir: /file, manifestsDir: /file, httpAddress: '1.1.1.1:1', logLevel: warn, logFormat: text}\n\
         modules: {cloudHub: {tlsCAFile: <CA>, quic: {address: <IP>, port: 1}, keepaliveInterval: 30}}\n",
    );
    let config = load(
        "cloudcore --data-dir /flag --listen 127.0.0.1:0 --http-listen off --manifests /flag --ca /flag/ca \
         --cert /flag/cert --key /flag/key --log-level debug,quinn=warn --log-format json",
        &text,
    )
    .unwrap();
    assert_eq!(config.data_dir, Path::new("/flag"));
    assert_eq!(config.quic_listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.http_listen, None);
    assert_eq!(config.manifests, Some("/flag".into()));
    assert_eq!(config.tls.ca, Path::new("/flag/ca"));
    assert_eq!(config.heartbeat, Duration::from_secs(30));
    assert_eq!(
        (config.log_level.as_str(), config.log_format),
        ("debug,quinn=warn", LogFormat::Json)
    );
}

#[test]
fn kubeedges_monitor_address_is_used_unless_ledge_has_its_own() {
    let monitor = "commonConfig: {monitorServer: {bindAddress: '127.0.0.1:7'}}\n";
    let config = load("cloudcore", &with(monitor)).unwrap();
    assert_eq!(config.http_listen.unwrap().port(), 7);
    let both = with(&format!("{monitor}ledge: {{httpAddress: 'off'}}\n"));
    assert_eq!(load("cloudcore", &both).unwrap().http_listen, None);
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let text = with(
        "ledge:\n  dataDirectory: /x\n  httpAddress: here\n  log: {segmentBytes: 1MiB}\n  logLevel: loud\n  \
         logFormat: xml\nmodules:\n  cloudHub:\n    keepaliveInterval: 1h\n    quic: {address: <CLOUD_IP>, port: 70000}\n",
    );
    let message = load("cloudcore", &text).unwrap_err().to_string();
    let told: Vec<&str> = message.lines().collect();
    assert_eq!(
        told,
        [
            "cloudcore.yaml cannot be used:",
            "  line 4: ledge.dataDirectory: unknown key (known here: apiAddress, dataDir, disk, httpAddress, log, logFormat, logLevel, manifestsDir)",
            "  line 5: ledge.httpAddress: `here` is not an address such as 127.0.0.1:9091, nor `off`",
            "  line 6: ledge.log.segmentBytes: 1048576 bytes is out of range: from 8388608 bytes to 2147483648 bytes",
            "  line 7: ledge.logLevel: `loud` is not a level: one of off, error, warn, info, debug, trace",
            "  line 8: ledge.logFormat: `xml` is not a format: text or json",
            "  line 11: modules.cloudHub.keepaliveInterval: 3600s is out of range: from 50ms to 240s",
            "  line 12: modules.cloudHub.quic.address: `<CLOUD_IP>` is still to be filled in (replace <CLOUD_IP> by the real value)",
            "  line 12: modules.cloudHub.quic.port: `70000` is not a whole number from 0 to 65535",
        ]
    );
}

#[test]
fn a_wrong_flag_or_file_is_told() {
    for (line, why) in [
        (
            "cloudcore --http-listen here",
            "--http-listen: `here` is not an address",
        ),
        ("cloudcore --log-level loud", "--log-level: `loud` is not a level"),
        (
            "cloudcore --config /no/such/file.yaml",
            "cannot read the configuration file /no/such/file.yaml",
        ),
    ] {
        let message = Config::load(&args(line)).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
    let edge = "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\n";
    let message = load("cloudcore", edge).unwrap_err().to_string();
    assert!(
        message.contains("expected `cloudcore.config.kubeedge.io/v1alpha1`"),
        "{message}"
    );
}

#[test]
fn flags_are_consistent() {
    <Args as clap::CommandFactory>::command().debug_assert();
}
