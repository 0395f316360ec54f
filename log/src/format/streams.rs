//! Body of a STREAMS block: where every stream stood when a segment began. Without it, recycling the only
//! segment a quiet stream was in would lose its position.

use ledge_proto::ids::{Chain, Epoch, Incarnation, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};

use super::FormatError;
use super::fields::{bytes, put, u32_at, u64_at};

const WHAT: &str = "STREAMS block";
const FIXED: usize = 50;

/// One stream's number and tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamTail {
    pub(crate) slot: u32,
    pub(crate) key: StreamKey,
    pub(crate) mark: Mark,
}

impl StreamTail {
    pub(crate) fn encoded_len(&self) -> usize {
        FIXED + self.key.id.scope.as_wire().len()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let scope = self.key.id.scope.as_wire();
        let mut fixed = [0; FIXED];
        put(&mut fixed, 0, &self.slot.to_le_bytes());
        put(&mut fixed, 4, &self.mark.position.epoch.0.to_le_bytes());
        put(&mut fixed, 8, &self.mark.position.seq.0.to_le_bytes());
        put(&mut fixed, 16, &self.mark.chain.0);
        put(&mut fixed, 32, &self.key.incarnation.0);
        fixed[48] = self.key.id.lane as u8;
        fixed[49] = u8::try_from(scope.len()).unwrap_or(u8::MAX); // Scopes are at most 253 bytes.
        out.extend_from_slice(&fixed);
        out.extend_from_slice(scope.as_bytes());
    }

    /// Reads a whole body.
    pub(crate) fn decode_all(mut buf: &[u8]) -> Result<Vec<StreamTail>, FormatError> {
        let field = |field| FormatError::Field { what: WHAT, field };
        let mut tails = Vec::new();
        while !buf.is_empty() {
            if buf.len() < FIXED || buf.len() < FIXED + usize::from(buf[49]) {
                return Err(field("length"));
            }
            let (fixed, rest) = buf.split_at(FIXED);
            let (scope, rest) = rest.split_at(usize::from(fixed[49]));
            let scope = std::str::from_utf8(scope)
                .ok()
                .and_then(|s| Scope::from_wire(s).ok());
            if u64_at(fixed, 8) >= u64::MAX / 2 {
                return Err(field("seq"));
            }
            let id = StreamId::new(
                scope.ok_or(field("scope"))?,
                Lane::from_wire(u32::from(fixed[48])).map_err(|_| field("lane"))?,
            );
            tails.push(StreamTail {
                slot: u32_at(fixed, 0),
                key: StreamKey {
                    id,
                    incarnation: Incarnation(bytes(fixed, 32)),
                },
                mark: Mark {
                    position: Position {
                        epoch: Epoch(u32_at(fixed, 4)),
                        seq: Seq(u64_at(fixed, 8)),
                    },
                    chain: Chain(bytes(fixed, 16)),
                },
            });
            buf = rest;
        }
        Ok(tails)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn tails()(
            slot: u32, lane in prop::sample::select(Lane::ALL.to_vec()), incarnation: [u8; 16], epoch: u32,
            seq in 0..u64::MAX / 2,
            chain: [u8; 16], scope in prop::option::of("[a-z0-9]{1,63}"),
        ) -> StreamTail {
            let scope = scope.map_or(Scope::cluster(), |s| Scope::node(&s).unwrap_or_else(|_| Scope::cluster()));
            StreamTail {
                slot, key: StreamKey { id: StreamId::new(scope, lane), incarnation: Incarnation(incarnation) },
                mark: Mark { position: Position { epoch: Epoch(epoch), seq: Seq(seq) }, chain: Chain(chain) },
            }
        }
    }

    proptest! {
        #[test]
        fn tails_round_trip(tails in prop::collection::vec(tails(), 0..20)) {
            let mut bytes = Vec::new();
            for tail in &tails {
                tail.encode(&mut bytes);
            }
            prop_assert_eq!(bytes.len(), tails.iter().map(StreamTail::encoded_len).sum::<usize>());
            prop_assert_eq!(StreamTail::decode_all(&bytes).unwrap(), tails);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = StreamTail::decode_all(&bytes);
        }
    }
}
