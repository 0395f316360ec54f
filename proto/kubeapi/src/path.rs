//! What a request path is about, as `k8s.io/apiserver/pkg/endpoints/request` takes paths apart.

use crate::resource::Gvr;

/// Longest path, bytes: six names of the largest length, with room for escapes.
pub const PATH_MAX_BYTES: usize = 8 * 1024;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Objects, or one object, or a subresource of it.
    Resource(ResourcePath),
    /// `/api`, `/apis`: groups and versions.
    Groups {
        /// `/api`: the core group only.
        core: bool,
    },
    /// `/apis/GROUP`: versions of a group.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`: resources of a version.
    GroupVersion {
        /// Empty for the core group.
        group: String,
        /// Such as `v1`.
        version: String,
    },
    /// Anything else, such as `/version`, `/openapi/v3`, `/healthz`: its segments.
    Other(Vec<String>),
}

/// A path below a group and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePath {
    /// What it is.
    pub gvr: Gvr,
    /// The namespace, when the path names one.
    pub namespace: Option<String>,
    /// The object, when the path names one.
    pub name: Option<String>,
    /// What follows the object's name: `status`, `scale`, `log`; with more segments, joined by `/` (`proxy/a/b`).
    pub subresource: Option<String>,
}

/// Takes a path apart. The caller gives it as in the request line, without the query.
///
/// `None` for a path that is too long or has a broken escape.
pub fn parse(path: &str) -> Option<Target> {
    if path.len() > PATH_MAX_BYTES {
        return None;
    }
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let segments: Vec<String> = segments.map(unescape).collect::<Option<_>>()?;
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    Some(match names.as_slice() {
        ["api"] => Target::Groups { core: true },
        ["apis"] => Target::Groups { core: false },
        ["apis", group] => Target::Group((*group).to_owned()),
        ["api", version] => Target::GroupVersion {
            group: String::new(),
            version: (*version).to_owned(),
        },
        ["apis", group, version] => Target::GroupVersion {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
        },
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Target::Other(segments),
    })
}

/// `rest` is not empty.
fn resource(group: &str, version: &str, rest: &[&str]) -> Target {
    let (namespace, rest) = match rest {
        // `namespaces/NAME/RESOURCE…` is in a namespace, but `status` and `finalize` belong to the namespace itself.
        ["namespaces", _, "status" | "finalize", ..] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let subresource = rest.get(2..).unwrap_or_default().join("/");
    Target::Resource(ResourcePath {
        gvr: Gvr {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: rest.first().copied().unwrap_or_default().to_owned(),
        },
        namespace,
        name: rest.get(1).map(|name| (*name).to_owned()),
        subresource: Some(subresource).filter(|rest| !rest.is_empty()),
    })
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
pub(crate) fn unescape(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> ResourcePath {
        match parse(path) {
            Some(Target::Resource(found)) => found,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn shape(path: &str) -> (String, Option<String>, Option<String>, Option<String>) {
        let found = of(path);
        (found.gvr.resource, found.namespace, found.name, found.subresource)
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn collections_objects_and_subresources() {
        let pods = || "pods".to_owned();
        assert_eq!(shape("/api/v1/pods"), (pods(), None, None, None));
        assert_eq!(
            shape("/api/v1/namespaces/a/pods"),
            (pods(), text("a"), None, None)
        );
        assert_eq!(
            shape("/api/v1/namespaces/a/pods/p/log"),
            (pods(), text("a"), text("p"), text("log"))
        );
        assert_eq!(
            shape("/api/v1/nodes/n/proxy/a/b"),
            ("nodes".to_owned(), None, text("n"), text("proxy/a/b"))
        );
        let found = of("/apis/apps/v1/namespaces/a/deployments/d/scale");
        assert_eq!(
            (found.gvr.group.as_str(), found.gvr.version.as_str()),
            ("apps", "v1")
        );
    }

    #[test]
    fn namespaces_themselves() {
        let name = || "namespaces".to_owned();
        assert_eq!(shape("/api/v1/namespaces"), (name(), None, None, None));
        assert_eq!(shape("/api/v1/namespaces/dev"), (name(), None, text("dev"), None));
        assert_eq!(
            shape("/api/v1/namespaces/dev/finalize"),
            (name(), None, text("dev"), text("finalize"))
        );
    }

    #[test]
    fn discovery_and_others() {
        assert_eq!(parse("/api"), Some(Target::Groups { core: true }));
        assert_eq!(parse("/apis/"), Some(Target::Groups { core: false }));
        assert_eq!(parse("/apis/apps"), Some(Target::Group("apps".to_owned())));
        assert_eq!(
            parse("/openapi/v3/apis/apps/v1"),
            Some(Target::Other(
                ["openapi", "v3", "apis", "apps", "v1"]
                    .map(str::to_owned)
                    .to_vec()
            ))
        );
    }

    #[test]
    fn escapes() {
        assert_eq!(
            of("/api/v1/namespaces/a/events/a%3Ab").name.as_deref(),
            Some("a:b")
        );
        assert_eq!(parse("/api/v1/pods/%zz"), None);
        assert_eq!(parse("/api/v1/pods/%e"), None);
        assert_eq!(parse("/api/v1/pods/%ff"), None);
        assert_eq!(parse(&"/a".repeat(PATH_MAX_BYTES)), None);
    }
}
