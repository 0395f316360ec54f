use clap::Parser;

use super::*;
use crate::config::{DEFAULT_FILE, KubernetesAt, LogFormat, MINIMAL_FILE};

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
        "accepted, without effect: kubeAPIConfig.master, kubeAPIConfig.qps, kubeAPIConfig.burst, modules.cloudHub.advertiseAddress, modules.cloudHub.nodeLimit, \
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
fn kubernetes_is_where_a_flag_the_file_or_the_environment_says() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("kubeconfig");
    std::fs::write(&there, "").unwrap();
    let there = there.display().to_string();
    let absent = dir.path().join("absent").display().to_string();
    let decided = |flags: &str, file: &str, in_cluster: bool| {
        let text = with(file);
        let mut file = ConfigFile::from_text(Path::new("cloudcore.yaml"), &text, &SHAPE).unwrap();
        kubernetes::decide(&args(&format!("cloudcore {flags}")), &mut file, in_cluster).unwrap()
    };
    let embedded = |address: &str| KubernetesAt::Embedded(address.parse().unwrap());
    let kubeconfig = || KubernetesAt::Kubeconfig(there.as_str().into());
    let file = format!("kubeAPIConfig: {{kubeConfig: {there}}}\n");
    let file_absent = format!("kubeAPIConfig: {{kubeConfig: {absent}}}\n");
    let address = "ledge: {apiAddress: '127.0.0.1:7'}\n";
    let off = "ledge: {apiAddress: 'off'}\n";
    for (flags, text, in_cluster, at) in [
        ("", "", false, embedded("127.0.0.1:6443")),
        ("", "", true, KubernetesAt::InCluster),
        ("", off, false, KubernetesAt::Nowhere),
        ("--api-listen off", address, false, KubernetesAt::Nowhere),
        ("--api-listen off", "", true, KubernetesAt::InCluster),
        ("--api-listen 127.0.0.1:0", off, true, embedded("127.0.0.1:0")),
        ("--api-listen 127.0.0.1:0", &file, true, embedded("127.0.0.1:0")),
        ("", address, true, embedded("127.0.0.1:7")),
        ("", &file, true, kubeconfig()),
        ("--api-listen off", &file, false, kubeconfig()),
        (&format!("--kubeconfig {there}"), address, true, kubeconfig()),
        ("", &file_absent, false, embedded("127.0.0.1:6443")),
    ] {
        assert_eq!(
            decided(flags, text, in_cluster).at,
            at,
            "{flags} {text} {in_cluster}"
        );
    }
    let note = decided("", &file_absent, false).note.unwrap();
    assert!(
        note.contains("there is no file") && note.contains(&absent),
        "{note}"
    );
    assert_eq!(decided("", &file, false).note, None);
    let flag = format!("cloudcore --kubeconfig {absent}");
    let message = load(&flag, &with("")).unwrap_err().to_string();
    assert!(message.contains("--kubeconfig: there is no file"), "{message}");
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
