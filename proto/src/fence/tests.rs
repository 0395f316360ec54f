use super::*;
use crate::ids::{Chain, Epoch, Incarnation, Mark, Position, Seq, StreamKey};

fn key() -> StreamKey {
    StreamKey {
        id: StreamId::new(Scope::node("edge-1").unwrap(), Lane::UpData),
        incarnation: Incarnation([2; 16]),
    }
}

#[test]
fn a_receipt_is_of_one_mark_of_one_stream_by_one_key() {
    let mark = Mark {
        position: Position {
            epoch: Epoch(1),
            seq: Seq(7),
        },
        chain: Chain([7; 16]),
    };
    let cluster = receipt::ReceiptKey::of_secret(b"cluster");
    let signed = cluster.sign(&key(), &mark);
    assert!(cluster.verify(&key(), &mark, &signed));
    let longer = Mark {
        position: Position {
            epoch: Epoch(1),
            seq: Seq(8),
        },
        ..mark
    };
    let other_stream = StreamKey {
        incarnation: Incarnation([3; 16]),
        ..key()
    };
    assert!(!cluster.verify(&key(), &longer, &signed));
    assert!(!cluster.verify(&other_stream, &mark, &signed));
    assert!(!cluster.verify(&key(), &mark, &signed[..15]));
    assert!(!receipt::ReceiptKey::of_secret(b"other").verify(&key(), &mark, &signed));
}

#[test]
fn a_restore_generation_is_above_any_before_even_one_this_copy_does_not_know() {
    let year = 1_700_000_000_000_000;
    let first = raise_restore_generation(v1::CloudFence::default(), year);
    let again = raise_restore_generation(v1::CloudFence::default(), year + 1_000_000);
    assert!(again.restore_generation > first.restore_generation);
    // A clock that was never set still moves on.
    assert_eq!(
        raise_restore_generation(first, 0).restore_generation,
        first.restore_generation + 1
    );
    assert_eq!(begin_leadership(first).cloud_epoch, 1);
    // Nor does it matter that a clock was ahead the first time, once a node has shown what it follows.
    let older = v1::CloudFence::default();
    let noted = shown(&older, first.restore_generation).unwrap();
    assert!(raise_restore_generation(noted, 0).restore_generation > first.restore_generation);
    assert_eq!(shown(&noted, first.restore_generation), None);
    assert_eq!(shown(&older, u64::MAX), None);
}

#[test]
fn remembered_disks_are_bounded() {
    let mut node = v1::NodeFence::default();
    for n in 0..200u8 {
        let hello = HelloFacts {
            incarnation: Incarnation([n; 16]),
            token: v1::SessionToken::default(),
            max_cloud_epoch_seen: 0,
            restore_generation_seen: 0,
            streams: Vec::new(),
        };
        node = confirm(&offer(&node, &hello, [n; 16], 0, None));
    }
    assert_eq!(node.closed.len(), crate::limits::FENCE_MAX_CLOSED);
    assert_eq!(node.closed.last(), Some(&vec![198; 16]));
    assert_eq!(node.current.map(|token| token.counter), Some(200));
}
