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
        "hint-moves-ack",
        "a hint is neither stored nor acknowledged",
        &["ack-within-durable"],
    ),
    mutant(
        "skip-chain-check",
        "streams go on only where both ends hold the same history",
        &["converges", "prefix-of-its-writer", "gaps-are-declared"],
    ),
    mutant(
        "degrade-loses-last",
        "what is kept of samples that were given up ends with the last one",
        &["summaries"],
    ),
];

/// Planted bugs that the simulation does not see, and why. They are seen by tests of the crates they are in.
pub const UNSEEN: &[(&str, &str)] = &[
    (
        "recycle-without-base",
        "no bug while retention writes its bases first: it only takes away the log's own check of that",
    ),
    (
        "dedupe-by-seq-only",
        "covered by the snapshot each epoch begins with: it also moves back how far a stream is folded",
    ),
    (
        "accept-lower-epoch",
        "covered by the session token: a cloud of an earlier leadership offers an older token, too",
    ),
    (
        "rebase-backwards",
        "sessions do not offer what goes backwards: it only takes away the log's own check",
    ),
];
