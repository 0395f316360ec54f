//! The API for clients in the same process: requests without a socket.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::Body;
use ledge_kubeapi::serve::Api;
use ledge_kubeapi::serve::request::User;
use ledge_kubeapi::serve::respond::Response;
use ledge_kubeapi::serve::transport::{self, ResponseBody};
use tower_service::Service;

/// Sends requests of one user to the API; give it to `kube::Client::new`.
#[derive(Clone)]
pub struct Local {
    api: Api,
    user: User,
}

impl Local {
    /// A client that speaks for `user`.
    pub fn new(api: Api, user: User) -> Local {
        Local { api, user }
    }

    /// A client that may do everything, under the name of `component`, such as `system:edge-controller`.
    pub fn privileged(api: Api, component: &str) -> Local {
        let groups = ["system:masters", "system:authenticated"];
        let user = User {
            name: component.to_owned(),
            groups: groups.map(str::to_owned).into(),
        };
        Local { api, user }
    }
}

impl<B> Service<http::Request<B>> for Local
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Local { api, user } = self.clone();
        Box::pin(async move {
            let response = match transport::read(user, request).await {
                Ok(request) => api.serve(request).await,
                Err(error) => Response::error(&error),
            };
            // A watch ends with its client.
            Ok(transport::write(response, std::future::pending()))
        })
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
