//! Frames that one end lost and the other still holds.

use std::sync::Arc;

use ledge_log::ReadError;
use ledge_proto::ids::{Seq, StreamKey};

use super::items::write_frame;
use super::{Link, LinkError};

/// Below everything but telemetry: what was lost is in no hurry.
const PRIORITY: i32 = 5;

/// Sends the frames that hold the records `first` to `last` of `key`, on a stream of their own, or says that not all of
/// them are held.
pub(super) async fn answer(
    link: Arc<Link>,
    id: u64,
    key: StreamKey,
    first: Seq,
    last: Seq,
) -> Result<(), LinkError> {
    let mut reader = link.log.read_stream(&key, Seq(first.0.saturating_sub(1)));
    let mut stream = None;
    loop {
        match reader.next() {
            Ok(Some(frame)) => {
                let out = match &mut stream {
                    Some(out) => out,
                    none => {
                        let opened = link.connection.open_uni().await?;
                        opened.set_priority(PRIORITY).ok();
                        none.insert(opened)
                    }
                };
                let bytes = write_frame(out, frame.bytes().clone(), None).await?;
                link.observer.sent(&key, u64::from(frame.count()), bytes);
                if frame.last_seq() >= last {
                    break;
                }
            }
            Ok(None)
            | Err(ReadError::Jump { .. } | ReadError::Recycled { .. } | ReadError::Damaged { .. }) => {
                link.session().refuse_fetch(id);
                link.wake.notify_one();
                return Ok(());
            }
            Err(err) => return Err(err.into()),
        }
    }
    if let Some(mut stream) = stream {
        stream.finish().ok();
    }
    link.session().handle_fetch_sent();
    Ok(())
}
