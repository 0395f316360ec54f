//! What is committed together: requests become frames, and get their answers.

use std::collections::HashMap;
use std::sync::Arc;

use ledge_proto::frame::{Frame, FrameWriter};
use ledge_proto::ids::{Epoch, Mark, Position, Seq};
use ledge_proto::limits;
use ledge_proto::v1::snapshot::Purpose;
use tokio::sync::oneshot;

use super::Writer;
use super::queue::{Request, Work};
use crate::catalog::Stream;
use crate::error::AppendError;
use crate::log::Appended;
use crate::snapshot::NewSnapshot;

/// A frame on its way into a block.
pub(crate) struct Built {
    pub(crate) stream: Arc<Stream>,
    pub(crate) frame: Frame,
    /// Whom to tell of a frame received; one made here from records has its answers with the group.
    done: Option<oneshot::Sender<Result<Mark, AppendError>>>,
}

impl Built {
    /// Made here from records, as opposed to received.
    pub(crate) fn own(&self) -> bool {
        self.done.is_none()
    }
}

/// One commit.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) frames: Vec<Built>,
    /// How the writers of own streams stand after this group, by slot.
    pub(crate) own: HashMap<u32, FrameWriter>,
    /// Instead of frames.
    pub(crate) snapshots: Vec<(Arc<Stream>, NewSnapshot)>,
    answers: Vec<Answer>,
}

enum Answer {
    Records(oneshot::Sender<Result<Appended, AppendError>>, Appended),
    Held(oneshot::Sender<Result<Mark, AppendError>>, Mark, Arc<Stream>),
    Snapshot(oneshot::Sender<Result<(), AppendError>>, Arc<Stream>),
}

/// Records of one stream that will be one frame.
struct Pending {
    stream: Arc<Stream>,
    payload: Vec<u8>,
    count: u32,
    answers: Vec<(oneshot::Sender<Result<Appended, AppendError>>, u32)>,
}

impl Group {
    /// Makes frames of records; frames received are taken as they are.
    pub(crate) fn build(requests: Vec<Request>, writer: &Writer) -> Group {
        let mut group = Group::default();
        group.frames.reserve(requests.len());
        let mut pending: Vec<Pending> = Vec::new();
        let mut by_slot: HashMap<u32, usize> = HashMap::new();
        for request in requests {
            let stream = request.stream;
            match request.work {
                Work::Frame { frame, done } => {
                    if let Err(err) = stage(&stream, &frame) {
                        drop(done.send(Err(err)));
                        continue;
                    }
                    group.frames.push(Built {
                        stream,
                        frame,
                        done: Some(done),
                    });
                }
                Work::Snapshot { snapshot, done } => match writer.stage_snapshot(&stream, &snapshot.head) {
                    Ok(()) => {
                        group.answers.push(Answer::Snapshot(done, stream.clone()));
                        group.snapshots.push((stream, snapshot));
                    }
                    Err(err) => {
                        // What was queued behind was accepted on top of it.
                        if snapshot.head.purpose == Purpose::Rebase {
                            give_back(&stream);
                        }
                        drop(done.send(Err(err)));
                    }
                },
                Work::Held { mark, done } => group.answers.push(Answer::Held(done, mark, stream)),
                Work::Records {
                    payload, count, done, ..
                } => {
                    let at = *by_slot.entry(stream.slot).or_insert(pending.len());
                    match pending.get_mut(at) {
                        Some(open) if fits(open, &payload, count) => {
                            open.payload.extend_from_slice(&payload);
                            open.count += count;
                            open.answers.push((done, count));
                        }
                        Some(full) => {
                            let next = Pending {
                                stream,
                                payload,
                                count,
                                answers: vec![(done, count)],
                            };
                            group.cut(std::mem::replace(full, next), writer);
                        }
                        None => pending.push(Pending {
                            stream,
                            payload,
                            count,
                            answers: vec![(done, count)],
                        }),
                    }
                }
            }
        }
        for open in pending {
            group.cut(open, writer);
        }
        group
    }

    fn cut(&mut self, pending: Pending, writer: &Writer) {
        let Pending {
            stream,
            payload,
            count,
            answers,
        } = pending;
        let frame_writer =
            self.own
                .entry(stream.slot)
                .or_insert_with(|| match writer.own.get(&stream.slot) {
                    Some(found) => found.clone(),
                    None => resume(&stream, writer.begins_anew(&stream)),
                });
        match frame_writer.frame(count, &payload) {
            Ok(frame) => {
                let mut seq = frame.first_seq();
                for (done, count) in answers {
                    let at = |seq| Position {
                        epoch: frame.epoch(),
                        seq,
                    };
                    let last = Seq(seq.0 + u64::from(count) - 1);
                    self.answers.push(Answer::Records(
                        done,
                        Appended {
                            first: at(seq),
                            last: at(last),
                        },
                    ));
                    seq = last.next();
                }
                self.frames.push(Built {
                    stream,
                    frame,
                    done: None,
                });
            }
            Err(err) => {
                for (done, _) in answers {
                    let _ = done.send(Err(err.clone().into()));
                }
            }
        }
    }

    /// Everything is durable.
    pub(crate) fn done(mut self) {
        // A receiver that is gone no longer wants to know.
        for built in &mut self.frames {
            if let Some(done) = built.done.take() {
                drop(done.send(Ok(built.frame.mark())));
            }
        }
        for answer in self.answers {
            match answer {
                Answer::Records(done, appended) => drop(done.send(Ok(appended))),
                Answer::Held(done, mark, _) => drop(done.send(Ok(mark))),
                Answer::Snapshot(done, _) => drop(done.send(Ok(()))),
            }
        }
    }

    /// Nothing is acknowledged.
    pub(crate) fn failed(self, err: &AppendError) {
        for built in self.frames {
            if let Some(done) = built.done {
                give_back(&built.stream);
                drop(done.send(Err(err.clone())));
            }
        }
        for answer in self.answers {
            match answer {
                Answer::Records(done, _) => drop(done.send(Err(err.clone()))),
                Answer::Held(done, _, stream) => {
                    give_back(&stream);
                    drop(done.send(Err(err.clone())));
                }
                Answer::Snapshot(done, stream) => {
                    give_back(&stream);
                    drop(done.send(Err(err.clone())));
                }
            }
        }
    }
}

/// Answers requests that will not be committed.
pub(crate) fn refuse(requests: Vec<Request>, err: &AppendError) {
    for Request { stream, work, .. } in requests {
        if !matches!(work, Work::Records { .. }) {
            give_back(&stream);
        }
        work.refuse(err);
    }
}

/// I1, checked where nothing can come between: a frame follows what is durable or before it in the group. One
/// accepted on top of a frame that was refused meanwhile does not.
fn stage(stream: &Stream, frame: &Frame) -> Result<(), AppendError> {
    let mut state = stream.state();
    if frame.first_seq() != state.staged.seq.next() {
        return Err(AppendError::Gap {
            stream: stream.key.clone(),
            have: state.staged,
            got: Position {
                epoch: frame.epoch(),
                seq: frame.first_seq(),
            },
        });
    }
    state.staged = frame.mark().position;
    Ok(())
}

/// Frames after what is durable were not committed: the next one offered has to follow what is.
fn give_back(stream: &Stream) {
    let mut state = stream.state();
    state.accepted = state.durable;
    state.staged = state.durable.position;
}

fn fits(open: &Pending, payload: &[u8], count: u32) -> bool {
    open.payload.len() + payload.len() <= limits::FRAME_TARGET_BYTES
        && open.count + count <= limits::FRAME_MAX_RECORDS
}

fn resume(stream: &Stream, new_epoch: bool) -> FrameWriter {
    let mut mark = stream.state().durable;
    if new_epoch {
        // Of a stream that has nothing, the first epoch may have been lost.
        mark.position.epoch = Epoch(mark.position.epoch.0.max(1).saturating_add(1));
    } else if mark.position == Position::ZERO {
        return FrameWriter::new(stream.key.clone());
    }
    FrameWriter::resume(stream.key.clone(), mark)
}
