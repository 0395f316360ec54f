//! Acting as somebody else: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*`, each allowed by the verb `impersonate`, as
//! `k8s.io/apiserver/pkg/endpoints/filters/impersonation.go`.

use crate::error::ApiError;
use crate::path::ResourcePath;
use crate::resource::Gvr;

use super::request::{ANONYMOUS, AUTHENTICATED, Request, UNAUTHENTICATED, User, service_account};
use super::respond::Response;
use super::{Api, Attributes};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// What all of them begin with. An unknown one is refused: whoever sends it means to act as somebody else.
const ALL: &str = "impersonate-";

/// Most headers of this kind in a request: each is a question to the authorizer.
const HEADERS_MAX: usize = 64;

/// One thing that the sender wants to be.
struct Wanted<'a> {
    group: &'static str,
    resource: &'static str,
    namespace: Option<&'a str>,
    name: &'a str,
    /// Of `userextras`.
    key: Option<String>,
}

/// Why a request is not carried out as somebody else.
pub(super) enum Refused {
    /// A `Status`.
    Status(ApiError),
    /// Upstream answers in plain text that headers do not fit together.
    Senseless(Response),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Refused {
        Refused::Status(error)
    }
}

/// Whom the sender of `request` acts as; `None` when he acts as himself.
pub(super) async fn impersonated(api: &Api, request: &Request) -> Result<Option<User>, Refused> {
    let wanted = wanted(request)?;
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut user = User::default();
    let with_groups = wanted.iter().any(|wanted| wanted.resource == "groups");
    for one in wanted {
        api.allow(&attributes(request, &one)).await?;
        match one.resource {
            "serviceaccounts" => {
                let account = service_account(one.namespace.unwrap_or_default(), one.name);
                user.name = account.name;
                if !with_groups {
                    user.groups = account.groups;
                    user.groups.retain(|group| group != AUTHENTICATED);
                }
            }
            "users" => user.name = one.name.to_owned(),
            "groups" => user.groups.push(one.name.to_owned()),
            "uids" => user.uid = one.name.to_owned(),
            _ => {
                let values = user.extra.entry(one.key.unwrap_or_default()).or_default();
                values.push(one.name.to_owned());
            }
        }
    }
    let has = |group: &str| user.groups.iter().any(|one| one == group);
    if user.name == ANONYMOUS {
        if !has(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.to_owned());
        }
    } else if !has(AUTHENTICATED) && !has(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    Ok(Some(user))
}

/// What the headers ask for, the user first.
fn wanted(request: &Request) -> Result<Vec<Wanted<'_>>, Refused> {
    let one = |group, resource, name| Wanted {
        group,
        resource,
        namespace: None,
        name,
        key: None,
    };
    let mut out = Vec::new();
    let user = request.header(USER);
    if !user.is_empty() {
        let account = user.strip_prefix("system:serviceaccount:");
        out.push(match account.and_then(|rest| rest.split_once(':')) {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains(':') => {
                Wanted {
                    namespace: Some(namespace),
                    ..one("", "serviceaccounts", name)
                }
            }
            _ => one("", "users", user),
        });
    }
    for (header, value) in &request.headers {
        if header == GROUP {
            out.push(one("", "groups", value));
        } else if let Some(key) = header.strip_prefix(EXTRA) {
            // Upstream keeps a key with a broken escape as it is.
            let key = crate::path::unescape(key).unwrap_or_else(|| key.to_owned());
            out.push(Wanted {
                key: Some(key),
                ..one("authentication.k8s.io", "userextras", value)
            });
        } else if header.starts_with(ALL) && header != USER && header != UID {
            let shown: String = header.chars().take(64).collect();
            let told = format!("the header {shown} is none of those of impersonation");
            return Err(ApiError::bad_request(told).into());
        }
    }
    let uid = request.header(UID);
    if !uid.is_empty() {
        out.push(one("authentication.k8s.io", "uids", uid));
    }
    if out.len() > HEADERS_MAX {
        let told = format!("more than {HEADERS_MAX} headers of impersonation");
        return Err(ApiError::bad_request(told).into());
    }
    if user.is_empty() && !out.is_empty() {
        let asked: Vec<String> = out
            .iter()
            .map(|wanted| format!("{} \"{}\"", wanted.resource, wanted.name))
            .collect();
        let told = format!(
            "Internal Server Error: \"{}\": requested {} without impersonating a user\n",
            request.path,
            asked.join(", ")
        );
        return Err(Refused::Senseless(Response::text(500, &told)));
    }
    Ok(out)
}

fn attributes(request: &Request, wanted: &Wanted<'_>) -> Attributes {
    Attributes {
        user: request.user.clone(),
        verb: "impersonate",
        resource: Some(ResourcePath {
            gvr: Gvr {
                group: wanted.group.to_owned(),
                version: "v1".to_owned(),
                resource: wanted.resource.to_owned(),
            },
            namespace: wanted.namespace.map(str::to_owned),
            name: Some(wanted.name.to_owned()),
            subresource: wanted.key.clone(),
        }),
        path: request.path.clone(),
        fields: String::new(),
    }
}
