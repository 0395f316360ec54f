//! ledge-replication
