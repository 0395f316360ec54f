//! ledge-history
