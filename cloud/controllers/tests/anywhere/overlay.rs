//! An API of which a test answers some requests itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tower_service::Service;

type Answering = Pin<Box<dyn Future<Output = Result<Option<Response<Body>>, kube::Error>> + Send>>;

/// `answer` is asked first; what it does not answer goes to `client`.
pub(crate) fn over(
    client: Client,
    answer: impl Fn(&Request<Body>) -> Answering + Send + Sync + 'static,
) -> Client {
    let namespace = client.default_namespace().to_owned();
    let answer = Arc::new(answer);
    Client::new(Overlay { client, answer }, namespace)
}

/// An answer in JSON.
pub(crate) fn json(code: u16, value: &Value) -> Response<Body> {
    let builder = Response::builder()
        .status(code)
        .header("content-type", "application/json");
    builder.body(Body::from(value.to_string().into_bytes())).unwrap()
}

#[derive(Clone)]
struct Overlay<A> {
    client: Client,
    answer: Arc<A>,
}

impl<A: Fn(&Request<Body>) -> Answering> Service<Request<Body>> for Overlay<A> {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answering = (self.answer)(&request);
        let client = self.client.clone();
        Box::pin(async move {
            match answering.await? {
                Some(answer) => Ok(answer),
                None => client.send(request).await,
            }
        })
    }
}
