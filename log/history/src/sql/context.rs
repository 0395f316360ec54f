//! Queries: limits, what SQL may do, results.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::depth;
use super::error::HistoryError;
use super::provider::{Definition, LogTable};
use super::tables::{RECORD_TABLES, STATE_TABLES};
use crate::source::FrameSource;

/// Longest query, bytes. Generated ones can be long; beyond this it is an attack or a mistake.
const QUERY_MAX_BYTES: usize = 256 * 1024;
/// Stack of a query's thread: several times what the deepest query takes. Untouched pages cost nothing.
const QUERY_STACK_BYTES: usize = 32 * 1024 * 1024;
/// Batches finished ahead of the reader.
const RESULTS_AHEAD: usize = 1;
/// What a sort sets aside for merging its spills. The default of 10 MiB is more than a small pool has.
const SORT_RESERVE_BYTES: usize = 1024 * 1024;
const BATCH_ROWS: usize = 8192;

/// Limits of the queries of a [`HistoryContext`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for sorting, grouping and joining, all queries together, bytes. What does not fit is spilled to disk
    /// or, where that is impossible, fails with an error.
    pub memory_bytes: usize,
    /// Disk for spilling, bytes, in the system's temporary directory.
    pub spill_bytes: u64,
}

impl Options {
    /// Below this DataFusion cannot sort at all, bytes.
    pub const MEMORY_MIN_BYTES: usize = 4 * 1024 * 1024;
}

impl Default for Options {
    fn default() -> Self {
        Options {
            memory_bytes: 64 * 1024 * 1024,
            spill_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// Name, meaning and columns of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: &'static str,
    /// What its rows are.
    pub about: &'static str,
    /// Name, type and meaning of each column.
    pub columns: Vec<(&'static str, &'static str, &'static str)>,
}

/// History as SQL tables. Read-only: nothing but queries is accepted.
pub struct HistoryContext {
    session: SessionContext,
}

impl HistoryContext {
    /// The tables over `sources`. Parts of one stream in several sources are read once.
    ///
    /// # Errors
    /// When the limits make no sense to DataFusion.
    pub fn new(sources: Vec<Arc<dyn FrameSource>>, options: &Options) -> Result<Self, HistoryError> {
        let memory = options.memory_bytes.max(Options::MEMORY_MIN_BYTES);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .with_max_temp_directory_size(options.spill_bytes)
            .build_arc()?;
        // One partition: reading has its own thread already, and the result must not depend on which of two
        // partial sums came first. See the module documentation of `scan`.
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS)
            .with_sort_spill_reservation_bytes(SORT_RESERVE_BYTES)
            .with_information_schema(true)
            .with_default_catalog_and_schema("ledge", "log");
        let session = SessionContext::new_with_config_rt(config, runtime);
        for definition in definitions() {
            session.register_table(
                definition.name(),
                Arc::new(LogTable::new(definition, sources.clone())),
            )?;
        }
        Ok(HistoryContext { session })
    }

    /// Plans and starts a query. SELECT, WITH, EXPLAIN, DESCRIBE and SHOW TABLES are accepted; nothing that would
    /// write, read other files or change settings.
    ///
    /// It runs on a thread of its own, so that a heavy query takes no time from the caller's tasks.
    ///
    /// # Errors
    /// When the text is no single query, or names what is not there.
    pub async fn sql(&self, query: &str) -> Result<Rows, HistoryError> {
        if query.len() > QUERY_MAX_BYTES {
            return Err(HistoryError::TooLong {
                len: query.len(),
                limit: QUERY_MAX_BYTES,
            });
        }
        let operators = depth::operators(query);
        if operators > depth::OPERATORS_MAX {
            return Err(HistoryError::TooDeep {
                operators,
                limit: depth::OPERATORS_MAX,
            });
        }
        let (session, query) = (self.session.clone(), query.to_owned());
        let (planned, plan) = oneshot::channel();
        let (results, batches) = mpsc::channel(RESULTS_AHEAD);
        std::thread::Builder::new()
            .name("history-query".to_owned())
            .stack_size(QUERY_STACK_BYTES)
            .spawn(move || run(&session, &query, planned, &results))
            .map_err(HistoryError::Thread)?;
        let schema = plan.await.map_err(|_| HistoryError::Stopped)??;
        Ok(Rows { schema, batches })
    }

    /// Every table and column, for people.
    pub fn tables() -> Vec<TableInfo> {
        let info = |table: Definition| TableInfo {
            name: table.name(),
            about: table.about(),
            columns: table.columns(),
        };
        definitions().map(info).collect()
    }
}

fn definitions() -> impl Iterator<Item = Definition> {
    RECORD_TABLES
        .iter()
        .map(Definition::Records)
        .chain(STATE_TABLES.iter().map(Definition::State))
}

type Planned = oneshot::Sender<Result<SchemaRef, HistoryError>>;
type Results = mpsc::Sender<Result<RecordBatch, HistoryError>>;

/// The life of a query's thread.
fn run(session: &SessionContext, query: &str, planned: Planned, results: &Results) {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            planned.send(Err(HistoryError::Thread(err))).ok();
            return;
        }
    };
    runtime.block_on(async {
        let mut stream = match plan(session, query).await {
            Ok(stream) => stream,
            Err(err) => {
                planned.send(Err(err.into())).ok();
                return;
            }
        };
        if planned.send(Ok(stream.schema())).is_err() {
            return;
        }
        loop {
            // A query may compute for hours between two batches: notice at once that nobody waits any more.
            let batch = tokio::select! {
                () = results.closed() => return,
                batch = stream.next() => batch,
            };
            let Some(batch) = batch else { return };
            if results.send(batch.map_err(HistoryError::from)).await.is_err() {
                return;
            }
        }
    });
}

async fn plan(session: &SessionContext, query: &str) -> Result<SendableRecordBatchStream, DataFusionError> {
    let only_queries = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    session
        .sql_with_options(query, only_queries)
        .await?
        .execute_stream()
        .await
}

/// The rows of a result, a batch at a time. Dropping it stops the query.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    batches: mpsc::Receiver<Result<RecordBatch, HistoryError>>,
}

impl Rows {
    /// Names and types of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The next rows, or `None` after the last.
    ///
    /// # Errors
    /// When reading or computing fails, or memory runs out.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, HistoryError> {
        self.batches.recv().await.transpose()
    }
}
