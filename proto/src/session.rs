//! The replication session as a state machine without I/O.
