//! Errors of queries, in words for whoever wrote the query.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::context::HistoryContext;
use super::scan::ScanError;

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The query cannot be planned, or failed while it ran.
    #[error("{message}")]
    Query {
        /// What is wrong.
        message: String,
        /// What could be done, when that is known.
        hint: Option<String>,
    },
    /// The log could not be read.
    #[error("{0}")]
    Log(String),
    /// No thread could be had to run the query on.
    #[error("cannot start a thread for the query: {0}")]
    Thread(std::io::Error),
    /// The query's thread ended without an answer, which is a bug in the query engine.
    #[error("the query engine stopped without an answer")]
    Stopped,
    /// It nests too deeply.
    #[error("the query has {operators} operators, {limit} are allowed")]
    TooDeep {
        /// How many it has.
        operators: usize,
        /// The limit.
        limit: usize,
    },
    /// The text is too long.
    #[error("the query has {len} bytes, {limit} are allowed")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
}

impl HistoryError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            HistoryError::Query { hint, .. } => hint.as_deref(),
            HistoryError::Log(_) => Some("`ledge log verify` says what is damaged"),
            HistoryError::TooDeep { .. } => {
                Some("write `seq IN (1, 2, 3)` instead of `seq = 1 OR seq = 2 OR seq = 3`")
            }
            HistoryError::Thread(_) | HistoryError::Stopped | HistoryError::TooLong { .. } => None,
        }
    }
}

impl From<DataFusionError> for HistoryError {
    fn from(err: DataFusionError) -> Self {
        if let Some(reading) = scan_error(&err) {
            return HistoryError::Log(reading);
        }
        let root = err.find_root();
        let query = |message: String, hint: Option<String>| HistoryError::Query { message, hint };
        match root {
            DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => {
                    let mut valid: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
                    valid.dedup();
                    let hint = (!valid.is_empty()).then(|| format!("columns are {}", valid.join(", ")));
                    query(format!("there is no column {}", field.flat_name()), hint)
                }
                other => query(other.to_string(), None),
            },
            DataFusionError::ResourcesExhausted(why) => query(
                format!("not enough memory: {}", first_line(why)),
                Some("give it more with --memory, or narrow the query with WHERE or LIMIT".to_owned()),
            ),
            other => {
                let message = first_line(&other.strip_backtrace()).to_owned();
                let hint = hint_for(&message);
                query(plainer(&message), hint)
            }
        }
    }
}

fn scan_error(err: &DataFusionError) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(err);
    while let Some(current) = cause {
        if let Some(scan) = current.downcast_ref::<ScanError>() {
            return Some(scan.to_string());
        }
        // A boxed or shared error hides behind its wrapper.
        if let Some(DataFusionError::Shared(inner)) = current.downcast_ref::<DataFusionError>()
            && let Some(found) = scan_error(inner)
        {
            return Some(found);
        }
        cause = current.source();
    }
    None
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Without DataFusion's names for its own stages.
fn plainer(message: &str) -> String {
    let mut text = message;
    for stage in [
        "Error during planning: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
    ] {
        text = text.strip_prefix(stage).unwrap_or(text);
    }
    let text = text
        .strip_prefix("ParserError(\"")
        .and_then(|text| text.strip_suffix("\")"))
        .map_or_else(
            || text.to_owned(),
            |text| format!("cannot parse the query: {}", text.replace("\\\"", "\"")),
        );
    text.replace("table 'ledge.log.", "table '")
}

fn hint_for(message: &str) -> Option<String> {
    if message.contains("not supported:")
        && (message.contains("DDL") || message.contains("DML") || message.contains("Statement"))
    {
        return Some("the log can only be read: SELECT, WITH, EXPLAIN, DESCRIBE and SHOW TABLES".to_owned());
    }
    if message.contains("table '") && message.contains("not found") {
        let names: Vec<&str> = HistoryContext::tables().iter().map(|table| table.name).collect();
        return Some(format!("tables are {}", names.join(", ")));
    }
    None
}
