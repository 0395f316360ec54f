//! The program itself, as a user starts it. (Cargo builds a package's programs only for tests like these; the tests of `ledge`
//! start them, too.)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn cloudcore(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloudcore"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn it_takes_the_files_it_prints() {
    let dir = tempfile::tempdir().unwrap();
    for flag in ["--defaultconfig", "--minconfig"] {
        let printed = cloudcore(&[flag]);
        assert!(printed.status.success(), "{flag}: {printed:?}");
        let file = dir.path().join("cloudcore.yaml");
        std::fs::write(&file, &printed.stdout).unwrap();
        let checked = cloudcore(&["--check-config", "--config", file.to_str().unwrap()]);
        assert!(checked.status.success(), "{flag}: {checked:?}");
    }
}

#[test]
fn it_says_what_is_wrong_and_what_to_do() {
    let checked = cloudcore(&["--check-config", "--config", "/nowhere/cloudcore.yaml"]);
    assert!(!checked.status.success());
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(told.contains("/nowhere/cloudcore.yaml"), "{told}");
}
