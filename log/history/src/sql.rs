//! The tables of a log for DataFusion.
//!
//! Reading order: [`columns`] (what a table is made of), [`tables`] (the tables), [`bounds`] (what of a WHERE is
//! used while reading), [`scan`] (reading), [`provider`] (DataFusion's side), [`depth`] and [`context`] (queries), [`error`].

mod bounds;
mod columns;
mod context;
mod depth;
mod error;
mod provider;
mod scan;
mod tables;

pub use context::{HistoryContext, Options, Rows, TableInfo};
pub use error::HistoryError;

/// The Arrow that results come in.
pub use datafusion::arrow;
