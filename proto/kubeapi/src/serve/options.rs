//! What the query of a request asks for. Source: `meta/v1` GetOptions, ListOptions, CreateOptions, PatchOptions.

use serde_json::{Map, Value};

use super::request::Method;
use crate::error::{ApiError, Cause};
use crate::object::{ObjectKey, Version};
use crate::resource::GroupResource;
use crate::store::Resume;

/// Most objects of one part of a list, whatever the client asks for; 0 asks for all.
pub const LIMIT_MAX: usize = 1_000_000;

/// `resourceVersionMatch`: the version itself.
pub const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";
const MATCH: &str = "resourceVersionMatch";
const INITIAL: &str = "sendInitialEvents";

/// What happens to fields that no schema knows, or that are there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and the response says so.
    Warn,
    /// The request is refused.
    Strict,
}

/// The query of a request, read.
#[derive(Debug, Clone)]
pub struct Options {
    /// `watch`.
    pub watch: bool,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub initial_events: Option<bool>,
    /// `resourceVersion`; `None` when it is absent or empty.
    pub version: Option<Version>,
    /// `resourceVersionMatch`.
    pub version_match: String,
    /// `limit`; `None` for all.
    pub limit: Option<usize>,
    /// `continue`, as it was given out.
    pub resume: String,
    /// `labelSelector`.
    pub labels: String,
    /// `fieldSelector`.
    pub fields: String,
    /// `timeoutSeconds`.
    pub timeout_s: Option<u64>,
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldManager`.
    pub manager: Option<String>,
    /// `fieldValidation`.
    pub validation: FieldValidation,
    /// `force`.
    pub force: bool,
    /// `gracePeriodSeconds`.
    pub grace_s: Option<i64>,
    /// `propagationPolicy`.
    pub propagation: Option<String>,
    /// `includeObject`: `None`, `Metadata` (the default of tables) or `Object`.
    pub include_object: String,
    /// What is wrong with values that can be read: told once it is known which options they are, see [`Options::check`].
    causes: Vec<Cause>,
}

impl Options {
    /// Reads a query.
    ///
    /// # Errors
    /// `BadRequest` naming the parameter.
    pub fn parse(query: &str) -> Result<Options, ApiError> {
        let mut out = Options {
            watch: false,
            bookmarks: false,
            initial_events: None,
            version: None,
            version_match: String::new(),
            limit: None,
            resume: String::new(),
            labels: String::new(),
            fields: String::new(),
            timeout_s: None,
            dry_run: false,
            manager: None,
            validation: FieldValidation::Warn,
            force: false,
            grace_s: None,
            propagation: None,
            include_object: String::new(),
            causes: Vec::new(),
        };
        for (name, value) in pairs(query)? {
            out.set(&name, value)?;
        }
        Ok(out)
    }

    /// Whether the options of a request with this method make sense.
    ///
    /// # Errors
    /// `Invalid`, by the kind that upstream has for them.
    pub fn check(&self, method: Method, list: bool) -> Result<(), ApiError> {
        let kind = match method {
            Method::Post => "CreateOptions",
            Method::Put => "UpdateOptions",
            Method::Patch => "PatchOptions",
            Method::Delete => "DeleteOptions",
            Method::Get | Method::Head if list => "ListOptions",
            Method::Get | Method::Head => return Ok(()),
        };
        let mut causes = self.causes.clone();
        if kind == "ListOptions" {
            causes = if self.watch {
                self.wrong_of_watch()
            } else {
                self.wrong_of_list()
            };
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid("meta.k8s.io", kind, "", causes))
    }

    /// What is wrong with `resourceVersionMatch` and `sendInitialEvents` of a list. Source:
    /// `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`.
    fn wrong_of_list(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        let wanted = self.version_match.as_str();
        if !wanted.is_empty() {
            if self.version.is_none() {
                causes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.resume.is_empty() {
                causes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(wanted, EXACT | NOT_OLDER) {
                causes.push(unknown_match(wanted, "\"Exact\", \"NotOlderThan\", \"\""));
            }
            if wanted == EXACT && self.version == Some(Version(0)) {
                causes.push(forbidden(
                    MATCH,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.initial_events.is_some() {
            causes.push(forbidden(INITIAL, "sendInitialEvents is forbidden for list"));
        }
        causes
    }

    /// As [`Options::wrong_of_list`], of a watch.
    fn wrong_of_watch(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        let wanted = self.version_match.as_str();
        if self.initial_events.is_some() && wanted != NOT_OLDER {
            causes.push(forbidden(
                MATCH,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if wanted.is_empty() {
            return causes;
        }
        if self.initial_events.is_none() {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if wanted != NOT_OLDER {
            causes.push(unknown_match(wanted, "\"NotOlderThan\""));
        }
        if !self.resume.is_empty() {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        causes
    }

    fn wrong(&mut self, field: &str, reason: &'static str, message: String) {
        self.causes.push(Cause {
            reason,
            message,
            field: field.to_owned(),
        });
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), ApiError> {
        match name {
            "watch" => self.watch = truth(&value),
            "allowWatchBookmarks" => self.bookmarks = truth(&value),
            "sendInitialEvents" => self.initial_events = Some(truth(&value)),
            "resourceVersion" if value.is_empty() => {}
            "resourceVersion" => {
                let read = version(&value).map_err(|_| {
                    let shown = shown(&value);
                    ApiError::bad_request(format!(
                        "invalid resource version: resourceVersion: Invalid value: \"{shown}\": strconv.ParseUint: parsing \"{shown}\": invalid syntax"
                    ))
                });
                self.version = Some(read?);
            }
            "resourceVersionMatch" => self.version_match = value,
            "limit" => self.limit = Some(number(&value)?).filter(|limit| *limit > 0),
            "continue" => self.resume = value,
            "labelSelector" => self.labels = value,
            "fieldSelector" => self.fields = value,
            "timeoutSeconds" => self.timeout_s = Some(number(&value)?),
            "dryRun" if value == "All" => self.dry_run = true,
            "dryRun" => {
                let told = format!(
                    "Unsupported value: [\"{}\"]: supported values: \"All\"",
                    shown(&value)
                );
                self.wrong("dryRun", "FieldValueNotSupported", told);
            }
            "fieldManager" if value.chars().count() > 128 => {
                let told = "Too long: may not be more than 128 bytes".to_owned();
                self.wrong("fieldManager", "FieldValueTooLong", told);
            }
            "fieldManager" if !value.is_empty() => self.manager = Some(value),
            "fieldValidation" => {
                self.validation = match value.as_str() {
                    "" | "Warn" => FieldValidation::Warn,
                    "Ignore" => FieldValidation::Ignore,
                    "Strict" => FieldValidation::Strict,
                    other => {
                        let told = format!(
                            "Unsupported value: \"{}\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
                            shown(other)
                        );
                        self.wrong("fieldValidation", "FieldValueNotSupported", told);
                        FieldValidation::Warn
                    }
                }
            }
            "force" => self.force = truth(&value),
            "gracePeriodSeconds" => self.grace_s = Some(number(&value)?),
            "propagationPolicy" => self.propagation = Some(value),
            "includeObject" => self.include_object = value,
            _ => {} // Upstream passes over what it does not know, such as `pretty`.
        }
        Ok(())
    }

    /// Where a list goes on, for the objects of `resource`.
    ///
    /// # Errors
    /// `BadRequest`, when `continue` is not one that was given out for this list.
    pub fn resume(&self, resource: &GroupResource) -> Result<Option<Resume>, ApiError> {
        if self.resume.is_empty() {
            return Ok(None);
        }
        let broken = || {
            ApiError::bad_request(
                "invalid continue token: continue key is not valid: it was not given out by this server",
            )
        };
        let text = decode_token(&self.resume).ok_or_else(broken)?;
        let Ok(Value::Array(parts)) = serde_json::from_str(&text) else {
            return Err(broken());
        };
        let [version, namespace, name] = parts.as_slice() else {
            return Err(broken());
        };
        let word = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(broken);
        Ok(Some(Resume {
            version: Version(version.as_u64().ok_or_else(broken)?),
            from: ObjectKey {
                resource: resource.clone(),
                namespace: word(namespace)?,
                name: word(name)?,
            },
        }))
    }
}

/// The `continue` that makes a list go on at `next`.
pub fn continue_token(version: Version, next: &ObjectKey) -> String {
    let text = Value::from(vec![
        Value::from(version.0),
        next.namespace.as_str().into(),
        next.name.as_str().into(),
    ]);
    hex(text.to_string().as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    let pairs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    pairs
        .map(|digit| char::from(digits[usize::from(digit)]))
        .collect()
}

fn decode_token(token: &str) -> Option<String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let bytes = token.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    });
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

/// A resource version from outside.
///
/// # Errors
/// `BadRequest` in upstream's words.
pub fn version(text: &str) -> Result<Version, ApiError> {
    let number = text.parse().map(Version);
    number.map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        ApiError::bad_request(format!(
            "Invalid value: \"{shown}\": resourceVersion: must be a number"
        ))
    })
}

fn forbidden(field: &str, why: &str) -> Cause {
    Cause {
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    }
}

fn unknown_match(found: &str, known: &str) -> Cause {
    let shown = shown(found);
    Cause {
        reason: "FieldValueNotSupported",
        message: format!("Unsupported value: \"{shown}\": supported values: {known}"),
        field: MATCH.to_owned(),
    }
}

/// What a message repeats of a query.
fn shown(value: &str) -> String {
    value.chars().take(64).collect()
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, ApiError> {
    value.parse().map_err(|_| {
        let shown = shown(value);
        ApiError::bad_request(format!("strconv.ParseInt: parsing \"{shown}\": invalid syntax"))
    })
}

/// As upstream reads booleans of queries: present and neither `false` nor `0` is true.
fn truth(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

/// Names and values of a query, decoded (`application/x-www-form-urlencoded`).
///
/// # Errors
/// `BadRequest` for a broken escape.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let text = |text: &str| crate::path::unescape(&text.replace('+', " "));
            text(name)
                .zip(text(value))
                .ok_or_else(|| ApiError::bad_request("invalid URL escape in the query"))
        })
        .collect()
}

/// Options of a deletion that came in its body win over those of the query.
pub(super) fn merge_delete(options: &mut Options, body: &Map<String, Value>) -> Result<(), ApiError> {
    if let Some(grace) = body.get("gracePeriodSeconds").filter(|grace| !grace.is_null()) {
        let grace = grace.as_i64();
        options.grace_s =
            Some(grace.ok_or_else(|| ApiError::bad_request("gracePeriodSeconds: not a number"))?);
    }
    if let Some(policy) = body.get("propagationPolicy").and_then(Value::as_str) {
        options.propagation = Some(policy.to_owned());
    }
    if body.get("orphanDependents") == Some(&Value::Bool(true)) {
        options.propagation = Some("Orphan".to_owned());
    }
    let dry = body.get("dryRun").and_then(Value::as_array);
    options.dry_run |= dry.is_some_and(|dry| dry.iter().any(|one| one == "All"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let resource = GroupResource {
            group: String::new(),
            resource: "pods".to_owned(),
        };
        let next = ObjectKey {
            resource: resource.clone(),
            namespace: "a".to_owned(),
            name: "b\"c".to_owned(),
        };
        let query = format!("limit=5&continue={}", continue_token(Version(7), &next));
        let options = Options::parse(&query).unwrap();
        let resume = options.resume(&resource).unwrap().unwrap();
        assert_eq!((resume.version, resume.from), (Version(7), next));
        for broken in ["zz", "5", "5b", "5b5d", "é"] {
            let options = Options {
                resume: broken.to_owned(),
                ..options.clone()
            };
            assert_eq!(
                options.resume(&resource).unwrap_err().reason.code(),
                400,
                "{broken}"
            );
        }
    }

    #[test]
    fn queries() {
        let options = Options::parse("watch=true&labelSelector=a%3Db+in&limit=0&resourceVersion=").unwrap();
        assert!(options.watch);
        assert_eq!(options.labels, "a=b in");
        assert_eq!((options.limit, options.version), (None, None));
        for unknown in ["dryRun=Some", "fieldValidation=Maybe"] {
            let options = Options::parse(unknown).unwrap();
            let error = options.check(Method::Post, false).unwrap_err();
            assert!(error.message.starts_with("CreateOptions.meta.k8s.io"), "{error}");
            assert_eq!(options.check(Method::Get, false), Ok(()));
        }
        for broken in ["limit=x", "resourceVersion=-1", "a=%f"] {
            assert_eq!(Options::parse(broken).unwrap_err().reason.code(), 400, "{broken}");
        }
    }
}
