//! `ledge quickstart`, run as a user runs it, and what it claimed.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// More than the quickstart gives itself.
const LIMIT: Duration = Duration::from_secs(75);

/// Runs `ledge quickstart -o json` with `arguments` and checks that every claim holds. Returns the claims' words.
pub(crate) async fn every_claim_holds(arguments: &[&str]) -> Vec<String> {
    let run = Command::new(env!("CARGO_BIN_EXE_ledge"))
        .args(["quickstart", "-o", "json"])
        .args(arguments)
        // The daemons are built already: it must not call cargo inside of cargo.
        .env_remove("CARGO")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, run)
        .await
        .expect("still running")
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|err| panic!("{err}: {told}"));
    let claims = report["claims"].as_array().unwrap();
    let failed: Vec<&Value> = claims.iter().filter(|claim| claim["holds"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(report["failed"], 0);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let seconds = report["seconds"].as_f64().unwrap();
    assert!(seconds < 60.0, "took {seconds} s");
    claims
        .iter()
        .map(|claim| claim["claim"].as_str().unwrap().to_owned())
        .collect()
}
