//! Bodies of requests: each within its time, and all at once within the memory that is set aside for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use ledge_kubeapi::error::Details;
use ledge_kubeapi::serve::BODY_MAX_BYTES;
use ledge_kubeapi::serve::transport::too_large;
use ledge_kubeapi::{ApiError, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for the bodies of all requests that are being read or answered.
pub(crate) const ALL_BYTES: usize = 64 * 1024 * 1024;
/// A body has to be there within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Reads bodies. Clones share the memory.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    free: Arc<Semaphore>,
}

/// A body, and its share of the memory for as long as it is needed.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Holds at most `all_bytes` at a time.
    pub(crate) fn new(all_bytes: usize) -> Bodies {
        Bodies {
            free: Arc::new(Semaphore::new(all_bytes)),
        }
    }

    /// Reads a body up to [`BODY_MAX_BYTES`]. Memory is taken as it comes: who sends slowly holds little.
    ///
    /// # Errors
    /// What the client is told: too large, too slow, broken off; `TooManyRequests` when the memory is used up.
    pub(crate) async fn read<B>(&self, body: B) -> Result<Held, ApiError>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let announced = body.size_hint().lower();
        if usize::try_from(announced).is_ok_and(|announced| announced > BODY_MAX_BYTES) {
            return Err(too_large());
        }
        let read = tokio::time::timeout(PATIENCE, self.collect(body)).await;
        read.unwrap_or_else(|_| {
            let told = format!("the body did not arrive within {} seconds", PATIENCE.as_secs());
            Err(ApiError::new(Reason::Timeout, told))
        })
    }

    async fn collect<B>(&self, body: B) -> Result<Held, ApiError>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut body = std::pin::pin!(body);
        let mut whole = BytesMut::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let error: Box<dyn std::error::Error + Send + Sync> = error.into();
                ApiError::bad_request(format!("the body cannot be read: {error}"))
            })?;
            let Ok(mut data) = frame.into_data() else {
                continue;
            };
            while bytes::Buf::has_remaining(&data) {
                let len = bytes::Buf::chunk(&data).len();
                if whole.len() + len > BODY_MAX_BYTES {
                    return Err(too_large());
                }
                let more = u32::try_from(len).ok();
                let more = more.and_then(|len| Arc::clone(&self.free).try_acquire_many_owned(len).ok());
                let more = more.ok_or_else(too_many)?;
                match &mut share {
                    Some(share) => share.merge(more),
                    None => share = Some(more),
                }
                whole.extend_from_slice(bytes::Buf::chunk(&data));
                bytes::Buf::advance(&mut data, len);
            }
        }
        Ok(Held {
            bytes: whole.freeze(),
            _share: share,
        })
    }
}

/// 429 in upstream's words.
fn too_many() -> ApiError {
    let mut error = ApiError::new(
        Reason::TooManyRequests,
        "Too many requests, please try again later.",
    );
    error.details = Some(Box::new(Details {
        retry_after: Some(1),
        ..Details::default()
    }));
    error
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn full(len: usize) -> Full<Bytes> {
        Full::new(vec![b'x'; len].into())
    }

    #[tokio::test]
    async fn what_is_held_is_bounded() {
        let bodies = Bodies::new(1000);
        let first = bodies.read(full(600)).await.unwrap();
        assert_eq!(first.bytes.len(), 600);
        let second = bodies.read(full(600)).await.unwrap_err();
        assert_eq!(second.reason.code(), 429);
        assert_eq!(second.details.unwrap().retry_after, Some(1));
        assert_eq!(bodies.read(full(0)).await.unwrap().bytes.len(), 0);
        drop(first);
        // What was read of the one that was refused is free again too.
        assert_eq!(bodies.read(full(1000)).await.unwrap().bytes.len(), 1000);
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_read() {
        let bodies = Bodies::new(usize::MAX >> 4);
        let error = bodies.read(full(BODY_MAX_BYTES + 1)).await.unwrap_err();
        assert_eq!(error.reason.code(), 413);
        let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
        let pieces = stream::iter((0..4).map(|_| Ok::<_, Infallible>(Frame::data(piece.clone()))));
        let error = bodies.read(StreamBody::new(pieces)).await.unwrap_err();
        assert_eq!(error.reason.code(), 413);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_in_between_is_not_waited_for() {
        let bodies = Bodies::new(1000);
        let some = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
        let never = StreamBody::new(futures::StreamExt::chain(some, stream::pending()));
        let error = bodies.read(never).await.unwrap_err();
        assert_eq!(error.reason.code(), 504);
        assert_eq!(bodies.free.available_permits(), 1000);
    }
}
