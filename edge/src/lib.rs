//! ledge-edge
