//! `get` and `list`.

use std::task::Poll;

use super::Call;
use super::options::{EXACT, LIMIT_MAX, Options, continue_token};
use super::respond::Response;
use crate::error::{ApiError, Reason};
use crate::object::{Object, ObjectKey, Version};
use crate::resource::Resource;
use crate::selector::{FieldSelector, LabelSelector};
use crate::store::Selection;

/// How many objects are looked at first for a part of a list with a selector; then twice as many each time, so that what
/// every look costs besides (the rest is counted) is paid only a few times.
const LOOKED_AT: usize = 512;

/// Label and field selector of a request.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// That of a query about `resource`.
    pub(super) fn parse(options: &Options, resource: &Resource) -> Result<Filter, ApiError> {
        Ok(Filter {
            labels: LabelSelector::parse(&options.labels)?,
            fields: FieldSelector::parse(&options.fields, resource)?,
        })
    }

    /// Whether it lets an object through.
    pub(super) fn lets(&self, object: &Object) -> bool {
        self.labels.matches(object.labels()) && self.fields.matches(object)
    }

    /// Whether it lets everything through.
    fn is_open(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

impl Call<'_> {
    /// The name of the object that the path is about, or of one called `name` beside it.
    pub(super) fn key(&self, name: &str) -> ObjectKey {
        ObjectKey {
            resource: self.resource.kept_as(),
            namespace: self.path.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }

    /// The object that the path names.
    pub(super) async fn current(&self) -> Result<Object, ApiError> {
        let name = self.path.name.as_deref().unwrap_or_default();
        self.api.store.get(&self.key(name)).await
    }

    pub(super) fn selection(&self) -> Selection {
        Selection {
            resource: self.resource.kept_as(),
            namespace: self.path.namespace.clone(),
        }
    }

    pub(super) fn filter(&self) -> Result<Filter, ApiError> {
        Filter::parse(&self.options, &self.resource)
    }

    pub(super) async fn get(&self) -> Result<Response, ApiError> {
        self.object(200, &self.current().await?)
    }

    pub(super) async fn list(&self) -> Result<Response, ApiError> {
        let filter = self.filter()?;
        let selection = self.selection();
        let mut resume = self.options.resume(&selection.resource)?;
        if resume.is_some() && self.options.version.is_some_and(|version| version != Version(0)) {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let mut exact = false;
        if let (Some(asked), None) = (self.options.version, &resume) {
            let now = self.api.store.version();
            if asked > now {
                return Err(ahead(asked, now));
            }
            if self.options.version_match == EXACT && asked < now {
                // From the beginning, at that version.
                exact = true;
                resume = Some(crate::store::Resume {
                    version: asked,
                    from: ObjectKey {
                        resource: selection.resource.clone(),
                        namespace: selection.namespace.clone().unwrap_or_default(),
                        name: String::new(),
                    },
                });
            }
        }
        let limit = self.options.limit.map(|limit| limit.min(LIMIT_MAX));
        if filter.is_open() {
            let page = self.api.store.list(&selection, limit, resume.as_ref()).await;
            let page = page.map_err(|error| gone(error, exact))?;
            let token = page.next.as_ref().map(|next| continue_token(page.version, next));
            return self.list_of(&page.objects, page.version, token, page.remaining);
        }
        // With a selector a part is full once enough objects were let through.
        let mut found = Vec::new();
        let mut looked_at = limit.map(|limit| limit.max(LOOKED_AT));
        loop {
            let page = self.api.store.list(&selection, looked_at, resume.as_ref()).await;
            let page = page.map_err(|error| gone(error, exact))?;
            looked_at = looked_at.map(|looked_at| looked_at.saturating_mul(2));
            let wanted = limit.map_or(usize::MAX, |limit| limit - found.len());
            let mut through = page.objects.iter().filter(|object| filter.lets(object)).cloned();
            found.extend(through.by_ref().take(wanted));
            if let Some(next) = through.next() {
                let token = continue_token(page.version, next.key());
                return self.list_of(&found, page.version, Some(token), None);
            }
            match page.next {
                Some(from) => {
                    resume = Some(crate::store::Resume {
                        version: page.version,
                        from,
                    });
                }
                None => return self.list_of(&found, page.version, None, None),
            }
            // Others come in between.
            pause().await;
        }
    }
}

/// Lets the other tasks of this thread go on.
async fn pause() {
    let mut waited = false;
    futures::future::poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// 410 in upstream's words for what was asked for.
fn gone(mut error: ApiError, exact: bool) -> ApiError {
    if exact && error.reason == Reason::Expired {
        "The resourceVersion for the provided list is too old.".clone_into(&mut error.message);
    }
    error
}

/// 504, as upstream says that a version is not there yet.
fn ahead(asked: crate::Version, now: crate::Version) -> ApiError {
    let mut error = ApiError::new(
        crate::Reason::Timeout,
        format!("Timeout: Too large resource version: {asked}, current: {now}"),
    );
    error.details = Some(Box::new(crate::error::Details {
        causes: vec![crate::error::Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }],
        retry_after: Some(1),
        ..Default::default()
    }));
    error
}
