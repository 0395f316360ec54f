//! Fuzz target of what a projection says of itself. `cargo test` replays the corpus in `__fuzz__/` and adds random inputs;
//! `cargo bolero test -p ledge-projection --test fuzz applied` (cargo-bolero) runs it with coverage for as long as wanted.
//! `LEDGE_WRITE_CORPUS=1 cargo test -p ledge-projection --test fuzz corpus` writes the corpus again.
#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use ledge_projection::Applied;
use ledge_proto::fold::FOLD_VERSION;

/// What is taken for a position is written the same again.
fn check(bytes: &[u8]) {
    if let Some(applied) = Applied::decode(bytes) {
        assert_eq!(applied.encode(), bytes);
    }
    // Past the version, which random bytes do not get right.
    let known = [&FOLD_VERSION.to_be_bytes()[..], bytes].concat();
    let applied = Applied::decode(&known);
    assert_eq!(applied.is_some(), known.len() == 44);
    if let Some(applied) = applied {
        assert_eq!(applied.encode(), known);
    }
}

#[test]
fn applied() {
    bolero::check!().for_each(check);
}

fn seeds() -> [(&'static str, Vec<u8>); 5] {
    let of = |version: u32, rest: &[u8]| [&version.to_be_bytes()[..], rest].concat();
    [
        ("whole", of(FOLD_VERSION, &[7; 40])),
        ("cut-off", of(FOLD_VERSION, &[7; 39])),
        ("longer", of(FOLD_VERSION, &[7; 41])),
        ("another-version", of(FOLD_VERSION + 1, &[7; 40])),
        ("last-block", vec![0xff; 40]),
    ]
}

#[test]
fn corpus() {
    let folder = format!("{}/tests/__fuzz__/applied/corpus", env!("CARGO_MANIFEST_DIR"));
    for (name, bytes) in seeds() {
        let path = format!("{folder}/{name}");
        if std::env::var_os("LEDGE_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(
            std::fs::read(&path).is_ok_and(|there| there == bytes),
            "{path} is missing or another one: run it with LEDGE_WRITE_CORPUS=1"
        );
    }
    for file in std::fs::read_dir(folder).unwrap() {
        check(&std::fs::read(file.unwrap().path()).unwrap());
    }
}
