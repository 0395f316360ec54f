//! Errors as the Kubernetes API server gives them: `Status` objects with code, reason and message.
//! Source: `k8s.io/apimachinery/pkg/api/errors` and `meta/v1` types.

use serde_json::{Value, json};

use crate::resource::GroupResource;

/// Machine-readable reason of a failure, as in `Status.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the protocol")]
pub enum Reason {
    AlreadyExists,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Gone,
    InternalError,
    Invalid,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
    Timeout,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
}

impl Reason {
    /// As written in `Status.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::AlreadyExists => "AlreadyExists",
            Reason::BadRequest => "BadRequest",
            Reason::Conflict => "Conflict",
            Reason::Expired => "Expired",
            Reason::Forbidden => "Forbidden",
            Reason::Gone => "Gone",
            Reason::InternalError => "InternalError",
            Reason::Invalid => "Invalid",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::NotFound => "NotFound",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::Unauthorized => "Unauthorized",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
        }
    }

    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired | Reason::Gone => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

/// One of the things that are wrong with an object, as in `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Such as `FieldValueInvalid`, `FieldValueRequired`, `FieldValueNotSupported`.
    pub reason: &'static str,
    /// What is wrong, without the field's name.
    pub message: String,
    /// Path of the field, such as `spec.properties[0].name`.
    pub field: String,
}

/// A failure that the client is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Why.
    pub reason: Reason,
    /// For people, in upstream's wording.
    pub message: String,
    /// `Status.details`.
    pub details: Option<Box<Details>>,
}

/// `Status.details`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Plural name of the resource, except for [`ApiError::invalid`], where upstream gives the kind.
    pub kind: String,
    /// `metadata.uid` of the object.
    pub uid: String,
    /// What is wrong, one by one.
    pub causes: Vec<Cause>,
    /// When to try again, seconds.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// A failure without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> ApiError {
        ApiError {
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn of(reason: Reason, resource: &GroupResource, name: &str, message: String) -> ApiError {
        ApiError {
            reason,
            message,
            details: Some(Box::new(Details {
                name: name.to_owned(),
                group: resource.group.clone(),
                kind: resource.resource.clone(),
                ..Details::default()
            })),
        }
    }

    /// 404: no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> ApiError {
        ApiError::of(
            Reason::NotFound,
            resource,
            name,
            format!("{resource} \"{name}\" not found"),
        )
    }

    /// 404: no such path.
    pub fn no_such_path() -> ApiError {
        ApiError {
            details: Some(Box::default()),
            ..ApiError::new(
                Reason::NotFound,
                "the server could not find the requested resource",
            )
        }
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &GroupResource, name: &str) -> ApiError {
        let message = format!("{resource} \"{name}\" already exists");
        ApiError::of(Reason::AlreadyExists, resource, name, message)
    }

    /// 409: the object changed since it was read.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> ApiError {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        ApiError::of(Reason::Conflict, resource, name, message)
    }

    /// 409, in upstream's words for a stale `resourceVersion`.
    pub fn modified(resource: &GroupResource, name: &str) -> ApiError {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        ApiError::conflict(resource, name, why)
    }

    /// 403.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> ApiError {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        ApiError::of(Reason::Forbidden, resource, name, message)
    }

    /// 422: what is wrong with an object, field by field.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> ApiError {
        let kind_and_group = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let told: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let told = match told.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        ApiError {
            reason: Reason::Invalid,
            message: format!("{kind_and_group} \"{name}\" is invalid: {told}"),
            details: Some(Box::new(Details {
                name: name.to_owned(),
                group: group.to_owned(),
                kind: kind.to_owned(),
                causes,
                ..Details::default()
            })),
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::BadRequest, message)
    }

    /// 410: the version asked for is not held any more.
    pub fn expired(message: impl Into<String>) -> ApiError {
        ApiError::new(Reason::Expired, message)
    }

    /// 500: our own fault.
    pub fn internal(message: impl std::fmt::Display) -> ApiError {
        ApiError::new(
            Reason::InternalError,
            format!("Internal error occurred: {message}"),
        )
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason.as_str(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.json();
        }
        status["code"] = self.reason.code().into();
        status
    }
}

impl Details {
    fn json(&self) -> Value {
        let mut out = serde_json::Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter();
            let causes = causes.map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
            out.insert("causes".to_owned(), causes.collect());
        }
        if let Some(seconds) = self.retry_after {
            out.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        out.into()
    }
}
