//! The server-side table (`meta.k8s.io/v1` `Table`): what `kubectl get` prints.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor` and
//! `k8s.io/apimachinery/pkg/util/duration`.

mod jsonpath;

use serde_json::{Value, json};

use self::jsonpath::JsonPath;
use crate::meta::time_us;
use crate::resource::{Column, ColumnSource, Resource};

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some \
    resources may allow a client to request the generation of an appropriate name automatically. Name is primarily \
    intended for creation idempotence and configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. \
    It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It \
    is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// What a row carries besides its cells (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The object's metadata.
    Metadata,
    /// The object.
    Object,
}

impl Include {
    /// Reads the query parameter; metadata is the default.
    pub fn parse(text: &str) -> Include {
        match text {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        }
    }
}

/// What to show.
#[derive(Debug)]
pub struct Table<'a> {
    /// The kind, in the version of the objects.
    pub resource: &'a Resource,
    /// A row each.
    pub objects: &'a [Value],
    /// Metadata of the list.
    pub metadata: Value,
    /// What a row carries besides its cells.
    pub include: Include,
    /// Whether the columns are described: not again in later events of a watch.
    pub columns: bool,
    /// Wall clock, microseconds since 1970: what ages are counted from.
    pub now_us: i64,
}

/// Renders it as JSON.
pub fn render(table: &Table<'_>) -> Value {
    let defaults;
    let columns = if table.resource.columns.is_empty() {
        defaults = default_columns();
        &defaults
    } else {
        &table.resource.columns
    };
    let cells: Vec<Cell<'_>> = columns.iter().map(Cell::of).collect();
    let rows = table.objects.iter().map(|object| {
        // What a cell shows is read from the stored form.
        let stored = table
            .resource
            .view
            .as_ref()
            .map(|view| (view.to_stored)(object.clone()));
        let stored = stored.as_ref().unwrap_or(object);
        let cells = cells.iter().map(|cell| cell.value(stored, table.now_us));
        let shown = match table.include {
            Include::None => Value::Null,
            Include::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            }),
            Include::Object => object.clone(),
        };
        json!({ "cells": cells.collect::<Vec<_>>(), "object": shown })
    });
    let rows: Vec<Value> = rows.collect();
    let definitions = columns.iter().filter(|_| table.columns).map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    });
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": table.metadata,
        "columnDefinitions": definitions.collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// The column with the object's name.
fn name_column() -> Column {
    Column {
        name: "Name".to_owned(),
        kind: "string".to_owned(),
        format: "name".to_owned(),
        description: NAME_DESCRIPTION.to_owned(),
        priority: 0,
        source: ColumnSource::Name,
    }
}

/// Columns of a kind that says nothing of them.
fn default_columns() -> Vec<Column> {
    let age = Column {
        name: "Age".to_owned(),
        kind: "date".to_owned(),
        format: String::new(),
        description: AGE_DESCRIPTION.to_owned(),
        priority: 0,
        source: ColumnSource::Age,
    };
    vec![name_column(), age]
}

/// Columns of a version of a CustomResourceDefinition, from its `additionalPrinterColumns`; name and age where it has none.
pub fn custom_columns(version: &Value) -> Vec<Column> {
    let listed = version["additionalPrinterColumns"].as_array();
    let Some(listed) = listed.filter(|listed| !listed.is_empty()) else {
        return default_columns();
    };
    let mut columns = vec![name_column()];
    columns.extend(listed.iter().map(|column| {
        let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
        let path = text("jsonPath");
        let description = match text("description") {
            empty if empty.is_empty() => {
                format!("Custom resource definition column (in JSONPath format): {path}")
            }
            given => given,
        };
        let priority = column["priority"].as_i64().unwrap_or_default();
        Column {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description,
            priority: i32::try_from(priority).unwrap_or(i32::MAX),
            source: ColumnSource::JsonPath(path),
        }
    }));
    columns
}

/// A column that is ready to be asked.
enum Cell<'a> {
    Name,
    Age,
    /// `None`: a path that cannot be read, which shows nothing.
    Path(Option<JsonPath>, &'a str),
    Computed(fn(&Value, i64) -> Value),
}

impl<'a> Cell<'a> {
    fn of(column: &'a Column) -> Cell<'a> {
        match &column.source {
            ColumnSource::Name => Cell::Name,
            ColumnSource::Age => Cell::Age,
            ColumnSource::JsonPath(path) => Cell::Path(JsonPath::parse(path), &column.kind),
            ColumnSource::Computed(compute) => Cell::Computed(*compute),
        }
    }

    fn value(&self, object: &Value, now_us: i64) -> Value {
        match self {
            Cell::Name => object["metadata"]["name"].clone(),
            Cell::Age => since(&object["metadata"]["creationTimestamp"], now_us).into(),
            Cell::Path(None, _) => Value::Null,
            Cell::Path(Some(path), kind) => match path.first(object) {
                Some(found) => shown(kind, found, now_us),
                None => Value::Null,
            },
            Cell::Computed(compute) => compute(object, now_us),
        }
    }
}

/// A found value as a cell of a type; null where it is of another type.
fn shown(kind: &str, found: &Value, now_us: i64) -> Value {
    match (kind, found) {
        ("string", _) => text_of(found).into(),
        ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            #[allow(clippy::cast_possible_truncation, reason = "cut off, as upstream does")]
            (None, Some(float)) => (float as i64).into(),
            (None, None) => Value::Null,
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
        ("date", Value::String(text)) => match time_us(text) {
            Some(time_us) => age(time_us, now_us).into(),
            None => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// A value in a column of strings.
fn text_of(found: &Value) -> String {
    match found {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        // A float without a fraction prints as a whole number.
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map(|n| n.to_string()).unwrap_or_default()
        }
        other => other.to_string(),
    }
}

/// How long ago a time is, of an optional RFC 3339 field.
pub(crate) fn since(field: &Value, now_us: i64) -> String {
    match field.as_str().and_then(time_us) {
        Some(time_us) => age(time_us, now_us),
        None => "<unknown>".to_owned(),
    }
}

fn age(time_us: i64, now_us: i64) -> String {
    human_duration(now_us.saturating_sub(time_us) / 1_000_000)
}

/// A duration in two or three significant figures, as kubectl prints it. Up to a second in the future is now (clocks
/// differ); more is `<invalid>`.
pub fn human_duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = minutes / 60;
    let days = hours / 24;
    // The second unit is left out when there are none of it.
    let both = |n: i64, unit: char, rest: i64, smaller: char| match rest {
        0 => format!("{n}{unit}"),
        rest => format!("{n}{unit}{rest}{smaller}"),
    };
    if seconds < -1 {
        "<invalid>".to_owned()
    } else if seconds < 120 {
        format!("{}s", seconds.max(0))
    } else if minutes < 10 {
        both(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        both(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        both(days, 'd', hours % 24, 'h')
    } else if days < 365 * 2 {
        format!("{days}d")
    } else if days < 365 * 8 {
        both(days / 365, 'y', days % 365, 'd')
    } else {
        format!("{}y", days / 365)
    }
}

#[cfg(test)]
mod tests;
