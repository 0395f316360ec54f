//! What kinds of objects there are, and how each is spoken about.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::error::ApiError;
use crate::schema::Schema;

/// `group/version` and the plural name: what a path names. The core group is the empty string.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvr {
    /// API group, such as `apps`; empty for the core group.
    pub group: String,
    /// Version, such as `v1`.
    pub version: String,
    /// Plural name in lower case, such as `deployments`.
    pub resource: String,
}

/// Group and plural name: all versions of a resource are the same objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupResource {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural name in lower case.
    pub resource: String,
}

impl std::fmt::Display for GroupResource {
    /// As the Kubernetes API server writes it in messages: `deployments.apps`, `pods`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// `group/version` as in `apiVersion`: `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One per cluster.
    Cluster,
    /// In a namespace.
    Namespaced,
}

/// A column of the server-side table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// OpenAPI format; may be empty.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0: always shown; greater: only with `-o wide`.
    pub priority: i32,
    /// Where the value comes from.
    pub source: ColumnSource,
}

/// Where a column's value comes from.
#[derive(Debug, Clone)]
pub enum ColumnSource {
    /// `metadata.name`.
    Name,
    /// Time since `metadata.creationTimestamp`, as kubectl prints it.
    Age,
    /// A JSONPath of `additionalPrinterColumns`, such as `.spec.replicas`.
    JsonPath(String),
    /// Computed from the object and the wall clock (microseconds since 1970), for built-in kinds whose columns no path can
    /// express.
    Computed(fn(&Value, i64) -> Value),
}

/// The `scale` subresource: JSON paths as in a CRD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// Such as `.spec.replicas`.
    pub spec_replicas: String,
    /// Such as `.status.replicas`.
    pub status_replicas: String,
    /// Such as `.status.selector`; where the selector is an object (Deployment), its path.
    pub selector: Option<String>,
}

/// Another form of the objects of a built-in resource: they are stored once.
#[derive(Debug, Clone)]
pub struct View {
    /// What is stored.
    pub of: GroupResource,
    /// From this form to the stored one.
    pub to_stored: fn(Value) -> Value,
    /// From the stored form to this one.
    pub from_stored: fn(Value) -> Value,
    /// What a field selector's path is called in the stored form; `None` when it may not be selected by.
    pub field: fn(&str) -> Option<&'static str>,
}

/// One version of a kind that is served.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Group, version and plural name.
    pub gvr: Gvr,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Kind of a list, such as `DeploymentList`.
    pub list_kind: String,
    /// Singular name in lower case.
    pub singular: String,
    /// Such as `deploy`.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// Cluster or namespace.
    pub scope: Scope,
    /// Whether there is a `status` subresource: then `status` cannot be changed through the main resource.
    pub status: bool,
    /// The `scale` subresource.
    pub scale: Option<Scale>,
    /// Verbs served; empty means all of create, delete, deletecollection, get, list, patch, update, watch.
    pub verbs: Vec<String>,
    /// What its objects look like.
    pub schema: Arc<Schema>,
    /// The OpenAPI v3 schema to publish, as a CustomResourceDefinition gave it; `None` for built-in kinds, whose documents
    /// are published as they are.
    pub published: Option<Arc<Value>>,
    /// Columns of the table; empty means name and age.
    pub columns: Vec<Column>,
    /// Fields, besides `metadata.name` and `metadata.namespace`, that a field selector may name, as dotted paths.
    pub selectable: Vec<String>,
    /// Whether this version is the one objects are stored in. Exactly one version of a resource is.
    pub storage: bool,
    /// Whose objects these are in another form; such a resource has no storage version of its own.
    pub view: Option<View>,
    /// Whether it comes from a CustomResourceDefinition: strategic merge patches are refused, as upstream does.
    pub custom: bool,
    /// Warning header for every request, of a deprecated version.
    pub deprecated: Option<String>,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        api_version(&self.gvr.group, &self.gvr.version)
    }

    /// Group and plural name.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.gvr.group.clone(),
            resource: self.gvr.resource.clone(),
        }
    }

    /// Under which name its objects are stored.
    pub fn kept_as(&self) -> GroupResource {
        let viewed = self.view.as_ref().map(|view| view.of.clone());
        viewed.unwrap_or_else(|| self.group_resource())
    }

    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}

/// Converts objects between the versions of one resource.
pub trait Convert: Send + Sync + 'static {
    /// Turns `object` (of the version in its `apiVersion`) into `to` (a version such as `v1beta1`).
    ///
    /// # Errors
    /// What cannot be expressed, for the client to read.
    fn convert(&self, object: Value, to: &str) -> Result<Value, String>;
}

/// Everything that is served at one moment. Changed by replacing it whole.
#[derive(Default, Clone)]
pub struct Registry {
    by_gvr: BTreeMap<Gvr, Arc<Resource>>,
    converters: BTreeMap<GroupResource, Arc<dyn Convert>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_gvr.keys()).finish()
    }
}

impl Registry {
    /// Adds a version of a resource, or replaces it.
    pub fn insert(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        self.by_gvr.insert(resource.gvr.clone(), resource);
    }

    /// Takes a version away.
    pub fn remove(&mut self, gvr: &Gvr) {
        self.by_gvr.remove(gvr);
    }

    /// Says how versions of `resource` are converted. Without it, only `apiVersion` changes (the `None` strategy).
    pub fn convert_with(&mut self, resource: GroupResource, convert: Arc<dyn Convert>) {
        self.converters.insert(resource, convert);
    }

    /// What a path names.
    pub fn get(&self, gvr: &Gvr) -> Option<&Arc<Resource>> {
        self.by_gvr.get(gvr)
    }

    /// What `apiVersion` and `kind` name.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.iter().find(|resource| {
            resource.gvr.group == group && resource.gvr.version == version && resource.kind == kind
        })
    }

    /// The version objects of `resource` are stored in.
    pub fn stored(&self, resource: &GroupResource) -> Option<&Arc<Resource>> {
        self.iter().find(|found| {
            found.storage && found.gvr.group == resource.group && found.gvr.resource == resource.resource
        })
    }

    /// How versions of `resource` are converted.
    pub fn converter(&self, resource: &GroupResource) -> Option<&Arc<dyn Convert>> {
        self.converters.get(resource)
    }

    /// Turns an object of `resource` into what is stored.
    ///
    /// # Errors
    /// As [`Registry::convert`].
    pub fn to_stored(&self, resource: &Resource, object: Value) -> Result<Value, ApiError> {
        if let Some(view) = &resource.view {
            return Ok((view.to_stored)(object));
        }
        let stored = self.stored(&resource.group_resource());
        let version = stored.map_or(&resource.gvr.version, |stored| &stored.gvr.version);
        self.convert(resource, object, version)
    }

    /// Turns what is stored into an object of `resource`.
    ///
    /// # Errors
    /// As [`Registry::convert`].
    pub fn from_stored(&self, resource: &Resource, object: Value) -> Result<Value, ApiError> {
        match &resource.view {
            Some(view) => Ok((view.from_stored)(object)),
            None => self.convert(resource, object, &resource.gvr.version),
        }
    }

    /// Turns `object`, which is one of `resource`, into `version`.
    ///
    /// # Errors
    /// `BadRequest`, when it cannot be expressed in that version.
    pub fn convert(&self, resource: &Resource, mut object: Value, version: &str) -> Result<Value, ApiError> {
        let wanted = api_version(&resource.gvr.group, version);
        if object["apiVersion"] == wanted.as_str() {
            return Ok(object);
        }
        match self.converters.get(&resource.group_resource()) {
            Some(converter) => converter.convert(object, version).map_err(|why| {
                ApiError::bad_request(format!(
                    "conversion of {} to {wanted} failed: {why}",
                    resource.kind
                ))
            }),
            None => {
                object["apiVersion"] = wanted.into();
                Ok(object)
            }
        }
    }

    /// Everything, by group, version and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_gvr.values()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A kind for tests.
    pub(crate) fn widgets() -> Resource {
        Resource {
            gvr: Gvr {
                group: "example.com".to_owned(),
                version: "v1".to_owned(),
                resource: "widgets".to_owned(),
            },
            kind: "Widget".to_owned(),
            list_kind: "WidgetList".to_owned(),
            singular: "widget".to_owned(),
            short_names: vec!["wd".to_owned()],
            categories: Vec::new(),
            scope: Scope::Namespaced,
            status: true,
            scale: Some(Scale {
                spec_replicas: ".spec.replicas".to_owned(),
                status_replicas: ".status.replicas".to_owned(),
                selector: None,
            }),
            verbs: Vec::new(),
            schema: Arc::new(Schema {
                preserve_unknown: true,
                ..Schema::default()
            }),
            published: None,
            columns: Vec::new(),
            selectable: Vec::new(),
            storage: true,
            view: None,
            custom: true,
            deprecated: None,
        }
    }
}
