//! `create`.

use serde_json::Value;

use super::Call;
use super::respond::Response;
use super::write::based_on;
use crate::error::{ApiError, Reason};
use crate::store::Change;

/// How often a name made from `generateName` is tried, as upstream.
const NAME_ATTEMPTS: usize = 8;

/// Longest base of a generated name: with five characters after it, it is a DNS label.
const GENERATE_NAME_MAX_BYTES: usize = 58;

impl Call<'_> {
    pub(super) async fn create(&self) -> Result<Response, ApiError> {
        let mut value = self.body()?;
        self.identify(&mut value)?;
        self.create_value(value).await
    }

    /// Creates `value`, whose kind, version and namespace were checked.
    pub(super) async fn create_value(&self, mut value: Value) -> Result<Response, ApiError> {
        if based_on(&value)?.is_some() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let base = value["metadata"]["generateName"].as_str().unwrap_or_default();
        let base: String = base.chars().take(GENERATE_NAME_MAX_BYTES).collect();
        let generated = !base.is_empty() && value["metadata"]["name"].as_str().unwrap_or_default().is_empty();
        let mut attempt = 1;
        loop {
            if generated {
                let name = format!("{base}{}", self.api.env.name_suffix());
                value["metadata"]["name"] = name.into();
            }
            match self.create_once(value.clone()).await {
                Err(error)
                    if generated && error.reason == Reason::AlreadyExists && attempt < NAME_ATTEMPTS =>
                {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn create_once(&self, value: Value) -> Result<Response, ApiError> {
        let mut prepared = self.prepare(None, value).await?;
        let metadata = &mut prepared.value["metadata"];
        metadata["uid"] = self.api.env.uid().into();
        metadata["creationTimestamp"] = self.time().into();
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        // Applied objects come with their managedFields made.
        let value = if metadata["managedFields"].is_array() && self.applies() {
            prepared.value
        } else {
            super::write::set(&mut prepared.value["metadata"], "managedFields", None);
            self.track(None, prepared.value)
        };
        if self.options.dry_run {
            return Ok(self.dry(201, value)?.with_warnings(&prepared.warnings));
        }
        let change = Change::Create {
            key: self.key(&name),
            value,
        };
        let object = self.api.store.commit(change).await?;
        Ok(self.object(201, &object)?.with_warnings(&prepared.warnings))
    }
}
