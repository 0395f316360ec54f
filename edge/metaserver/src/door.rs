//! What a request is before the protocol answers it: a read may need something that is not here yet, a write goes through
//! the log.

use std::sync::Arc;

use async_trait::async_trait;
use ledge_kubeapi::ApiError;
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::serve::request::{Method, Request};
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::serve::{Extension, Write};
use serde_json::Value;

use crate::interests::Interests;
use crate::kinds;
use crate::mirror::Mirror;
use crate::outbox::Outbox;
use crate::own::Own;
use crate::writes::Writes;

/// See the module.
pub(crate) struct Door {
    own: Own,
    interests: Arc<Interests>,
    writes: Arc<Writes>,
}

impl Door {
    pub(crate) fn new(
        mirror: Mirror,
        outbox: Arc<dyn Outbox>,
        interests: Arc<Interests>,
        writes: Arc<Writes>,
    ) -> Door {
        Door {
            own: Own::new(mirror, outbox),
            interests,
            writes,
        }
    }
}

#[async_trait]
impl Extension for Door {
    async fn call(&self, request: &Request, path: &ResourcePath) -> Option<Response> {
        if path.gvr.group == kinds::OWN_GROUP {
            return None; // The protocol serves its reads and refuses the rest.
        }
        if matches!(request.method, Method::Get | Method::Head) {
            return self.interests.prepare(request, path).await.err();
        }
        match self.own.call(request, path).await {
            Some(Ok(response)) => Some(response),
            Some(Err(error)) => Some(Response::error(&error)),
            None => Some(self.writes.carry(request, path).await),
        }
    }

    async fn admit(&self, _: &Write<'_>, _: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }
}
