//! Responses, and the forms an object is given in: itself, a row of a table, or its metadata alone.

use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use super::Call;
use super::request::Request;
use crate::error::{ApiError, Reason};
use crate::object::{Object, Version};
use crate::path::Target;
use crate::resource::Registry;
use crate::{discovery, openapi, table};

/// A response as the shell has to send it.
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Body,
}

/// The body of a response.
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Pieces as they come: a watch. Each piece is sent at once. The stream ends when the watch ends.
    Stream(BoxStream<'static, Bytes>),
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Response");
        out.field("status", &self.status).field("headers", &self.headers);
        if let Body::Whole(bytes) = &self.body {
            out.field("body", &String::from_utf8_lossy(bytes));
        }
        out.finish_non_exhaustive()
    }
}

impl Response {
    /// JSON.
    pub fn json(status: u16, value: &Value) -> Response {
        Response::bytes(status, serde_json::to_vec(value).unwrap_or_default().into())
    }

    /// JSON that is encoded already.
    pub fn bytes(status: u16, body: Bytes) -> Response {
        Response {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: Body::Whole(body),
        }
    }

    /// Plain text.
    pub fn text(status: u16, text: &str) -> Response {
        Response {
            status,
            headers: vec![("content-type", "text/plain; charset=utf-8".to_owned())],
            body: Body::Whole(Bytes::copy_from_slice(text.as_bytes())),
        }
    }

    /// A failure.
    pub fn error(error: &ApiError) -> Response {
        let mut response = Response::json(error.reason.code(), &error.status());
        let retry = error.details.as_ref().and_then(|details| details.retry_after);
        if let Some(seconds) = retry {
            response.headers.push(("retry-after", seconds.to_string()));
        }
        response
    }

    /// Adds `Warning` headers (RFC 9111, section 5.5, as Kubernetes uses them), bounded.
    pub fn with_warnings(mut self, warnings: &[String]) -> Response {
        for warning in warnings.iter().take(32) {
            let text: String = warning.chars().filter(|c| !c.is_control()).take(512).collect();
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            self.headers.push(("warning", format!("299 - \"{text}\"")));
        }
        self
    }
}

/// The form in which the client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The objects.
    Object,
    /// `as=Table`.
    Table,
    /// `as=PartialObjectMetadata`, `as=PartialObjectMetadataList`.
    Metadata,
}

impl Format {
    /// Chooses by an `Accept` header: the first form in it that is served.
    ///
    /// # Errors
    /// `NotAcceptable`, when none is.
    pub fn of(accept: &str) -> Result<Format, ApiError> {
        if accept.is_empty() {
            return Ok(Format::Object);
        }
        for choice in accept.split(',') {
            let mut parts = choice.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            if !matches!(media.as_str(), "application/json" | "application/*" | "*/*") {
                continue;
            }
            let mut form = None;
            let mut group = "";
            for part in parts {
                match part.split_once('=') {
                    Some(("as", name)) => form = Some(name),
                    Some(("g", name)) => group = name,
                    _ => {}
                }
            }
            match (form, group) {
                (None, _) => return Ok(Format::Object),
                (Some("Table"), "meta.k8s.io") => return Ok(Format::Table),
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), "meta.k8s.io") => {
                    return Ok(Format::Metadata);
                }
                _ => {}
            }
        }
        Err(ApiError::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json",
        ))
    }
}

impl Call<'_> {
    /// The object in the version that was asked for.
    pub(super) fn value_of(&self, object: &Object) -> Result<Value, ApiError> {
        self.registry.from_stored(&self.resource, object.value())
    }

    /// The object as JSON in the version that was asked for: as it is stored, wherever that is the same.
    pub(super) fn bytes_of(&self, object: &Object) -> Result<Bytes, ApiError> {
        if self.resource.storage {
            return Ok(object.json().clone());
        }
        Ok(serde_json::to_vec(&self.value_of(object)?)
            .unwrap_or_default()
            .into())
    }

    /// One object, in the form that was asked for.
    pub(super) fn object(&self, status: u16, object: &Object) -> Result<Response, ApiError> {
        match self.format {
            Format::Object => Ok(Response::bytes(status, self.bytes_of(object)?)),
            _ => Ok(self.value(status, self.value_of(object)?)),
        }
    }

    /// One object that is not stored (of a dry run, or just made), in the form that was asked for.
    pub(super) fn value(&self, status: u16, value: Value) -> Response {
        let shown = match self.format {
            Format::Object => value,
            Format::Metadata => metadata_of(&value),
            Format::Table => {
                let version = value["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                let list_metadata = json!({ "resourceVersion": version });
                self.table(&[value], list_metadata, true)
            }
        };
        Response::json(status, &shown)
    }

    /// A table of objects in the version that was asked for; `columns` is false for all but the first event of a watch.
    pub(super) fn table(&self, values: &[Value], metadata: Value, columns: bool) -> Value {
        table::render(&table::Table {
            resource: &self.resource,
            objects: values,
            metadata,
            include: table::Include::parse(&self.options.include_object),
            columns,
            now_us: self.api.env.now_us(),
        })
    }

    /// A list.
    pub(super) fn list_of(
        &self,
        objects: &[Object],
        version: Version,
        resume: Option<String>,
        remaining: Option<u64>,
    ) -> Result<Response, ApiError> {
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if let Some(resume) = resume {
            metadata["continue"] = resume.into();
            if let Some(remaining) = remaining {
                metadata["remainingItemCount"] = remaining.into();
            }
        }
        match self.format {
            Format::Object => {
                let head = json!({
                    "kind": self.resource.list_kind,
                    "apiVersion": self.resource.api_version(),
                    "metadata": metadata,
                });
                let mut out = serde_json::to_vec(&head).unwrap_or_default();
                out.pop(); // The closing brace: the items come before it.
                out.extend_from_slice(b",\"items\":[");
                for (n, object) in objects.iter().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(&self.bytes_of(object)?);
                }
                out.extend_from_slice(b"]}");
                Ok(Response::bytes(200, out.into()))
            }
            Format::Table => {
                let values = objects.iter().map(|object| self.value_of(object));
                let values: Vec<Value> = values.collect::<Result<_, _>>()?;
                Ok(Response::json(200, &self.table(&values, metadata, true)))
            }
            Format::Metadata => {
                let items = objects
                    .iter()
                    .map(|object| Ok(metadata_of(&self.value_of(object)?)));
                Ok(Response::json(
                    200,
                    &json!({
                        "kind": "PartialObjectMetadataList",
                        "apiVersion": "meta.k8s.io/v1",
                        "metadata": metadata,
                        "items": items.collect::<Result<Vec<_>, ApiError>>()?,
                    }),
                ))
            }
        }
    }
}

/// The metadata of an object, as `PartialObjectMetadata`.
pub(super) fn metadata_of(value: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": value["metadata"],
    })
}

/// Discovery, OpenAPI, version and health; `None` for a path that is none of these.
pub(super) fn describe(registry: &Registry, request: &Request, target: &Target) -> Option<Response> {
    let accept = request.header("accept");
    let json = |value: Value| Some(Response::json(200, &value));
    let names = match target {
        Target::Groups { core } if discovery::wants_aggregated(accept) => {
            let (body, content_type) = discovery::aggregated(registry, *core, accept);
            let mut response = Response::json(200, &body);
            response.headers = vec![("content-type", content_type.to_owned())];
            return Some(response);
        }
        Target::Groups { core: true } => return json(discovery::api_versions(registry)),
        Target::Groups { core: false } => return json(discovery::api_group_list(registry)),
        Target::Group(group) => return discovery::api_group(registry, group).and_then(json),
        Target::GroupVersion { group, version } => {
            return discovery::api_resource_list(registry, group, version).and_then(json);
        }
        Target::Other(names) => names,
        Target::Resource(_) => return None,
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["version"] => json(discovery::version()),
        ["healthz" | "livez" | "readyz", ..] => Some(Response::text(200, "ok")),
        ["openapi", "v3"] => json(openapi::index(registry)),
        ["openapi", "v3", rest @ ..] => {
            openapi::document(registry, &rest.join("/")).map(|document| Response::bytes(200, document))
        }
        ["openapi", "v2"] => Some(match openapi::v2_protobuf(accept) {
            Some((media_type, document)) => {
                let mut response = Response::bytes(200, document.into());
                response.headers = vec![("content-type", media_type.to_owned())];
                response
            }
            None => Response::json(200, &openapi::v2()),
        }),
        [] => json(discovery::paths(registry)),
        _ => None,
    }
}
