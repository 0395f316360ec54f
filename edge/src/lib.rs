//! edgecore: hub client, device twin, mappers.

pub mod mapper;
pub mod twin;
