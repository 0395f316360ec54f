//! The kinds Ledge adds to Kubernetes, as Rust types, and their definitions.

use serde_json::Value;

/// The CustomResourceDefinitions of every kind of Ledge's, as JSON.
pub fn definitions() -> Vec<Value> {
    Vec::new()
}
