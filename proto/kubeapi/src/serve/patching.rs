//! `patch`: JSON patch, merge patch, strategic merge patch, and server-side apply.

use serde_json::Value;

use super::Call;
use super::respond::Response;
use super::write::{any_json, based_on, parse};
use crate::error::{ApiError, Reason};
use crate::object::Object;
use crate::{apply, patch};

/// How often a patch that does not name a version is tried again when the object changed meanwhile, as upstream.
const ATTEMPTS: usize = 5;

impl Call<'_> {
    /// Whether this request is a server-side apply.
    pub(super) fn applies(&self) -> bool {
        matches!(
            self.request.content_type().as_str(),
            "application/apply-patch+yaml" | "application/apply-patch+json" | "application/apply-patch"
        )
    }

    pub(super) async fn patch(&self) -> Result<Response, ApiError> {
        let mut attempt = 1;
        loop {
            match self.patch_once().await {
                Err(error)
                    if error.reason == Reason::Conflict
                        && error
                            .details
                            .as_ref()
                            .is_some_and(|details| details.causes.is_empty())
                        && attempt < ATTEMPTS
                        && !self.names_version() =>
                {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Whether the patch is for one version of the object only: then a conflict is the client's to solve.
    fn names_version(&self) -> bool {
        let body: Value = serde_json::from_slice(&self.request.body).unwrap_or_default();
        body["metadata"]["resourceVersion"].is_string()
    }

    async fn patch_once(&self) -> Result<Response, ApiError> {
        if self.resource.custom && self.request.content_type() == "application/strategic-merge-patch+json" {
            return Err(ApiError::new(
                Reason::UnsupportedMediaType,
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ));
        }
        let current = self.current().await;
        if self.applies() {
            return self.apply(current).await;
        }
        let current = current?;
        // Patches are about the version of the path.
        let before = self.value_of(&current)?;
        let mut value = self.patched(&before)?;
        patch::check_object(&value)?;
        self.identify(&mut value)?;
        let name = current.key().name.as_str();
        if based_on(&value)?.is_some_and(|version| version != current.version()) {
            return Err(ApiError::modified(&self.resource.group_resource(), name));
        }
        self.finish(&current, value).await
    }

    fn patched(&self, before: &Value) -> Result<Value, ApiError> {
        match self.request.content_type().as_str() {
            "application/json-patch+json" => {
                patch::json(before, &any_json(&self.request.body).map_err(undecoded)?)
            }
            "application/merge-patch+json" => {
                patch::merge(before, &parse(&self.request.body).map_err(undecoded)?)
            }
            "application/strategic-merge-patch+json" if !self.resource.custom => patch::strategic(
                &self.resource.schema,
                before,
                &parse(&self.request.body).map_err(undecoded)?,
            ),
            _ => Err(ApiError::new(
                Reason::UnsupportedMediaType,
                "415: Unsupported Media Type",
            )),
        }
    }

    async fn apply(&self, current: Result<Object, ApiError>) -> Result<Response, ApiError> {
        let manager = self.options.manager.as_deref().unwrap_or_default();
        if let Some(cause) = apply::check_manager(manager, true) {
            return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        let mut config = self.yaml()?;
        self.identify(&mut config)?;
        if config["metadata"]
            .get("managedFields")
            .is_some_and(|fields| !fields.is_null())
        {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let current = match current {
            Ok(current) => Some(current),
            Err(error) if error.reason == Reason::NotFound && self.path.subresource.is_none() => None,
            Err(error) => return Err(error),
        };
        let name = self.path.name.as_deref().unwrap_or_default();
        if let Some(version) = based_on(&config)?
            && current
                .as_ref()
                .is_none_or(|current| current.version() != version)
        {
            return Err(ApiError::modified(&self.resource.group_resource(), name));
        }
        let live = current
            .as_ref()
            .map(|current| self.value_of(current))
            .transpose()?;
        let time = self.time();
        let writer = apply::Writer {
            manager,
            schema: &self.resource.schema,
            api_version: &self.resource.api_version(),
            time: &time,
            subresource: self.subresource(),
            has_status: self.resource.status,
        };
        let applied = apply::apply(live.as_ref(), &config, &writer, self.options.force)?;
        match current {
            Some(current) => self.finish(&current, applied).await,
            None => {
                let mut applied = applied;
                super::write::set(&mut applied["metadata"], "resourceVersion", None);
                self.create_value(applied).await
            }
        }
    }

    async fn finish(&self, current: &Object, value: Value) -> Result<Response, ApiError> {
        let old = current.value();
        let prepared = self.prepare(Some(&old), value).await?;
        let new = if self.applies() {
            prepared.value
        } else {
            self.track(Some(&old), prepared.value)
        };
        if self.options.dry_run {
            return Ok(self.dry(200, new)?.with_warnings(&prepared.warnings));
        }
        let object = self.replace(current, new).await?;
        Ok(self.object(200, &object)?.with_warnings(&prepared.warnings))
    }

    /// The body of an apply. Clients send JSON under the name of YAML, which it is.
    fn yaml(&self) -> Result<Value, ApiError> {
        if self.request.body.trim_ascii_start().starts_with(b"{") {
            return parse(&self.request.body);
        }
        crate::yaml::parse(&self.request.body)
    }
}

fn undecoded(error: ApiError) -> ApiError {
    ApiError::bad_request(format!("error decoding patch: {}", error.message))
}
