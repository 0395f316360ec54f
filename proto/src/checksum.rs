//! The one checksum of the format: CRC-32C (Castagnoli), as in iSCSI (RFC 3720, appendix B.4).

use crc_fast::CrcAlgorithm::Crc32Iscsi;

/// CRC-32C of `data`.
pub fn crc32c(data: &[u8]) -> u32 {
    low32(crc_fast::checksum(Crc32Iscsi, data))
}

/// CRC-32C of several pieces as if they were one.
pub fn crc32c_of(pieces: &[&[u8]]) -> u32 {
    if let [only] = pieces {
        return crc32c(only);
    }
    let mut digest = crc_fast::Digest::new(Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    low32(digest.finalize())
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "crc-fast returns a 32-bit checksum in a u64"
)]
fn low32(checksum: u64) -> u32 {
    checksum as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_check_value() {
        // Check value of CRC-32/ISCSI over "123456789".
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_of(&[b"1234", b"", b"56789"]), 0xE306_9283);
    }
}
