//! Requests in, responses out: the protocol over a [`Store`].
//!
//! The shell reads a request (its body bounded by [`BODY_MAX_BYTES`]), says who sent it, and writes the [`Response`]. One that
//! strangers reach asks [`Api::check`] before it reads a body.
//!
//! Reading order: [`request`], [`options`], this file, `impersonate`, `read`, `watch`, `write` (what every write has in common),
//! `create`, `update`, `patching`, `delete`, `subresource`, `scale`, `certificates`, [`respond`], [`transport`].

mod certificates;
mod create;
mod delete;
mod impersonate;
pub mod options;
mod patching;
mod read;
pub mod request;
pub mod respond;
mod scale;
mod subresource;
pub mod transport;
mod update;
mod watch;
mod write;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;

use crate::Environment;
use crate::error::{ApiError, Reason};
use crate::path::{ResourcePath, Target};
use crate::resource::{Registry, Resource};
use crate::store::Store;
use impersonate::Refused;
use options::Options;
use request::{Method, Request, User};
use respond::{Format, Response};

/// Largest body of a request, as upstream's `--max-request-bytes`.
pub const BODY_MAX_BYTES: usize = 3 * 1024 * 1024;

/// Subresources that are served here; an [`Extension`] may serve others.
const SUBRESOURCES: [&str; 6] = ["approval", "binding", "eviction", "finalize", "scale", "status"];

/// What somebody wants to do, for [`Authorizer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Who.
    pub user: User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `impersonate`; of a path that is no
    /// resource, the HTTP method in lower case.
    pub verb: &'static str,
    /// The resource; `None` for other paths.
    pub resource: Option<ResourcePath>,
    /// The path.
    pub path: String,
    /// `fieldSelector` of the query: a list of what somebody may see is allowed where the list of all is not.
    pub fields: String,
}

/// Says who may do what.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// `Ok` when it is allowed.
    ///
    /// # Errors
    /// Why not, such as `User "a" cannot get resource "pods" in API group "" in the namespace "b"`; see
    /// [`Attributes::denied`].
    async fn authorize(&self, attributes: &Attributes) -> Result<(), String>;
}

/// What a shell adds: subresources that are not plain objects (`log`, `exec`, `token`, `binding`), reviews, admission.
#[async_trait]
pub trait Extension: Send + Sync + 'static {
    /// Answers a request that was authorized, or `None` when it is not one of its own.
    async fn call(&self, request: &Request, path: &ResourcePath) -> Option<Response>;

    /// May change or refuse an object about to be stored, after defaulting and before validation.
    ///
    /// # Errors
    /// What the client is told.
    async fn admit(&self, write: &Write<'_>, new: &mut serde_json::Value) -> Result<(), ApiError>;
}

/// Which write an object is about to be stored by.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Who writes.
    pub user: &'a User,
    /// What, in the version that is stored.
    pub resource: &'a Resource,
    /// Through which subresource; empty for the object itself.
    pub subresource: &'a str,
    /// What is there, unless the object is new.
    pub old: Option<&'a serde_json::Value>,
}

/// The API over one store.
#[derive(Clone)]
pub struct Api {
    store: Arc<dyn Store>,
    env: Arc<dyn Environment>,
    authorizer: Arc<dyn Authorizer>,
    extension: Arc<dyn Extension>,
}

/// A request that its sender may make, see [`Api::check`].
#[derive(Debug)]
pub struct Checked {
    request: Request,
    about: About,
}

#[derive(Debug)]
enum About {
    /// Objects of a resource that is served.
    Resource {
        registry: Arc<Registry>,
        resource: Arc<Resource>,
        path: ResourcePath,
        options: Box<Options>,
        verb: &'static str,
    },
    /// Discovery, OpenAPI, version and health.
    Other(Target),
}

/// A request for a resource that is served, taken apart.
struct Call<'a> {
    api: &'a Api,
    request: &'a Request,
    registry: Arc<Registry>,
    resource: Arc<Resource>,
    path: ResourcePath,
    options: Options,
    format: Format,
}

impl Api {
    /// An API over `store`.
    pub fn new(
        store: Arc<dyn Store>,
        env: Arc<dyn Environment>,
        authorizer: Arc<dyn Authorizer>,
        extension: Arc<dyn Extension>,
    ) -> Api {
        Api {
            store,
            env,
            authorizer,
            extension,
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Answers a request. Whatever is wrong with it is told in the response.
    pub async fn serve(&self, mut request: Request) -> Response {
        let body = std::mem::take(&mut request.body);
        match self.check(request).await {
            Ok(checked) => self.carry_out(checked, body).await,
            Err(response) => response,
        }
    }

    /// Whether the sender of `request`, whose body need not be read yet, may make it at all.
    ///
    /// # Errors
    /// The response that says why not.
    pub async fn check(&self, request: Request) -> Result<Checked, Response> {
        unless_it_panics(self.checked(request)).await.flatten()
    }

    /// Does what was checked, and answers.
    pub async fn carry_out(&self, checked: Checked, body: Bytes) -> Response {
        let Checked { mut request, about } = checked;
        request.body = body;
        let answer = async {
            request.decode_body()?;
            self.answer(&request, about).await
        };
        match unless_it_panics(answer).await {
            Ok(Ok(response)) | Err(response) => response,
            Ok(Err(error)) => Response::error(&error),
        }
    }

    async fn checked(&self, mut request: Request) -> Result<Checked, Response> {
        match impersonate::impersonated(self, &request).await {
            Ok(None) => {}
            Ok(Some(user)) => request.user = user,
            Err(Refused::Status(error)) => return Err(Response::error(&error)),
            Err(Refused::Senseless(response)) => return Err(response),
        }
        match self.about(&request).await {
            Ok(about) => Ok(Checked { request, about }),
            Err(error) => Err(Response::error(&error)),
        }
    }

    /// What `request` is about, when its sender may ask for it.
    async fn about(&self, request: &Request) -> Result<About, ApiError> {
        let target = crate::path::parse(&request.path)
            .ok_or_else(|| ApiError::bad_request("the path is too long or has a broken escape"))?;
        let path = match target {
            Target::Resource(path) => path,
            other => {
                let attributes = Attributes {
                    user: request.user.clone(),
                    verb: request.method.as_verb(),
                    resource: None,
                    path: request.path.clone(),
                    fields: String::new(),
                };
                self.allow(&attributes).await?;
                return Ok(About::Other(other));
            }
        };
        let options = Box::new(Options::parse(&request.query)?);
        let registry = self.store.registry();
        let Some(resource) = registry.get(&path.gvr).cloned() else {
            return Err(ApiError::no_such_path());
        };
        let verb = verb(request.method, &path, &options)?;
        let mut asked = path.clone();
        if asked.gvr.group.is_empty() && asked.gvr.resource == "namespaces" {
            // As upstream: a role in a namespace may be about the namespace itself.
            asked.namespace.clone_from(&asked.name);
        }
        if asked.name.is_none() && verb != "create" {
            // Who may read one object may list and watch it alone.
            asked.name = crate::selector::exact_match(&options.fields, "metadata.name");
        }
        let attributes = Attributes {
            user: request.user.clone(),
            verb,
            resource: Some(asked),
            path: request.path.clone(),
            fields: options.fields.clone(),
        };
        self.allow(&attributes).await?;
        Ok(About::Resource {
            registry,
            resource,
            path,
            options,
            verb,
        })
    }

    async fn answer(&self, request: &Request, about: About) -> Result<Response, ApiError> {
        let (registry, resource, path, options, verb) = match about {
            About::Resource {
                registry,
                resource,
                path,
                options,
                verb,
            } => (registry, resource, path, options, verb),
            About::Other(target) => return self.describe(request, &target),
        };
        if let Some(response) = self.extension.call(request, &path).await {
            return Ok(response);
        }
        self.check_path(&resource, &path, verb)?;
        options.check(request.method, path.name.is_none())?;
        let format = Format::of(request.header("accept"))?;
        let call = Call {
            api: self,
            request,
            registry,
            resource,
            path,
            options: *options,
            format,
        };
        match (call.path.subresource.as_deref(), verb) {
            (Some("scale"), _) => call.scale(verb).await,
            (Some("binding"), _) => call.bind().await,
            (Some("eviction"), _) => call.evict().await,
            (_, "get") => call.get().await,
            (_, "list") => call.list().await,
            (_, "watch") => call.watch().await,
            (_, "create") => call.create().await,
            (_, "update") => call.update().await,
            (_, "patch") => call.patch().await,
            (_, "delete") => call.delete().await,
            (_, "deletecollection") => call.delete_collection().await,
            _ => Err(method_not_allowed()),
        }
    }

    async fn allow(&self, attributes: &Attributes) -> Result<(), ApiError> {
        match self.authorizer.authorize(attributes).await {
            Ok(()) => Ok(()),
            Err(why) => Err(match &attributes.resource {
                Some(path) => {
                    let resource = crate::resource::GroupResource {
                        group: path.gvr.group.clone(),
                        resource: path.gvr.resource.clone(),
                    };
                    ApiError::forbidden(&resource, path.name.as_deref().unwrap_or_default(), &why)
                }
                None => ApiError::new(Reason::Forbidden, format!("forbidden: {why}")),
            }),
        }
    }

    /// Whether what the path names exists at all: its scope, its subresource, its verb.
    fn check_path(&self, resource: &Resource, path: &ResourcePath, verb: &str) -> Result<(), ApiError> {
        let subresource = path.subresource.as_deref();
        if let Some(subresource) = subresource {
            let all = crate::discovery::subresources(resource);
            let found = all.into_iter().find(|(name, ..)| *name == subresource);
            let Some((.., verbs)) = found.filter(|_| SUBRESOURCES.contains(&subresource)) else {
                let name = path.name.as_deref().unwrap_or_default();
                return Err(if resource.custom {
                    ApiError::not_found(&resource.group_resource(), name)
                } else {
                    ApiError::no_such_path()
                });
            };
            if !verbs.contains(&verb) {
                return Err(method_not_allowed());
            }
        }
        let named = path.name.is_some();
        let in_namespace = path.namespace.is_some();
        if resource.namespaced() != in_namespace && (in_namespace || named) {
            return Err(ApiError::no_such_path());
        }
        if resource.namespaced() && !in_namespace && verb == "create" {
            return Err(method_not_allowed());
        }
        if subresource.is_none()
            && !resource.verbs.is_empty()
            && !resource.verbs.iter().any(|served| served == verb)
        {
            return Err(method_not_allowed());
        }
        Ok(())
    }

    fn describe(&self, request: &Request, target: &Target) -> Result<Response, ApiError> {
        if !matches!(request.method, Method::Get | Method::Head) {
            return Err(method_not_allowed());
        }
        let registry = self.store.registry();
        respond::describe(&registry, request, target).ok_or_else(ApiError::no_such_path)
    }
}

/// A mistake of ours in one request costs that request only.
fn unless_it_panics<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, Response>> {
    let work = AssertUnwindSafe(Box::pin(work)).catch_unwind();
    work.map(|outcome| {
        outcome.map_err(|_| {
            let told = "this request made the server panic: its log says where";
            Response::error(&ApiError::internal(told))
        })
    })
}

fn method_not_allowed() -> ApiError {
    ApiError::new(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

fn verb(method: Method, path: &ResourcePath, options: &Options) -> Result<&'static str, ApiError> {
    let named = path.name.is_some();
    Ok(match method {
        Method::Get | Method::Head if named => "get",
        Method::Get | Method::Head if options.watch => "watch",
        Method::Get | Method::Head => "list",
        // A subresource such as `binding` is created below an object.
        Method::Post if !named || path.subresource.is_some() => "create",
        Method::Put if named => "update",
        Method::Patch if named => "patch",
        Method::Delete if named => "delete",
        Method::Delete => "deletecollection",
        Method::Post | Method::Put | Method::Patch => return Err(method_not_allowed()),
    })
}

impl Attributes {
    /// The reason for a refusal, in upstream's words.
    pub fn denied(&self) -> String {
        let Attributes { user, verb, .. } = self;
        let Some(path) = &self.resource else {
            return format!("User \"{}\" cannot {verb} path \"{}\"", user.name, self.path);
        };
        let resource = match &path.subresource {
            Some(sub) => format!("{}/{sub}", path.gvr.resource),
            None => path.gvr.resource.clone(),
        };
        let place = match &path.namespace {
            Some(namespace) => format!(" in the namespace \"{namespace}\""),
            None => " at the cluster scope".to_owned(),
        };
        format!(
            "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\"{place}",
            user.name, path.gvr.group
        )
    }
}

/// Allows everything: for a server that only its owner can reach.
#[derive(Debug, Clone, Copy)]
pub struct AllowAll;

#[async_trait]
impl Authorizer for AllowAll {
    async fn authorize(&self, _: &Attributes) -> Result<(), String> {
        Ok(())
    }
}

/// Adds nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoExtension;

#[async_trait]
impl Extension for NoExtension {
    async fn call(&self, _: &Request, _: &ResourcePath) -> Option<Response> {
        None
    }

    async fn admit(&self, _: &Write<'_>, _: &mut serde_json::Value) -> Result<(), ApiError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
