//! The form of what is stored: canonical quantities, and nothing in place of empty lists and maps.

use serde_json::Value;

use super::super::quantity::{canonical, canonical_resource};
use crate::schema::{Schema, Type};

/// Gives `value` the form in which the API server stores what `schema` describes. As deep as the schema, which is bounded.
pub(super) fn tidy(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, field| {
                let Some(inner) = schema.field(name) else {
                    return true;
                };
                // In a map of quantities a thousandth is the least.
                if quantity(inner) {
                    store(
                        field,
                        if schema.lists(name) {
                            canonical
                        } else {
                            canonical_resource
                        },
                    );
                    return true;
                }
                tidy(inner, field);
                let empty = match field {
                    Value::Array(items) => inner.kind == Type::Array && items.is_empty(),
                    Value::Object(entries) => {
                        entries.is_empty() && inner.additional.is_some() && inner.properties.is_empty()
                    }
                    _ => false,
                };
                !empty || !schema.lists(name) || schema.required.contains(name)
            });
        }
        Value::Array(items) => {
            if let Some(inner) = &schema.items {
                items.iter_mut().for_each(|item| tidy(inner, item));
            }
        }
        _ => {}
    }
}

fn quantity(schema: &Schema) -> bool {
    schema.kind == Type::IntOrString && schema.format == "quantity"
}

/// Stores the canonical form; what has none is left for validation to refuse.
fn store(field: &mut Value, form: fn(&str) -> Option<String>) {
    let kept = match &*field {
        Value::String(text) => form(text),
        Value::Number(number) => form(&number.to_string()),
        _ => None,
    };
    if let Some(kept) = kept {
        *field = kept.into();
    }
}
