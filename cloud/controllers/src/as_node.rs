//! Requests in a node's own name.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use ledge_proto::ids::Scope;
use tower_service::Service;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
/// What a kubelet's user belongs to.
const GROUPS: [&str; 2] = ["system:nodes", "system:authenticated"];

/// A client that speaks as the user of `node`, `system:node:NAME`.
pub(crate) fn client(client: Client, node: &Scope) -> Client {
    let namespace = client.default_namespace().to_owned();
    let user = format!("system:node:{node}");
    // The name of a node is a DNS name.
    let user = HeaderValue::from_str(&user).unwrap_or(HeaderValue::from_static("system:anonymous"));
    Client::new(AsNode { client, user }, namespace)
}

#[derive(Clone)]
struct AsNode {
    client: Client,
    user: HeaderValue,
}

impl Service<Request<Body>> for AsNode {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let headers = request.headers_mut();
        headers.insert(USER, self.user.clone());
        for group in GROUPS {
            headers.append(GROUP, HeaderValue::from_static(group));
        }
        let client = self.client.clone();
        Box::pin(async move { client.send(request).await })
    }
}
