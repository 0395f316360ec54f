//! The command line reference in `docs/cli.md` is what the program prints, word for word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

use std::path::Path;
use std::process::Command;

#[test]
fn docs_cli_md_is_the_reference_of_this_program() {
    let output = Command::new(env!("CARGO_BIN_EXE_ledge"))
        .arg("reference")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let reference = String::from_utf8(output.stdout).unwrap();

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(page.parent().unwrap()).unwrap();
        std::fs::write(&page, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap_or_default();
    let drift = reference.lines().zip(written.lines()).find(|(is, was)| is != was);
    assert!(
        written == reference,
        "docs/cli.md is out of date, first at {drift:?}; run UPDATE_DOCS=1 cargo test -p ledge --test reference"
    );
}
