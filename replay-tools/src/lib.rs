//! ledge
