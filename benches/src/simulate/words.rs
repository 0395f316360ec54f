//! Control messages, read for the checks and for the trace.

use ledge_proto::ids::{Chain, Epoch, Incarnation, Lane, Mark, Position, Scope, Seq, StreamId, StreamKey};
use ledge_proto::v1;
use ledge_proto::v1::control_message::Message;

use super::violation::{Checked, Violation};

/// What an acknowledgement is about.
pub(super) fn marked(ack: &v1::Ack) -> Checked<(StreamKey, Mark)> {
    let read = || {
        let id = StreamId::new(Scope::from_wire(&ack.scope)?, Lane::from_wire(ack.lane)?);
        let key = StreamKey {
            id,
            incarnation: Incarnation::from_slice(&ack.incarnation)?,
        };
        let mark = Mark {
            position: Position {
                epoch: Epoch(ack.epoch),
                seq: Seq(ack.durable_seq),
            },
            chain: Chain::from_slice(&ack.durable_chain)?,
        };
        Ok((key, mark))
    };
    read().map_err(|err: ledge_proto::ids::NameError| {
        Violation::new("wire", format!("an acknowledgement cannot be read: {err}"))
    })
}

pub(super) fn describe(message: &Message) -> String {
    let streams = |streams: &[v1::StreamState]| {
        let each = streams.iter().map(|state| {
            let lane = Lane::from_wire(state.lane).map_or("?", Lane::name);
            format!(" {}/{lane} {}:{}", state.scope, state.epoch, state.seq)
        });
        each.collect::<String>()
    };
    match message {
        Message::Hello(hello) => format!(
            "HELLO token {}{}",
            hello.token.as_ref().map_or(0, |token| token.counter),
            streams(&hello.streams)
        ),
        Message::Welcome(welcome) => format!(
            "WELCOME token {} leadership {}.{}{}",
            welcome.token.as_ref().map_or(0, |token| token.counter),
            welcome.restore_generation,
            welcome.cloud_epoch,
            streams(&welcome.streams)
        ),
        Message::Refuse(refuse) => format!("REFUSE {}: {}", refuse.reason, refuse.message),
        Message::Ack(ack) => {
            let lane = Lane::from_wire(ack.lane).map_or("?", Lane::name);
            format!("ACK {}/{lane} {}:{}", ack.scope, ack.epoch, ack.durable_seq)
        }
        Message::Ping(_) => "PING".to_owned(),
        Message::Confirm(_) => "CONFIRM".to_owned(),
        Message::Nack(nack) => format!("NACK {}", nack.reason),
        Message::Fetch(fetch) => format!("FETCH {} to {}", fetch.first_seq, fetch.last_seq),
        Message::NotHeld(_) => "NOT_HELD".to_owned(),
    }
}
