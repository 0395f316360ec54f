//! Between HTTP's own types and the protocol's: what every shell needs, over TLS, plain, or within the process.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use http_body::Body as HttpBody;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};

use super::BODY_MAX_BYTES;
use super::request::{ANONYMOUS, Method, Request, UNAUTHENTICATED, User};
use super::respond::{Body, Response};
use crate::error::{ApiError, Reason};

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// Whoever shows no credentials. Anybody may ask for health, version and discovery; what for is up to the authorizer.
pub fn anonymous() -> User {
    User::new(ANONYMOUS, [UNAUTHENTICATED])
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
    let mut request = head(user, &parts)?;
    let body = Limited::new(body, BODY_MAX_BYTES)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                too_large()
            } else {
                ApiError::bad_request(format!("the body cannot be read: {error}"))
            }
        })?;
    request.body = body.to_bytes();
    Ok(request)
}

/// 413: a body over [`BODY_MAX_BYTES`].
pub fn too_large() -> ApiError {
    let told = format!("Request entity too large: limit is {BODY_MAX_BYTES}");
    ApiError::new(Reason::RequestEntityTooLarge, told)
}

/// A request of `user` without its body, for [`super::Api::check`].
///
/// # Errors
/// What the client is told: an unknown method, a header that cannot be read.
pub fn head(user: User, parts: &http::request::Parts) -> Result<Request, ApiError> {
    let method = Method::parse(parts.method.as_str()).ok_or_else(|| {
        ApiError::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    })?;
    let headers = parts.headers.iter().map(header);
    Ok(Request {
        method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect::<Result<_, _>>()?,
        body: Bytes::new(),
        user,
    })
}

/// A header whose value is no text is refused where it says who the request is for or what is in it: a request without it
/// would be another one. The others (`User-Agent`) are read as far as they can be.
fn header((name, value): (&http::HeaderName, &http::HeaderValue)) -> Result<(String, String), ApiError> {
    let name = name.as_str();
    if let Ok(text) = std::str::from_utf8(value.as_bytes()) {
        return Ok((name.to_owned(), text.to_owned()));
    }
    let matters = name.starts_with("impersonate-")
        || matches!(
            name,
            "authorization" | "content-type" | "content-encoding" | "accept"
        );
    if matters {
        let told = format!("the value of the header {name} is not UTF-8");
        return Err(ApiError::bad_request(told));
    }
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok((name.to_owned(), text))
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http::HeaderValue;

    use super::*;

    fn read_with(name: &'static str, value: &[u8]) -> Result<Request, ApiError> {
        let mut request = http::Request::new(Full::<Bytes>::default());
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().insert(name, value);
        read(anonymous(), request).now_or_never().unwrap()
    }

    #[test]
    fn no_header_that_matters_is_lost() {
        let request = read_with("impersonate-user", "jürgen".as_bytes()).unwrap();
        assert_eq!(request.header("impersonate-user"), "jürgen");
        for name in [
            "impersonate-user",
            "impersonate-extra-a",
            "content-type",
            "accept",
        ] {
            let error = read_with(name, b"j\xfcrgen").unwrap_err();
            assert_eq!(error.reason.code(), 400, "{name}");
        }
        let request = read_with("user-agent", b"j\xfcrgen/1").unwrap();
        assert_eq!(request.default_manager(), "j\u{fffd}rgen");
    }
}
