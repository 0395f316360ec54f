//! Receipts: the cloud's signature of what it acknowledged. The edge keeps the last one and shows it in HELLO, so
//! that a cloud that was put back to an older state learns what it had acknowledged.

use crate::ids::{Mark, StreamKey, truncate16};

/// A receipt's length, bytes.
pub const RECEIPT_BYTES: usize = 16;

/// The key receipts are signed with.
#[derive(Clone)]
pub struct ReceiptKey([u8; 32]);

impl std::fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReceiptKey")
    }
}

impl ReceiptKey {
    /// The key that belongs to a secret all cloudcores of a cluster have, and that outlives their data.
    pub fn of_secret(secret: &[u8]) -> ReceiptKey {
        ReceiptKey(blake3::derive_key(
            "ledge v1 receipts of acknowledgements",
            secret,
        ))
    }

    /// Signs that `mark` of `stream` is durable here. (The stream names the node.)
    pub fn sign(&self, stream: &StreamKey, mark: &Mark) -> [u8; RECEIPT_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(stream.id.scope.as_wire().as_bytes());
        hasher.update(&[0, stream.id.lane as u8]);
        hasher.update(&stream.incarnation.0);
        hasher.update(&mark.position.epoch.0.to_be_bytes());
        hasher.update(&mark.position.seq.0.to_be_bytes());
        hasher.update(&mark.chain.0);
        truncate16(&hasher)
    }

    /// Whether `receipt` was signed with this key. Takes as long for a wrong one as for a right one.
    pub fn verify(&self, stream: &StreamKey, mark: &Mark, receipt: &[u8]) -> bool {
        let signed = self.sign(stream, mark);
        receipt.len() == RECEIPT_BYTES
            && signed
                .iter()
                .zip(receipt)
                .fold(0, |differ, (a, b)| differ | (a ^ b))
                == 0
    }
}
