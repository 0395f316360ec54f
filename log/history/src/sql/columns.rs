//! Columns of tables and the arrays they are collected in.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Int,
    Double,
    Bool,
    /// Microseconds since 1970, UTC.
    Time,
}

impl Type {
    pub(crate) fn arrow(self) -> DataType {
        match self {
            Type::Text => DataType::Utf8,
            Type::Int => DataType::Int64,
            Type::Double => DataType::Float64,
            Type::Bool => DataType::Boolean,
            Type::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// As written in the help.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Text => "text",
            Type::Int => "bigint",
            Type::Double => "double",
            Type::Bool => "boolean",
            Type::Time => "timestamp (µs, UTC)",
        }
    }
}

/// One value on its way into an array. The variant must be the one of the column's type, or `Null`.
#[derive(Debug)]
pub(crate) enum Cell<'a> {
    Null,
    Text(Cow<'a, str>),
    Int(i64),
    Double(f64),
    Bool(bool),
    Time(i64),
}

impl<'a> Cell<'a> {
    pub(crate) fn text(text: &'a str) -> Self {
        Cell::Text(Cow::Borrowed(text))
    }

    pub(crate) fn owned(text: String) -> Self {
        Cell::Text(Cow::Owned(text))
    }

    /// Counters are far below 2^63; SQL has no unsigned arithmetic that ends well.
    pub(crate) fn count(number: u64) -> Self {
        Cell::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// The cell of an optional value.
    pub(crate) fn opt<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell<'a>) -> Self {
        value.map_or(Cell::Null, cell)
    }
}

/// A column of a table whose rows are `R`.
pub(crate) struct Column<R> {
    pub(crate) name: &'static str,
    pub(crate) of: Type,
    pub(crate) about: &'static str,
    pub(crate) cell: fn(&R) -> Cell<'_>,
}

/// The schema of `columns`.
pub(crate) fn schema<R>(columns: &[Column<R>]) -> SchemaRef {
    let field = |column: &Column<R>| Field::new(column.name, column.of.arrow(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

enum Builder {
    Text(StringBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(of: Type) -> Self {
        match of {
            Type::Text => Builder::Text(StringBuilder::new()),
            Type::Int => Builder::Int(Int64Builder::new()),
            Type::Double => Builder::Double(Float64Builder::new()),
            Type::Bool => Builder::Bool(BooleanBuilder::new()),
            Type::Time => Builder::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        }
    }

    /// Appends `cell` and says how many bytes it took.
    fn push(&mut self, cell: Cell<'_>) -> usize {
        match (self, cell) {
            (Builder::Text(array), Cell::Text(text)) => {
                array.append_value(&text);
                return text.len() + 4;
            }
            (Builder::Int(array), Cell::Int(number)) => array.append_value(number),
            (Builder::Double(array), Cell::Double(number)) => array.append_value(number),
            (Builder::Bool(array), Cell::Bool(yes)) => array.append_value(yes),
            (Builder::Time(array), Cell::Time(us)) => array.append_value(us),
            (array, cell) => {
                debug_assert!(matches!(cell, Cell::Null), "{cell:?} is not of its column's type");
                array.push_null();
            }
        }
        8
    }

    fn push_null(&mut self) {
        match self {
            Builder::Text(array) => array.append_null(),
            Builder::Int(array) => array.append_null(),
            Builder::Double(array) => array.append_null(),
            Builder::Bool(array) => array.append_null(),
            Builder::Time(array) => array.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(array) => Arc::new(array.finish()),
            Builder::Int(array) => Arc::new(array.finish()),
            Builder::Double(array) => Arc::new(array.finish()),
            Builder::Bool(array) => Arc::new(array.finish()),
            Builder::Time(array) => Arc::new(array.finish()),
        }
    }
}

/// A batch is handed on when its text reaches this size, however few rows that is: one record may hold a megabyte.
const BATCH_BYTES: usize = 1024 * 1024;

/// Collects rows into batches of the projected columns.
pub(crate) struct Collector<R: 'static> {
    cells: Vec<fn(&R) -> Cell<'_>>,
    builders: Vec<Builder>,
    schema: SchemaRef,
    rows: usize,
    bytes: usize,
    batch_rows: usize,
}

impl<R> Collector<R> {
    pub(crate) fn new(
        columns: &[Column<R>],
        projection: &[usize],
        schema: SchemaRef,
        batch_rows: usize,
    ) -> Self {
        Collector {
            cells: projection.iter().map(|place| columns[*place].cell).collect(),
            builders: projection
                .iter()
                .map(|place| Builder::new(columns[*place].of))
                .collect(),
            schema,
            rows: 0,
            bytes: 0,
            batch_rows: batch_rows.max(1),
        }
    }

    /// Adds a row; returns the batch it completes.
    pub(crate) fn push(&mut self, row: &R) -> Result<Option<RecordBatch>, ArrowError> {
        for (builder, cell) in self.builders.iter_mut().zip(&self.cells) {
            self.bytes += builder.push(cell(row));
        }
        self.rows += 1;
        if self.rows >= self.batch_rows || self.bytes >= BATCH_BYTES {
            return self.finish();
        }
        Ok(None)
    }

    /// Adds rows of which no column is wanted.
    pub(crate) fn count(&mut self, rows: usize) -> Result<Option<RecordBatch>, ArrowError> {
        debug_assert!(self.cells.is_empty());
        self.rows += rows;
        if self.rows >= self.batch_rows {
            self.finish()
        } else {
            Ok(None)
        }
    }

    /// The rows not handed on yet.
    pub(crate) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.rows == 0 {
            return Ok(None);
        }
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map(Some)
    }
}
