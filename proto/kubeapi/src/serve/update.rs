//! `update`: the whole object is replaced.

use super::Call;
use super::respond::Response;
use super::write::based_on;
use crate::error::{ApiError, Cause, Reason};

impl Call<'_> {
    pub(super) async fn update(&self) -> Result<Response, ApiError> {
        let mut value = self.body()?;
        self.identify(&mut value)?;
        let current = self.current().await?;
        let name = current.key().name.clone();
        match based_on(&value)? {
            Some(version) if version != current.version() => {
                return Err(ApiError::modified(&self.resource.group_resource(), &name));
            }
            Some(_) => {}
            None if self.resource.custom => {
                let cause = Cause {
                    reason: "FieldValueInvalid",
                    message: "Invalid value: 0: must be specified for an update".to_owned(),
                    field: "metadata.resourceVersion".to_owned(),
                };
                let gvr = &self.resource.gvr;
                return Err(ApiError::invalid(&gvr.group, &gvr.resource, &name, vec![cause]));
            }
            None => {}
        }
        if let Some(uid) = value["metadata"]["uid"].as_str()
            && !uid.is_empty()
            && uid != current.uid()
        {
            return Err(uid_differs(self, &name, uid, current.uid()));
        }
        let old = current.value();
        let prepared = self.prepare(Some(&old), value).await?;
        let new = self.track(Some(&old), prepared.value);
        if self.options.dry_run {
            return Ok(self.dry(200, new)?.with_warnings(&prepared.warnings));
        }
        match self.replace(&current, new).await {
            Ok(object) => Ok(self.object(200, &object)?.with_warnings(&prepared.warnings)),
            // It was removed meanwhile: what the client wanted to replace is gone.
            Err(error) if error.reason == Reason::NotFound => {
                Err(ApiError::modified(&self.resource.group_resource(), &name))
            }
            Err(error) => Err(error),
        }
    }
}

/// 409 as upstream gives it when the client means another object of that name.
fn uid_differs(call: &Call<'_>, name: &str, asked: &str, found: &str) -> ApiError {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{}/{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {found}",
        call.resource.gvr.resource
    );
    ApiError::conflict(&call.resource.group_resource(), name, &why)
}
