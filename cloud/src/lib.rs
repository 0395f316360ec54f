//! ledge-cloud
