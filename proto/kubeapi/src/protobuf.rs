//! Bodies in Kubernetes' own encoding: `k8s\0`, then a `runtime.Unknown` message with an object in it. They are turned into
//! the JSON that the same client would have sent, and go on as such; answers are JSON.
//!
//! What the messages look like is told by a table derived from Kubernetes' Go types (`openapi/README.md`). Reading order:
//! `wire`, `table`, `value`.

mod table;
mod value;
mod wire;

use serde_json::Value;

use crate::error::ApiError;
use table::TABLE;
use wire::{Field, Fields};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Deepest nesting of messages, as deep as JSON may be.
const DEPTH_MAX: usize = crate::schema::MAX_DEPTH;

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It does not begin with `k8s\0`.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// It ends within a field, or a length goes past its end.
    #[error("unexpected EOF")]
    Truncated,
    /// A field is encoded in a way that its type is not.
    #[error("proto: wrong wireType = {wire} for field {name}")]
    WireType {
        /// What was found.
        wire: u8,
        /// The field's name in JSON.
        name: String,
    },
    /// A field number or a wire type that does not exist.
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    /// A text is not UTF-8, a time is out of range, JSON in a field is none.
    #[error("the field {0} cannot be read")]
    Content(String),
    /// Messages within messages without end.
    #[error("exceeded max depth")]
    Depth,
    /// A kind that nothing is known of.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    Kind {
        /// As sent.
        api_version: String,
        /// As sent.
        kind: String,
    },
    /// `contentEncoding` or `contentType` of the envelope.
    #[error("the content is in an encoding that is not supported: {0}")]
    Encoding(String),
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> ApiError {
        ApiError::bad_request(error.to_string())
    }
}

/// The object in a body, as JSON.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(body: &[u8]) -> Result<Value, DecodeError> {
    let body = body.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
    let mut api_version = String::new();
    let mut kind = String::new();
    let mut raw: &[u8] = &[];
    let mut content_type = String::new();
    for field in Fields::new(body) {
        let field = field?;
        match field.number {
            1 => {
                for field in Fields::new(field.bytes("typeMeta")?) {
                    let field = field?;
                    match field.number {
                        1 => api_version = field.text("apiVersion")?.to_owned(),
                        2 => kind = field.text("kind")?.to_owned(),
                        _ => {}
                    }
                }
            }
            2 => raw = field.bytes("raw")?,
            3 => refuse_encoding(&field)?,
            4 => content_type = field.text("contentType")?.to_owned(),
            _ => {}
        }
    }
    let mut object = match content_type.as_str() {
        "" | MEDIA_TYPE => {
            let message = TABLE.object(&api_version, &kind);
            let message = message.ok_or_else(|| DecodeError::Kind {
                api_version: shown(&api_version),
                kind: shown(&kind),
            })?;
            value::message(&TABLE, message, raw, DEPTH_MAX)?
        }
        "application/json" => value::json(raw, "raw")?,
        other => return Err(DecodeError::Encoding(shown(other))),
    };
    if !object.is_object() {
        return Err(DecodeError::Content("raw".to_owned()));
    }
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Ok(object)
}

fn refuse_encoding(field: &Field<'_>) -> Result<(), DecodeError> {
    match field.text("contentEncoding")? {
        "" => Ok(()),
        other => Err(DecodeError::Encoding(shown(other))),
    }
}

/// What a message repeats of what was sent.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests;
