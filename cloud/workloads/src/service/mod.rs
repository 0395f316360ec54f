//! Services: their addresses and ports, and the endpoints behind them.
//!
//! Reading order: [`addresses`], [`backends`], [`endpoints`].

pub mod addresses;
pub mod backends;
pub mod endpoints;
