//! ledge-log
