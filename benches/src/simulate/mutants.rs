//! The planted bugs, and which invariant is expected to see each.

/// One planted bug.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Its name, as in [`ledge_proto::mutants::on`].
    pub name: &'static str,
    /// The rule it breaks.
    pub breaks: &'static str,
    /// The invariants, any of which may see it.
    pub seen_by: &'static [&'static str],
}

const fn mutant(name: &'static str, breaks: &'static str, seen_by: &'static [&'static str]) -> Mutant {
    Mutant {
        name,
        breaks,
        seen_by,
    }
}

/// Within how many seeds each has to be caught.
pub const CAUGHT_WITHIN: u64 = 2000;

/// Every planted bug.
pub const MUTANTS: &[Mutant] = &[
    mutant(
        "ack-before-fsync",
        "acknowledged means synced",
        &["I2-acked-is-durable", "opens-again"],
    ),
    mutant(
        "truncate-on-crc-error",
        "a damaged block that a later one vouches for is never cut off (I4)",
        &["I4-rot-is-detected"],
    ),
    mutant(
        "skip-dir-fsync",
        "the name of a segment is durable before its first block (I8)",
        &["I2-acked-is-durable", "opens-again"],
    ),
    mutant(
        "retry-fsync",
        "a failed sync is never tried again (I5)",
        &["I2-acked-is-durable", "opens-again"],
    ),
    mutant(
        "superblock-ahead",
        "the superblock vouches only for what is durable (I6)",
        &["opens-again", "I2-acked-is-durable"],
    ),
];
