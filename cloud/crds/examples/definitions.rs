//! Prints the definitions as a list that `kubectl apply -f -` takes.
#![allow(clippy::print_stdout, reason = "its purpose")]

fn main() {
    let items = ledge_crds::definitions();
    println!(
        "{:#}",
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items})
    );
}
