//! ledge-projection
