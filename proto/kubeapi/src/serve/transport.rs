//! Between HTTP's own types and the protocol's: what every shell needs, over TLS, plain, or within the process.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};

use super::BODY_MAX_BYTES;
use super::request::{Method, Request, User};
use super::respond::{Body, Response};
use crate::error::{ApiError, Reason};

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// Whoever shows no credentials. Anybody may ask for health, version and discovery; what for is up to the authorizer.
pub fn anonymous() -> User {
    User {
        name: "system:anonymous".to_owned(),
        groups: vec!["system:unauthenticated".to_owned()],
    }
}

/// Reads a request of `user`, its body up to [`BODY_MAX_BYTES`].
///
/// # Errors
/// What the client is told: an unknown method, a body that is too large or breaks off.
pub async fn read<B>(user: User, request: http::Request<B>) -> Result<Request, ApiError>
where
    B: HttpBody,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let method = Method::parse(parts.method.as_str()).ok_or_else(|| {
        ApiError::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    })?;
    let body = Limited::new(body, BODY_MAX_BYTES)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                let told = format!("Request entity too large: limit is {BODY_MAX_BYTES}");
                ApiError::new(Reason::RequestEntityTooLarge, told)
            } else {
                ApiError::bad_request(format!("the body cannot be read: {error}"))
            }
        })?;
    let headers = parts.headers.iter().filter_map(|(name, value)| {
        let value = value.to_str().ok()?.to_owned();
        Some((name.as_str().to_owned(), value))
    });
    Ok(Request {
        method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body: body.to_bytes(),
        user,
    })
}

/// Writes a response. The pieces of a watch end when `ended` does.
pub fn write<E>(response: Response, ended: E) -> http::Response<ResponseBody>
where
    E: Future<Output = ()> + Send + 'static,
{
    let mut out = http::Response::builder().status(response.status);
    for (name, value) in &response.headers {
        out = out.header(*name, value);
    }
    let body = match response.body {
        Body::Whole(bytes) => Full::new(bytes).boxed_unsync(),
        Body::Stream(lines) => streamed(lines.take_until(Box::pin(ended))),
    };
    out.body(body).unwrap_or_else(|_| {
        // A header's value that is none: ours, or a warning that quotes a client.
        let mut broken = http::Response::new(Full::default().boxed_unsync());
        *broken.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        broken
    })
}

fn streamed(lines: impl Stream<Item = Bytes> + Send + 'static) -> ResponseBody {
    let frames = lines.map(|line| Ok(Frame::data(line)));
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
