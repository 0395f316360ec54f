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
    mutant(
        "reuse-salt",
        "each life of a segment file has a salt of its own",
        &["opens-again", "I1-dense", "prefix-of-its-writer"],
    ),
    mutant(
        "recycle-without-base",
        "a segment goes only when bases stand for the state in it (I3)",
        &["I7-replay", "state-equal", "retention", "opens-again"],
    ),
    mutant(
        "recycle-unarchived-silently",
        "telemetry goes unarchived only with a gap record",
        &["gaps-are-declared"],
    ),
    mutant(
        "gap-without-record",
        "a gap is written down before what it tells of goes",
        &["gaps-are-declared"],
    ),
    mutant(
        "base-before-gap",
        "gaps, then bases, then recycling: a crash between loses nothing silently",
        &["gaps-are-declared"],
    ),
    mutant(
        "dedupe-by-seq-only",
        "records are ordered by epoch, then sequence number",
        &["I7-replay", "state-equal"],
    ),
    mutant(
        "skip-chain-check",
        "two ends at one position may hold different histories",
        &[
            "prefix-of-its-writer",
            "converges",
            "I1-dense",
            "gaps-are-declared",
        ],
    ),
    mutant(
        "archived-ahead-of-durable",
        "archived never exceeds durable",
        &["archived-within-durable", "converges"],
    ),
    mutant(
        "accept-before-confirm",
        "nothing of a session is stored before its token is confirmed",
        &["confirmed-before-stored"],
    ),
    mutant(
        "ratchet-not-persisted",
        "a token is durable before it is offered",
        &["token-is-durable", "converges"],
    ),
    mutant(
        "accept-stale-token",
        "a disk with an older token is an older state or a copy",
        &["stale-is-out", "gaps-are-declared", "converges"],
    ),
    mutant(
        "accept-lower-epoch",
        "an edge follows no earlier leadership",
        &["no-earlier-leadership"],
    ),
    mutant(
        "hint-moves-ack",
        "a hint is neither stored nor acknowledged",
        &["ack-within-durable"],
    ),
    mutant(
        "rebase-backwards",
        "a stream moves only upwards",
        &["I2-acked-is-durable", "opens-again"],
    ),
];
