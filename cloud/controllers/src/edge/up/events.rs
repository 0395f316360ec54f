//! Events that nodes tell, into the API: each once, from where the log says that it was written last.

use std::collections::HashMap;
use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, PostParams};
use kube::core::Status;
use kube::core::response::StatusCause;
use ledge_log::{ReadError as LogReadError, StreamReader};
use ledge_proto::fold::{Table, folded_stream};
use ledge_proto::frame::Frame;
use ledge_proto::ids::{Lane, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::record::{Payload, RecordKind};
use ledge_proto::v1;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::Controllers;
use crate::informer::resource;
use crate::told::{TellError, Told, record};

/// Streams are looked at at most this often: events are for people.
const EVERY: Duration = Duration::from_secs(1);
/// Records passed without an event after which the log is told so, so that a restart does not read them again.
const CURSOR_EVERY: u64 = 50_000;
/// Records read of one node before the others have their turn.
const TURN: u64 = 10_000;

/// Writes the events of all nodes until `shutdown`.
pub(crate) async fn run(controllers: Controllers, shutdown: CancellationToken) {
    let mut committed = controllers.told.log.subscribe();
    let mut nodes: HashMap<StreamKey, Following> = HashMap::new();
    loop {
        committed.borrow_and_update();
        let mut more = false;
        for stream in controllers.told.log.streams() {
            let id = &stream.key.id;
            if id.lane != Lane::UpData || id.scope.node_name().is_none() {
                continue;
            }
            match follow(&controllers, &mut nodes, &stream.key, stream.durable.position.seq).await {
                Ok(again) => more |= again,
                Err(err) => {
                    tracing::warn!(node = %stream.key.id.scope, %err, "its events wait; trying again");
                    more = true;
                }
            }
        }
        let pause = async {
            tokio::time::sleep(EVERY).await;
            if !more {
                committed.changed().await.ok();
            }
        };
        tokio::select! {
            () = pause => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One node's stream, and up to where its events are in the API.
struct Following {
    reader: StreamReader,
    /// In the log.
    noted: Seq,
    /// A frame of which some events could not be written yet.
    kept: Option<(Frame, Seq)>,
}

/// Writes what is new; whether there is more.
async fn follow(
    controllers: &Controllers,
    nodes: &mut HashMap<StreamKey, Following>,
    key: &StreamKey,
    durable: Seq,
) -> Result<bool, EventError> {
    let told = &controllers.told;
    let scope = &key.id.scope;
    if !nodes.contains_key(key) {
        // Of several lives of a node's log, the present one.
        let view = told.view();
        let folded =
            folded_stream(&view, &StreamId::new(scope.clone(), Lane::UpData)).map_err(TellError::from)?;
        if folded.is_none_or(|folded| folded.incarnation != key.incarnation.0.as_slice()) {
            return Ok(false);
        }
        let name = scope.node_name().unwrap_or_default();
        let cursor: Option<v1::EventCursor> =
            Told::entry(&view, scope, Table::EventCursors, name).map_err(TellError::from)?;
        let cursor = cursor.filter(|cursor| cursor.incarnation == key.incarnation.0);
        let noted = Seq(cursor
            .and_then(|cursor| cursor.position)
            .map_or(0, |position| position.seq));
        let following = Following {
            reader: told.log.read_stream(key, noted),
            noted,
            kept: None,
        };
        nodes.insert(key.clone(), following);
    }
    let Some(node) = nodes.get_mut(key) else {
        return Ok(false);
    };
    if node.kept.is_none() && node.reader.position() >= durable {
        return Ok(false);
    }
    let begin = node.reader.position();
    let mut wrote = false;
    let mut last = None;
    let outcome = loop {
        let (frame, after) = match node.kept.take() {
            Some(kept) => kept,
            None => {
                let after = node.reader.position();
                match next(&mut node.reader)? {
                    Some(frame) => (frame, after),
                    None => break Ok(false),
                }
            }
        };
        match write_all(controllers, &frame, after).await {
            Ok((position, any)) => {
                wrote |= any;
                last = position.or(last);
            }
            Err((done, err)) => {
                node.kept = Some((frame, done));
                break Err(err);
            }
        }
        if node.reader.position().0 - begin.0 >= TURN {
            break Ok(true);
        }
    };
    if let Some(position) = last
        && (wrote || position.seq.0 - node.noted.0 >= CURSOR_EVERY)
    {
        note(told, key, position).await?;
        node.noted = position.seq;
    }
    outcome
}

/// The next frame that can be read. What cannot is told elsewhere: by the gaps of the stream.
fn next(reader: &mut StreamReader) -> Result<Option<Frame>, LogReadError> {
    loop {
        match reader.next() {
            Err(LogReadError::Jump { .. }) => reader.skip_jump(),
            Err(err @ LogReadError::Damaged { .. }) => {
                reader.skip_damage().ok_or(err)?;
            }
            outcome => return outcome,
        }
    }
}

/// Writes the events of a frame after `after`: the last position, and whether there was any. When it fails, up to where it
/// came.
async fn write_all(
    controllers: &Controllers,
    frame: &Frame,
    after: Seq,
) -> Result<(Option<Position>, bool), (Seq, EventError)> {
    let Ok(records) = frame.records() else {
        // The projection says what is wrong with it.
        return Ok((None, false));
    };
    let mut last = None;
    let mut any = false;
    for (position, record) in records.map_while(Result::ok) {
        if position.seq > after && record.kind == RecordKind::KubeEvent.as_wire() {
            let written = write(controllers, &frame.key().id.scope, position, &record).await;
            written.map_err(|err| (Seq(position.seq.0 - 1), err))?;
            any = true;
        }
        last = Some(position);
    }
    Ok((last, any))
}

async fn write(
    controllers: &Controllers,
    scope: &Scope,
    position: Position,
    record: &v1::Record,
) -> Result<(), EventError> {
    let Ok(Payload::KubeEvent(event)) = Payload::decode(record) else {
        return Ok(());
    };
    let told = serde_json::from_slice::<Value>(&event.json)
        .ok()
        .and_then(|mut event| {
            let namespace = event["involvedObject"]["namespace"]
                .as_str()
                .filter(|name| !name.is_empty());
            let namespace = event["metadata"]["namespace"]
                .as_str()
                .or(namespace)
                .unwrap_or("default")
                .to_owned();
            event["apiVersion"] = "v1".into();
            event["kind"] = "Event".into();
            if !event["metadata"].is_object() {
                event["metadata"] = serde_json::json!({});
            }
            if event["metadata"]["name"].as_str().is_none_or(str::is_empty) {
                // Whoever writes it again writes the same.
                let about = event["involvedObject"]["name"]
                    .as_str()
                    .unwrap_or("node")
                    .to_owned();
                let name = format!("{about}.{scope}-{}-{}", position.epoch.0, position.seq.0);
                event["metadata"]["name"] = name.into();
            }
            event["metadata"]["namespace"] = namespace.as_str().into();
            Some((namespace, serde_json::from_value::<DynamicObject>(event).ok()?))
        });
    let Some((namespace, event)) = told else {
        tracing::error!(node = %scope, seq = position.seq.0, "an event of the node is no event: it is left out");
        return Ok(());
    };
    let events = resource("", "v1", "Event", "events");
    let api: Api<DynamicObject> = Api::namespaced_with(controllers.client.clone(), &namespace, &events);
    match api.create(&PostParams::default(), &event).await {
        Ok(_) => Ok(()),
        // It was written before cloudcore stopped.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(kube::Error::Api(status)) if is_final(&status) => {
            tracing::error!(node = %scope, seq = position.seq.0, why = status.message, "the API refuses an event of the node: it is left out");
            Ok(())
        }
        Err(err) => Err(err.into()),
    }
}

/// Whether trying again changes nothing. Nothing is made any more in a namespace that goes: its events would hold up all
/// that come after them.
fn is_final(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice());
    let goes = |cause: &StatusCause| cause.reason == "NamespaceTerminating";
    [400, 404, 413, 422].contains(&status.code)
        || (status.code == 403 && causes.is_some_and(|causes| causes.iter().any(goes)))
}

async fn note(told: &Told, key: &StreamKey, position: Position) -> Result<(), EventError> {
    let scope = key.id.scope.clone();
    let name = scope.node_name().unwrap_or_default().to_owned();
    let cursor = Payload::EventCursor(v1::EventCursor {
        incarnation: key.incarnation.0.to_vec(),
        position: Some(v1::StreamPosition {
            epoch: position.epoch.0,
            seq: position.seq.0,
        }),
    });
    told.append(StreamId::new(scope, Lane::Local), vec![record(name, &cursor)])
        .await?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
enum EventError {
    #[error(transparent)]
    Tell(#[from] TellError),
    #[error("log: {0}")]
    Read(#[from] LogReadError),
    #[error("Kubernetes API: {0}")]
    Api(#[from] kube::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_any_more_is_left_out() {
        let status = |code, cause: &str| {
            let causes = serde_json::json!([{"reason": cause}]);
            let status = serde_json::json!({"code": code, "details": {"causes": causes}});
            serde_json::from_value::<Status>(status).unwrap()
        };
        assert!(is_final(&status(403, "NamespaceTerminating")));
        // Somebody may give the permission.
        assert!(!is_final(&status(403, "")));
        assert!(!is_final(&Status::default()));
        assert!(is_final(&status(404, "")));
    }
}
