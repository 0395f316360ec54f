//! The kinds Ledge adds to Kubernetes, as Rust types, and their definitions.
