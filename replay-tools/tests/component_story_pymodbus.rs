//! The quickstart's whole story, outage and power cut included, against a Modbus server we did not write.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

#[path = "../../edge/tests/pymodbus/mod.rs"]
#[allow(dead_code, reason = "shared with the edge's tests")]
mod pymodbus;

use pymodbus::{Python, Server, free_port};

#[tokio::test]
async fn every_claim_holds_with_a_device_of_somebody_else() {
    let Some(python) = Python::or_skip("component_story_pymodbus").await else {
        return;
    };
    let port = free_port();
    let server = Server::start(&python, port).await;
    support::story::every_claim_holds(&["--device", &format!("127.0.0.1:{port}")]).await;

    // What the server itself saw: the desired values in their order, the knob turned (100) in between.
    let mut values: Vec<u64> = Vec::new();
    for line in server.kill().await {
        let write: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(write["address"], 10, "{line}");
        values.push(write["values"][0].as_u64().unwrap());
    }
    // The device starts with the first desired value, 300, so nobody writes that.
    assert_eq!(values, [350, 100, 350, 100, 350, 420]);
}
