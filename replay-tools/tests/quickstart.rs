//! `ledge quickstart`: the README's first command, with its own device.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

#[tokio::test]
async fn the_readmes_first_command_proves_every_claim_within_a_minute() {
    let claims = support::story::every_claim_holds(&[]).await;
    for word in [
        "Nothing lost",
        "journal agrees",
        "state hash",
        "missing part",
        "desired value",
        "SQL",
        "middle of the outage",
        "log verify",
    ] {
        assert!(
            claims.iter().any(|claim| claim.contains(word)),
            "{word}: {claims:#?}"
        );
    }
}
