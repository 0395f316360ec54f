//! `ledge sql`.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ledge_history::source::LogSource;
use ledge_history::sql::arrow::array::{Array, RecordBatch};
use ledge_history::sql::arrow::datatypes::{DataType, Schema};
use ledge_history::sql::arrow::util::display::{ArrayFormatter, FormatOptions};
use ledge_history::{HistoryContext, HistoryError, Options, Rows};
use serde_json::{Map, Value as Json, json};

use super::Context;
use crate::error::{Failure, Quit};
use crate::exit::Code;
use crate::human::parse_bytes;
use crate::open::Dir;
use crate::out::{Format, Out};
use crate::table::{Lean, Table};

const EXAMPLES: &str = "\
Examples:
  ledge sql /var/lib/ledge/edge \"SELECT time, value FROM samples WHERE device = 'plant/pump-1' ORDER BY time\"
  ledge sql /var/lib/ledge/cloud \"SELECT node, count(*), max(time) FROM samples GROUP BY node ORDER BY node\"
  ledge sql /var/lib/ledge/edge \"SELECT date_bin(interval '1 minute', time) AS minute, avg(value)
      FROM samples WHERE property = 'speed' GROUP BY minute ORDER BY minute\"
  ledge sql /var/lib/ledge/edge \"SELECT * FROM gaps\" -o json
  ledge sql /var/lib/ledge/edge < report.sql
  ledge sql --schema                              tables and columns";

/// Query the history and the current state in a log with SQL.
///
/// The tables are samples, events, gaps and records (one row per record) and twins, devices and nodes (the state the
/// log adds up to); `ledge help sql` explains every column. The query only reads, in bounded memory, straight from
/// the log; nothing is imported first.
///
/// The same query on an edge's log and on the cloud's gives the same bytes for the same node's rows. Rows of a table
/// come in the order of stream names, then sequence numbers; joins and groups have no order of their own, so where
/// order matters, write ORDER BY.
#[derive(Debug, Args)]
#[command(after_long_help = format!("{EXAMPLES}\n\nTables:\n\n{}", super::topics::sql_tables().trim_end()))]
pub struct Sql {
    /// Data directory of an edgecore or cloudcore, or the `log` directory in it.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath, required_unless_present = "schema")]
    dir: Option<PathBuf>,
    /// The query; read from standard input when it is left out.
    #[arg(value_name = "SQL", conflicts_with = "file")]
    query: Option<String>,
    /// Read the query from this file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Memory for sorting, grouping and joining; sorts that need more go to disk.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory)]
    memory: usize,
    /// Print the tables and their columns instead.
    #[arg(long)]
    schema: bool,
}

fn memory(text: &str) -> Result<usize, String> {
    let bytes = parse_bytes(text).ok_or("write a size such as 64MiB or 1GiB")?;
    let bytes = usize::try_from(bytes).map_err(|_| "too much".to_owned())?;
    if bytes < Options::MEMORY_MIN_BYTES {
        Err("at least 4MiB are needed".to_owned())
    } else {
        Ok(bytes)
    }
}

pub(crate) fn run(args: &Sql, context: &mut Context) -> Result<Code, Quit> {
    if args.schema {
        return print_schema(context);
    }
    let Some(dir) = args.dir.clone() else {
        return Err(Failure::usage("DIR is missing").into());
    };
    let query = query(args)?;
    let view = Arc::new(Dir::new(dir).open()?);
    let options = Options {
        memory_bytes: args.memory,
        ..Options::default()
    };
    let history =
        HistoryContext::new(vec![Arc::new(LogSource::new(view))], &options).map_err(|err| failed(&err))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|err| Failure::new(format!("cannot start the query: {err}")))?;
    runtime.block_on(async {
        let rows = history.sql(&query).await.map_err(|err| failed(&err))?;
        print(rows, &mut context.out).await
    })?;
    Ok(Code::Yes)
}

fn query(args: &Sql) -> Result<String, Failure> {
    let text = match (&args.query, &args.file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|err| Failure::usage(format!("cannot read {}: {err}", file.display())))?,
        (None, None) => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|err| Failure::usage(format!("cannot read the query from standard input: {err}")))?;
            text
        }
    };
    if text.trim().is_empty() {
        return Err(
            Failure::usage("the query is empty").hint("for example \"SELECT * FROM samples LIMIT 10\"")
        );
    }
    Ok(text)
}

fn failed(err: &HistoryError) -> Failure {
    let failure = match err {
        HistoryError::Log(_) => Failure::unreadable(err.to_string()),
        _ => Failure::new(err.to_string()),
    };
    match err.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

async fn print(mut rows: Rows, out: &mut Out) -> Result<(), Quit> {
    let schema = rows.schema();
    let mut table = table(&schema, out);
    while let Some(batch) = rows.next().await.map_err(|err| failed(&err))? {
        let columns = columns(&batch)?;
        for row in 0..batch.num_rows() {
            if out.format() == Format::Table {
                let text = |(array, column): (&Arc<dyn Array>, &ArrayFormatter<'_>)| {
                    if array.is_null(row) {
                        "-".to_owned()
                    } else {
                        column.value(row).to_string()
                    }
                };
                table.row(out, batch.columns().iter().zip(&columns).map(text).collect())?;
            } else {
                out.item(&json_row(&schema, &batch, &columns, row))?;
            }
        }
    }
    if out.format() == Format::Table {
        table.flush(out)?;
    }
    Ok(())
}

fn table(schema: &Schema, out: &Out) -> Table {
    // A result is never cut: what looks like the whole value must be it.
    let lean = |of: &DataType| if of.is_numeric() { Lean::Right } else { Lean::Whole };
    let lean = schema
        .fields()
        .iter()
        .map(|field| lean(field.data_type()))
        .collect();
    let titles = schema.fields().iter().map(|field| field.name().clone()).collect();
    out.table_with_titles(titles, lean)
}

fn columns(batch: &RecordBatch) -> Result<Vec<ArrayFormatter<'_>>, Failure> {
    const OPTIONS: FormatOptions<'static> =
        FormatOptions::new().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));
    batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &OPTIONS))
        .collect::<Result<_, _>>()
        .map_err(|err| Failure::new(format!("cannot show the result: {err}")))
}

/// A row as an object, in the order of the columns as far as JSON has one.
fn json_row(schema: &Schema, batch: &RecordBatch, columns: &[ArrayFormatter<'_>], row: usize) -> Json {
    let mut object = Map::new();
    for ((field, array), column) in schema.fields().iter().zip(batch.columns()).zip(columns) {
        let value = if array.is_null(row) {
            Json::Null
        } else {
            json_value(field.data_type(), column.value(row).to_string())
        };
        object.insert(field.name().clone(), value);
    }
    Json::Object(object)
}

/// Integers, doubles and booleans as JSON knows them; everything else, and numbers JSON lacks, as text.
fn json_value(of: &DataType, text: String) -> Json {
    let number = match of {
        DataType::Boolean => return json!(text == "true"),
        of if of.is_signed_integer() => text.parse::<i64>().ok().map(serde_json::Number::from),
        of if of.is_unsigned_integer() => text.parse::<u64>().ok().map(serde_json::Number::from),
        of if of.is_floating() => text.parse::<f64>().ok().and_then(serde_json::Number::from_f64),
        _ => None,
    };
    number.map_or(Json::String(text), Json::Number)
}

fn print_schema(context: &mut Context) -> Result<Code, Quit> {
    let tables: Vec<Json> = HistoryContext::tables()
        .iter()
        .map(|table| {
            let columns: Vec<Json> = table
                .columns
                .iter()
                .map(|(name, of, about)| json!({ "name": name, "type": of, "about": about }))
                .collect();
            json!({ "table": table.name, "about": table.about, "columns": columns })
        })
        .collect();
    if !context.out.document(&tables)? {
        context.out.text(&super::topics::sql_tables())?;
    }
    Ok(Code::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_types_and_never_loses_a_number() {
        for (of, text, value) in [
            (DataType::Int64, "-7", json!(-7)),
            (DataType::UInt64, "18446744073709551615", json!(u64::MAX)),
            (DataType::Float64, "20.5", json!(20.5)),
            (DataType::Float64, "NaN", json!("NaN")),
            (DataType::Boolean, "true", json!(true)),
            (DataType::Utf8, "7", json!("7")),
        ] {
            assert_eq!(json_value(&of, text.to_owned()), value);
        }
    }
}
