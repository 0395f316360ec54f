//! DataFusion's side of a table: planning a scan and running it beside the query.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

use super::bounds::Bounds;
use super::columns::{Column, schema};
use super::scan::Scan;
use super::tables::{RecordTable, StateTable};
use crate::source::FrameSource;

/// Batches read ahead of the query.
const BATCHES_AHEAD: usize = 2;

/// A table: of records or of state.
#[derive(Clone, Copy)]
pub(crate) enum Definition {
    Records(&'static RecordTable),
    State(&'static StateTable),
}

impl Definition {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Definition::Records(table) => table.name,
            Definition::State(table) => table.name,
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Definition::Records(table) => table.about,
            Definition::State(table) => table.about,
        }
    }

    pub(crate) fn schema(self) -> SchemaRef {
        match self {
            Definition::Records(table) => schema(table.columns),
            Definition::State(table) => schema(table.columns),
        }
    }

    /// Name, type and explanation of each column.
    pub(crate) fn columns(self) -> Vec<(&'static str, &'static str, &'static str)> {
        fn of<R>(column: &Column<R>) -> (&'static str, &'static str, &'static str) {
            (column.name, column.of.name(), column.about)
        }
        match self {
            Definition::Records(table) => table.columns.iter().map(of).collect(),
            Definition::State(table) => table.columns.iter().map(of).collect(),
        }
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A table over some sources.
#[derive(Debug)]
pub(crate) struct LogTable {
    definition: Definition,
    schema: SchemaRef,
    sources: Vec<Arc<dyn FrameSource>>,
}

impl LogTable {
    pub(crate) fn new(definition: Definition, sources: Vec<Arc<dyn FrameSource>>) -> Self {
        LogTable {
            definition,
            schema: definition.schema(),
            sources,
        }
    }
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of = |filter: &&Expr| match Bounds::default().add(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection
            .cloned()
            .unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&projection)?);
        let scan = Scan {
            sources: self.sources.clone(),
            projection,
            schema: schema.clone(),
            bounds: Bounds::of(filters),
            batch_rows: state.config().batch_size(),
        };
        let part = Arc::new(Part {
            definition: self.definition,
            scan,
        });
        Ok(Arc::new(StreamingTableExec::try_new(
            schema,
            vec![part],
            None,
            None,
            false,
            limit,
        )?))
    }
}

/// The one partition of a table: rows come in one order, so sums of floating point numbers do not depend on luck.
#[derive(Debug)]
struct Part {
    definition: Definition,
    scan: Scan,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.scan.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        // Reading and decoding block: they run on a thread of their own, one core for them and one for the query.
        let mut stream = RecordBatchReceiverStreamBuilder::new(self.scan.schema.clone(), BATCHES_AHEAD);
        let (definition, scan, batches) = (self.definition, self.scan.clone(), stream.tx());
        stream.spawn_blocking(move || {
            // Sending fails when the query was dropped or has enough rows.
            let mut emit = |batch| batches.blocking_send(Ok(batch)).is_ok();
            match definition {
                Definition::Records(table) => scan.records(table, &mut emit),
                Definition::State(table) => scan.state(table, &mut emit),
            }
            .map_err(|err| DataFusionError::External(Box::new(err)))
        });
        stream.build()
    }
}
