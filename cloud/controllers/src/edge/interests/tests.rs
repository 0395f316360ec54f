//! How many interests a node may have.

use std::task::{Context, Poll};

use http::{Request, Response};
use kube::client::Body;
use tower_service::Service;

use super::*;

/// An API that does not answer.
#[derive(Clone)]
struct Silent;

impl Service<Request<Body>> for Silent {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = std::future::Pending<Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test]
async fn what_is_beyond_the_limit_has_its_turn_when_others_go() {
    let (heard, _hearing) = mpsc::channel(1);
    let mut interests = Interests::new(Client::new(Silent, "default"), heard);
    let node = Scope::node("edge-1").unwrap();
    let mut pending = Pending::default();
    let id = |number: usize| format!("i-{number:04}");
    for number in 0..PER_NODE_MAX + 2 {
        interests.set(&node, id(number), Some(v1::Interest::default()), &mut pending);
    }
    let refused = |interests: &Interests| -> Vec<String> {
        let refused = interests
            .all
            .iter()
            .filter(|(_, interest)| interest.following.is_none());
        refused.map(|((_, id), _)| id.clone()).collect()
    };
    assert_eq!(refused(&interests), [id(PER_NODE_MAX), id(PER_NODE_MAX + 1)]);
    let told = interests.answer(&node, &id(PER_NODE_MAX), None).unwrap();
    let Ok(Payload::InterestState(state)) = Payload::decode(&told) else {
        panic!("{told:?}");
    };
    assert_eq!(state.code, 429);
    // Another node has its own.
    let other = Scope::node("edge-2").unwrap();
    interests.set(&other, id(0), Some(v1::Interest::default()), &mut pending);
    assert_eq!(refused(&interests).len(), 2);
    interests.set(&node, id(5), None, &mut pending);
    assert_eq!(refused(&interests), [id(PER_NODE_MAX + 1)]);
    // What it is told stays until there is something else to tell.
    assert_eq!(interests.answer(&node, &id(PER_NODE_MAX), Some(state)), None);
}
