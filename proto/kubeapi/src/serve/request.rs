//! A request as the shell hands it over.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::ApiError;
use crate::protobuf;

/// Who nobody said he is.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of everybody who said who he is.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// HTTP methods the protocol knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "HTTP's own names")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// Reads the method's name (RFC 9110, section 9); `None` for one the protocol does not know.
    pub fn parse(name: &str) -> Option<Method> {
        Some(match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            _ => return None,
        })
    }

    /// In lower case, as authorization calls it for paths that are no resources.
    pub fn as_verb(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Head => "head",
            Method::Post => "post",
            Method::Put => "put",
            Method::Patch => "patch",
            Method::Delete => "delete",
        }
    }
}

/// Who sent a request, as the shell found out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// Such as `kubernetes-admin` or `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
    /// Tells apart those who had the same name one after another; may be empty.
    pub uid: String,
    /// What else is known, such as `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Somebody of that name in those groups, of whom nothing else is known.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> User {
        User {
            name: name.into(),
            groups: groups.into_iter().map(Into::into).collect(),
            ..User::default()
        }
    }
}

/// A service account, as upstream names it.
pub fn service_account(namespace: &str, name: &str) -> User {
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        AUTHENTICATED.to_owned(),
    ];
    User::new(format!("system:serviceaccount:{namespace}:{name}"), groups)
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Path as in the request line, without the query.
    pub path: String,
    /// The query, without `?`.
    pub query: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Bytes,
    /// Who sent it.
    pub user: User,
}

impl Request {
    /// The value of a header, by its name in lower case; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// The media type of the body, without parameters, in lower case.
    pub fn content_type(&self) -> String {
        let value = self.header("content-type");
        let media = value.split(';').next().unwrap_or_default();
        media.trim().to_ascii_lowercase()
    }

    /// Turns a body in Kubernetes' protobuf encoding, or in YAML, into JSON.
    ///
    /// # Errors
    /// `BadRequest` for one that cannot be read.
    pub(super) fn decode_body(&mut self) -> Result<(), ApiError> {
        if self.body.is_empty() {
            return Ok(());
        }
        let object = match self.content_type().as_str() {
            protobuf::MEDIA_TYPE => protobuf::decode(&self.body)?,
            "application/yaml" => crate::yaml::parse(&self.body)?,
            _ => return Ok(()),
        };
        self.body = serde_json::to_vec(&object).unwrap_or_default().into();
        for (name, value) in &mut self.headers {
            if name == "content-type" {
                "application/json".clone_into(value);
            }
        }
        Ok(())
    }

    /// Who writes, for managedFields when the query does not say: what the user agent begins with.
    pub fn default_manager(&self) -> String {
        let agent = self.header("user-agent");
        let name: String = agent
            .split('/')
            .next()
            .unwrap_or_default()
            .chars()
            .take(128)
            .collect();
        if name.is_empty() {
            "unknown".to_owned()
        } else {
            name
        }
    }
}
