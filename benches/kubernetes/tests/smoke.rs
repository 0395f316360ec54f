//! The program runs to its end at the smallest sizes, so that it works on the day somebody needs figures. What it measures
//! then says nothing, and is not looked at.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The rows, in order.
const ROWS: [&str; 9] = [
    "K1", "K2", "K3", "K4-whole", "K4-parts", "K5-1", "K5-32", "K6", "K7",
];

#[test]
fn every_row_is_printed() {
    let program = Path::new(env!("CARGO_BIN_EXE_kubernetes"));
    daemons_beside(program);
    let sizes = "--quick --changes 5 --services 5 --nodes 2 --watchers 20 --rounds 1 --pods 600 --lists 1 --objects 50 \
        --slice-ms 50 --settle-ms 50";
    let ran = Command::new(program)
        .args(sizes.split_whitespace())
        // Beside a real API server it is run by whoever wants figures.
        .env_remove("LEDGE_KUBE_APISERVER")
        .env_remove("LEDGE_ETCD")
        .env_remove("LEDGE_REQUIRE_KUBERNETES")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    // 1: a limit was not kept, as may be in a debug build on a busy machine.
    assert!(matches!(ran.status.code(), Some(0 | 1)), "{}: {told}", ran.status);
    let rows: Vec<Value> = serde_json::Deserializer::from_slice(&ran.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    let ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(ids, ROWS, "{told}");
    for row in &rows {
        nothing_is_missing(row, row);
    }
}

/// A figure that could not be computed is `null`.
fn nothing_is_missing(value: &Value, row: &Value) {
    match value {
        Value::Null => panic!("a figure is missing: {row}"),
        Value::Object(fields) => fields.values().for_each(|value| nothing_is_missing(value, row)),
        _ => {}
    }
}

/// `cargo test` has built the daemons, unless it was told to test this package alone.
fn daemons_beside(program: &Path) {
    if ["cloudcore", "edgecore"]
        .iter()
        .all(|daemon| program.with_file_name(daemon).is_file())
    {
        return;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "ledge-cloud", "-p", "ledge-edge"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the daemons cannot be built");
}
