//! Fuzz targets of what reads bytes that a client sent. `cargo test` replays the corpus in `__fuzz__/` and adds random
//! inputs; `cargo bolero test -p ledge-kubeapi --test fuzz NAME` (cargo-bolero) runs one with coverage for as long as
//! wanted. `LEDGE_WRITE_CORPUS=1 cargo test -p ledge-kubeapi --test fuzz corpus` writes the corpus again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ledge_kubeapi::protobuf;
use serde_json::Value;

/// What a body of a pod begins with, up to the length of the pod.
const POD: &[u8] = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12";
/// Longest body in the corpus.
const SHORT: usize = 4096;

/// A body is read or refused; what was read is an object that JSON can express.
fn check_body(body: &[u8]) {
    if let Ok(object) = protobuf::decode(body) {
        assert!(object.is_object());
        let text = serde_json::to_vec(&object).unwrap_or_default();
        assert!(serde_json::from_slice::<Value>(&text).is_ok());
    }
}

/// As `protobuf_body`, past the envelope: arbitrary bytes as a pod.
fn check_pod(bytes: &[u8]) {
    let mut body = POD.to_vec();
    let mut len = bytes.len();
    while len > 0x7f {
        body.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    body.push(u8::try_from(len).unwrap());
    body.extend_from_slice(bytes);
    assert!(!matches!(
        protobuf::decode(&body),
        Err(protobuf::DecodeError::Kind { .. } | protobuf::DecodeError::Magic)
    ));
    check_body(&body);
}

#[test]
fn protobuf_body() {
    bolero::check!().for_each(check_body);
}

#[test]
fn protobuf_pod() {
    bolero::check!().for_each(check_pod);
}

/// Name, what is done with an input, inputs that get somewhere.
type Target = (&'static str, fn(&[u8]), fn() -> Vec<(String, Vec<u8>)>);

const TARGETS: [Target; 2] = [
    ("protobuf_body", check_body, bodies),
    ("protobuf_pod", check_pod, pods),
];

/// The corpus holds the seeds; all of it, and what else was put there, is tried here, however short a time the targets
/// themselves are given.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "a corpus is files, and is written on demand"
)]
fn corpus() {
    for (name, check, seeds) in TARGETS {
        let folder = format!("{}/tests/__fuzz__/{name}/corpus", env!("CARGO_MANIFEST_DIR"));
        for (seed, bytes) in seeds() {
            let path = format!("{folder}/{seed}");
            if std::env::var_os("LEDGE_WRITE_CORPUS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            assert!(
                std::fs::read(&path).is_ok_and(|there| there == bytes),
                "{path} is missing or another one: run it with LEDGE_WRITE_CORPUS=1"
            );
        }
        for file in std::fs::read_dir(&folder).unwrap() {
            check(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}

/// Bodies that Kubernetes' own encoder made, with their kinds.
fn samples() -> Vec<(String, Vec<u8>)> {
    const PACKED: &[u8] = include_bytes!("fixtures/protobuf.json.zst");
    let text = zstd::bulk::decompress(PACKED, 1 << 20).unwrap();
    let samples: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let samples = samples.iter().map(|sample| {
        let kind = sample["object"]["kind"].as_str().unwrap().to_owned();
        (kind, STANDARD.decode(sample["body"].as_str().unwrap()).unwrap())
    });
    samples.filter(|(_, body)| body.len() <= SHORT).collect()
}

/// One body of each kind; envelopes that are cut off, or say what is not so.
fn bodies() -> Vec<(String, Vec<u8>)> {
    let mut kinds = BTreeSet::new();
    let mut seeds = samples();
    seeds.retain(|(kind, _)| kinds.insert(kind.clone()));
    let (_, first) = seeds[0].clone();
    let with = |rest: &[u8]| [b"k8s\0", rest].concat();
    seeds.extend([
        ("cut-off".to_owned(), first[..first.len() / 2].to_vec()),
        ("magic-alone".to_owned(), with(&[])),
        (
            "length-most".to_owned(),
            with(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ),
        (
            "no-such-kind".to_owned(),
            with(b"\x0a\x0c\x0a\x02v1\x12\x06Nobody\x12\x00"),
        ),
    ]);
    seeds
}

/// Every pod, without its envelope; and wrong types, nesting and lengths where a pod has its metadata.
fn pods() -> Vec<(String, Vec<u8>)> {
    let pods = samples().into_iter().filter(|(kind, _)| kind == "Pod");
    let pods = pods.enumerate().map(|(n, (_, body))| {
        let rest = body.strip_prefix(POD).unwrap();
        // The length of the pod, which takes a byte for each 7 bits.
        let after = rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        (format!("pod-{n}"), rest[after..].to_vec())
    });
    let mut seeds: Vec<_> = pods.collect();
    let nested = (0..40u8).fold(Vec::new(), |inner: Vec<u8>, _| {
        [&[0x0a, u8::try_from(inner.len()).unwrap()], inner.as_slice()].concat()
    });
    seeds.extend([
        ("number-for-message".to_owned(), vec![0x08, 0x01]),
        ("nested".to_owned(), nested),
        ("cut-off".to_owned(), vec![0x0a, 0x7f, 0x0a]),
        ("not-text".to_owned(), vec![0x0a, 0x04, 0x0a, 0x02, 0xff, 0xfe]),
        ("group-wire-type".to_owned(), vec![0x0b, 0x0c]),
    ]);
    seeds
}
