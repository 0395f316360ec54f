//! Bodies that Kubernetes' own encoder made, with the JSON that its own encoder made of the same objects.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn samples() -> Vec<(Vec<u8>, Value)> {
    const PACKED: &[u8] = include_bytes!("../../tests/fixtures/protobuf.json.zst");
    let text = zstd::bulk::decompress(PACKED, 1 << 20).unwrap();
    let samples: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let samples = samples.into_iter().map(|mut sample| {
        let body = STANDARD.decode(sample["body"].as_str().unwrap()).unwrap();
        (body, sample["object"].take())
    });
    samples.collect()
}

/// Go's JSON says of a list and a time that are not there that they are null. An empty list is one that is not there.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map = map
                .iter()
                .filter(|(_, value)| !value.is_null() && **value != json!([]));
            Value::Object(map.map(|(key, value)| (key.clone(), comparable(value))).collect())
        }
        Value::Array(list) => list.iter().map(comparable).collect(),
        other => other.clone(),
    }
}

#[test]
fn as_kubernetes_encodes() {
    let samples = samples();
    assert!(samples.len() > 100);
    let mut wrong = Vec::new();
    for (body, object) in &samples {
        let found = decode(body).unwrap();
        if comparable(&found) != comparable(object) {
            let mut path = String::new();
            let told = difference(&comparable(object), &comparable(&found), &mut path);
            wrong.push(format!("{} {}", object["kind"], told.unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first place where two values differ.
fn difference(wanted: &Value, found: &Value, path: &mut String) -> Option<String> {
    if let (Value::Object(wanted), Value::Object(found)) = (wanted, found) {
        let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
        return keys.into_iter().find_map(|key| {
            let at = path.len();
            path.push('.');
            path.push_str(key);
            let null = Value::Null;
            let told = difference(
                wanted.get(key).unwrap_or(&null),
                found.get(key).unwrap_or(&null),
                path,
            );
            path.truncate(at);
            told
        });
    }
    if let (Value::Array(wanted), Value::Array(found)) = (wanted, found)
        && wanted.len() == found.len()
    {
        let mut pairs = wanted.iter().zip(found);
        return pairs.find_map(|(wanted, found)| difference(wanted, found, path));
    }
    (wanted != found).then(|| format!("{path}: {wanted} became {found}"))
}

#[test]
fn every_served_kind_is_in_the_table() {
    let known: Vec<&str> = TABLE.kinds().collect();
    for resource in crate::builtin::resources() {
        let kind = format!("{}/{}", resource.api_version(), resource.kind);
        assert!(known.contains(&kind.as_str()), "{kind}");
    }
    assert!(TABLE.object("apps/v1", "DeleteOptions").is_some());
}

/// An envelope around `raw`.
fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2];
        let mut len = bytes.len();
        while len > 0x7f {
            out.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
            len >>= 7;
        }
        out.push(u8::try_from(len).unwrap());
        out.extend_from_slice(bytes);
        out
    };
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC, &field(1, &meta), &field(2, raw)].concat()
}

#[test]
fn what_is_none_is_refused() {
    let told = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert!(told(b"{}").contains("expected prefix"));
    assert_eq!(told(b"k8s\0"), "no kind \"\" is registered for version \"\"");
    assert_eq!(told(b"k8s\0\x0a"), "unexpected EOF");
    assert_eq!(told(b"k8s\0\x0a\x05ab"), "unexpected EOF");
    assert_eq!(
        told(b"k8s\0\x08\x01"),
        "proto: wrong wireType = 0 for field typeMeta"
    );
    assert_eq!(told(b"k8s\0\x00"), "proto: illegal tag 0");
    assert_eq!(
        told(b"k8s\0\x1a\x04gzip"),
        "the content is in an encoding that is not supported: gzip"
    );
    assert_eq!(
        told(&body(
            "v1",
            "ConfigMap",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        )),
        "unexpected EOF"
    );
    // metadata.name is no text.
    assert_eq!(
        told(&body("v1", "ConfigMap", b"\x0a\x03\x0a\x01\xff")),
        "the field name cannot be read"
    );
}

/// Properties of a schema within properties of a schema, deeper than anything may be.
#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| {
        let mut schema = Vec::new();
        for _ in 0..levels {
            // JSONSchemaProps.not = 28.
            let mut outer = vec![0xe2, 0x01];
            let len = schema.len();
            outer.extend([
                u8::try_from(len & 0x7f).unwrap() | 0x80,
                u8::try_from(len >> 7 & 0x7f).unwrap() | 0x80,
                u8::try_from(len >> 14).unwrap(),
            ]);
            outer.extend(schema);
            schema = outer;
        }
        schema
    };
    let depth = |levels| value::message(&TABLE, TABLE.schema, &nested(levels), DEPTH_MAX);
    assert!(depth(DEPTH_MAX - 1).is_ok());
    assert_eq!(depth(DEPTH_MAX), Err(DecodeError::Depth));
}

#[test]
fn parts_of_a_message_are_one() {
    // metadata twice: once with a name, once with a namespace.
    let raw = b"\x0a\x03\x0a\x01n\x0a\x03\x1a\x01s";
    assert_eq!(
        decode(&body("v1", "ConfigMap", raw)).unwrap(),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "namespace": "s"}})
    );
}

proptest! {
    /// Whatever is cut off or changed in a body is read or refused, and read the same way twice.
    #[test]
    fn nothing_panics(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let samples = samples();
        let (mut body, _) = which.get(&samples).clone();
        let at = at.index(body.len());
        if cut {
            body.truncate(at);
        } else {
            body[at] = byte;
        }
        prop_assert_eq!(decode(&body), decode(&body));
    }

    #[test]
    fn nothing_panics_on_noise(noise in prop::collection::vec(any::<u8>(), 0..200), which in any::<prop::sample::Index>()) {
        let kinds: Vec<&str> = TABLE.kinds().collect();
        let (version, kind) = which.get(&kinds).rsplit_once('/').unwrap();
        decode(&body(version, kind, &noise)).ok();
    }
}
