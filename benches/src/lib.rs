//! ledge-benches
