//! Requests in, responses out: the protocol over a [`Store`].
//!
//! The shell reads a request (its body bounded by [`BODY_MAX_BYTES`]), says who sent it, and writes the [`Response`].
//!
//! Reading order: [`request`], [`options`], this file, `read`, `watch`, `write` (what every write has in common), `create`,
//! `update`, `patching`, `delete`, `scale`, [`respond`], [`transport`].

mod create;
mod delete;
pub mod options;
mod patching;
mod read;
pub mod request;
pub mod respond;
mod scale;
pub mod transport;
mod update;
mod watch;
mod write;

use std::sync::Arc;

use async_trait::async_trait;

use crate::Environment;
use crate::error::{ApiError, Reason};
use crate::path::{ResourcePath, Target};
use crate::resource::{Registry, Resource};
use crate::store::Store;
use options::Options;
use request::{Method, Request, User};
use respond::{Format, Response};

/// Largest body of a request, as upstream's `--max-request-bytes`.
pub const BODY_MAX_BYTES: usize = 3 * 1024 * 1024;

/// What somebody wants to do, for [`Authorizer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Who.
    pub user: User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; of a path that is no resource,
    /// the HTTP method in lower case.
    pub verb: &'static str,
    /// The resource; `None` for other paths.
    pub resource: Option<ResourcePath>,
    /// The path.
    pub path: String,
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

    /// May change or refuse an object about to be stored, after defaulting and validation.
    ///
    /// # Errors
    /// What the client is told.
    async fn admit(
        &self,
        resource: &Resource,
        old: Option<&serde_json::Value>,
        new: &mut serde_json::Value,
    ) -> Result<(), ApiError>;
}

/// The API over one store.
#[derive(Clone)]
pub struct Api {
    store: Arc<dyn Store>,
    env: Arc<dyn Environment>,
    authorizer: Arc<dyn Authorizer>,
    extension: Arc<dyn Extension>,
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
    pub async fn serve(&self, request: Request) -> Response {
        match self.answer(&request).await {
            Ok(response) => response,
            Err(error) => Response::error(&error),
        }
    }

    async fn answer(&self, request: &Request) -> Result<Response, ApiError> {
        let target = crate::path::parse(&request.path)
            .ok_or_else(|| ApiError::bad_request("the path is too long or has a broken escape"))?;
        let path = match target {
            Target::Resource(path) => path,
            other => return self.describe(request, &other).await,
        };
        let options = Options::parse(&request.query)?;
        let registry = self.store.registry();
        let Some(resource) = registry.get(&path.gvr).cloned() else {
            return Err(ApiError::no_such_path());
        };
        let verb = verb(request.method, &path, &options)?;
        let attributes = Attributes {
            user: request.user.clone(),
            verb,
            resource: Some(path.clone()),
            path: request.path.clone(),
        };
        self.allow(&attributes).await?;
        if let Some(response) = self.extension.call(request, &path).await {
            return Ok(response);
        }
        self.check_path(&resource, &path, verb)?;
        let format = Format::of(request.header("accept"))?;
        let call = Call {
            api: self,
            request,
            registry,
            resource,
            path,
            options,
            format,
        };
        match (call.path.subresource.as_deref(), verb) {
            (Some("scale"), _) => call.scale(verb).await,
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
        match path.subresource.as_deref() {
            None => {}
            Some("status") if resource.status => {}
            Some("scale") if resource.scale.is_some() => {}
            Some("finalize") if resource.kind == "Namespace" => {}
            Some(_) => return Err(ApiError::no_such_path()),
        }
        let named = path.name.is_some();
        let in_namespace = path.namespace.is_some();
        if resource.namespaced() != in_namespace && (in_namespace || named) {
            return Err(ApiError::no_such_path());
        }
        if resource.namespaced() && !in_namespace && verb == "create" {
            return Err(method_not_allowed());
        }
        if !resource.verbs.is_empty() && !resource.verbs.iter().any(|served| served == verb) {
            return Err(method_not_allowed());
        }
        Ok(())
    }

    /// Discovery, OpenAPI, version and health.
    async fn describe(&self, request: &Request, target: &Target) -> Result<Response, ApiError> {
        let verb = request.method.as_verb();
        let attributes = Attributes {
            user: request.user.clone(),
            verb,
            resource: None,
            path: request.path.clone(),
        };
        self.allow(&attributes).await?;
        if !matches!(request.method, Method::Get | Method::Head) {
            return Err(method_not_allowed());
        }
        let registry = self.store.registry();
        respond::describe(&registry, request, target).ok_or_else(ApiError::no_such_path)
    }
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

    async fn admit(
        &self,
        _: &Resource,
        _: Option<&serde_json::Value>,
        _: &mut serde_json::Value,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}
