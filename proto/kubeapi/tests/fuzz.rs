//! Fuzz targets of what reads bytes that a client sent. `cargo test` runs them briefly with random input;
//! `cargo bolero test -p ledge-kubeapi --test fuzz NAME` (cargo-bolero) runs one with coverage for as long as wanted.

use ledge_kubeapi::protobuf;

/// A body is read or refused; what was read is an object that JSON can express.
fn check(body: &[u8]) {
    if let Ok(object) = protobuf::decode(body) {
        assert!(object.is_object());
        let text = serde_json::to_vec(&object).unwrap_or_default();
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
    }
}

#[test]
fn protobuf_body() {
    bolero::check!().for_each(check);
}

/// As `protobuf_body`, past the envelope: arbitrary bytes as a pod.
#[test]
fn protobuf_pod() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(len) = u8::try_from(bytes.len()) else {
            return;
        };
        let mut body = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        if len > 0x7f {
            body.push(len & 0x7f | 0x80);
            body.push(len >> 7);
        } else {
            body.push(len);
        }
        body.extend_from_slice(bytes);
        assert!(!matches!(
            protobuf::decode(&body),
            Err(protobuf::DecodeError::Kind { .. } | protobuf::DecodeError::Magic)
        ));
        check(&body);
    });
}
