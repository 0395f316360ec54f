//! What a cluster would provide, for the embedded API: simple workload controllers, a scheduler, endpoints, tokens.
