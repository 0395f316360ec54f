//! YAML bodies, as JSON. Scalars are typed by the core schema of YAML 1.2, as `sigs.k8s.io/yaml` does
//! for what people write in manifests, and by the booleans of YAML 1.1 it accepts.

use ledge_yaml::tree::documents;
use ledge_yaml::{Limits, Node, Value as Yaml};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Reads one document.
///
/// # Errors
/// `BadRequest`, with the line.
pub(crate) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let wrong = |why: String| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let text = std::str::from_utf8(body).map_err(|error| wrong(error.to_string()))?;
    let mut documents = documents(text, &Limits::DEFAULT).map_err(|error| wrong(error.to_string()))?;
    if documents.len() != 1 {
        return Err(wrong(format!("expected one document, found {}", documents.len())));
    }
    let node = documents.remove(0).map_err(|error| wrong(error.to_string()))?;
    match json(&node) {
        value @ Value::Object(_) => Ok(value),
        _ => Err(wrong("the document is not a map".to_owned())),
    }
}

fn json(node: &Node) -> Value {
    match &node.value {
        Yaml::List(items) => items.iter().map(json).collect(),
        Yaml::Map(entries) => {
            let entries = entries.iter().map(|(key, node)| (key.clone(), json(node)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Yaml::Scalar(scalar) if !scalar.plain => scalar.text.as_str().into(),
        Yaml::Scalar(_) if node.is_null() => Value::Null,
        Yaml::Scalar(scalar) => plain(&scalar.text),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return true.into(),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return false.into(),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    let looks_like_number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        Ok(number) if looks_like_number && number.is_finite() => number.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_have_types() {
        let text = b"a: 1\nb: '1'\nc: 1.5\nd: true\ne: null\nf: [x, 2]\ng:\n  h: 10.0.0.1\n  i: 1e3x\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": 1, "b": "1", "c": 1.5, "d": true, "e": null, "f": ["x", 2], "g": {"h": "10.0.0.1", "i": "1e3x"}})
        );
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["", "- a", "a: 1\n---\nb: 2", "a: [", "\u{0}"] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().reason.code(), 400, "{text}");
        }
        assert_eq!(parse(&[0xff, 0xfe]).unwrap_err().reason.code(), 400);
    }
}
