//! Requests that nodes want carried out: each once, in the node's own name, in the order in which the node made them. What
//! the API server said goes down as the result.
//!
//! A request that cloudcore may have sent before, because it stopped before the result was in the log, is looked into
//! first (`again`): what was done is not done again, and where nobody can tell, the result says so.

mod again;
mod request;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
use ledge_projection::{Changes, ReadError, View};
use ledge_proto::fold::{FoldError, Table, view};
use ledge_proto::ids::{Scope, Seq};
use ledge_proto::limits;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::request::{Answer, status};
use crate::told::{TellError, Told, record};
use crate::{Controllers, as_node};

/// A request whose answer did not come is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A request that the API server puts off for so long is given up: what the node wants after it waits for it.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(600);
/// What a record has besides the answer.
const RECORD_EXTRA: usize = 4096;

/// Carries out what nodes want until `shutdown`.
pub(crate) async fn run(controllers: Controllers, shutdown: CancellationToken) {
    let told = &controllers.told;
    let mut feed = told.projection.changes(&[Table::KubeWrites]);
    let mut nodes = Nodes {
        controllers: controllers.clone(),
        under_way: BTreeMap::new(),
        working: JoinSet::new(),
        tasks: HashMap::new(),
    };
    match waiting(told) {
        Ok(waiting) => waiting
            .into_iter()
            .for_each(|(scope, suspects)| nodes.work_for(scope, suspects)),
        Err(err) => tracing::error!(%err, "what nodes want written cannot be read"),
    }
    loop {
        tokio::select! {
            changes = feed.next() => {
                let scopes = match changes {
                    Changes::Entries(entries) => Ok(entries.into_iter().map(|entry| entry.scope).collect()),
                    Changes::All => waiting(told).map(|waiting| waiting.into_keys().collect()),
                };
                match scopes {
                    Ok(scopes) => nodes.look_at(scopes),
                    Err(err) => tracing::error!(%err, "what nodes want written cannot be read"),
                }
            }
            Some(ended) = nodes.working.join_next_with_id() => nodes.ended(ended),
            () = shutdown.cancelled() => return,
        }
    }
}

/// Nodes that wait for something, and the writes they want. When cloudcore starts, any of these may have been sent before.
fn waiting(told: &Told) -> Result<BTreeMap<Scope, BTreeSet<String>>, ReadError> {
    let view = told.view();
    let mut waiting = BTreeMap::new();
    for scope in view::scopes(&view).map_err(FoldError::Store)? {
        let ids = wanted_by(&view, &scope)?;
        let results = view::entries::<_, v1::KubeWriteResult>(&view, &scope, Table::KubeWriteResults)?;
        if !(ids.is_empty() && results.is_empty()) {
            waiting.insert(scope, ids);
        }
    }
    Ok(waiting)
}

/// Writes that the node wants.
fn wanted_by(view: &View, scope: &Scope) -> Result<BTreeSet<String>, ReadError> {
    let writes = view::entries::<_, v1::KubeWrite>(view, scope, Table::KubeWrites)?;
    Ok(writes.into_iter().map(|(id, _)| id).collect())
}

/// One task for each node that wants something.
struct Nodes {
    controllers: Controllers,
    /// Nodes being worked for, and whether more came meanwhile.
    under_way: BTreeMap<Scope, bool>,
    working: JoinSet<Node>,
    /// Whose task is whose.
    tasks: HashMap<Id, Scope>,
}

impl Nodes {
    fn look_at(&mut self, scopes: BTreeSet<Scope>) {
        for scope in scopes {
            if let Some(more) = self.under_way.get_mut(&scope) {
                *more = true;
                continue;
            }
            self.work_for(scope, BTreeSet::new());
        }
    }

    fn work_for(&mut self, scope: Scope, suspects: BTreeSet<String>) {
        self.start(Node::new(&self.controllers, scope, suspects));
    }

    fn start(&mut self, node: Node) {
        let scope = node.scope.clone();
        self.under_way.insert(scope.clone(), false);
        let task = self.working.spawn(node.work());
        self.tasks.insert(task.id(), scope);
    }

    fn ended(&mut self, ended: Result<(Id, Node), JoinError>) {
        match ended {
            Ok((id, node)) => {
                self.tasks.remove(&id);
                if self.under_way.remove(&node.scope) == Some(true) {
                    self.start(node);
                }
            }
            Err(err) => {
                let Some(scope) = self.tasks.remove(&err.id()) else {
                    return;
                };
                tracing::error!(node = %scope, %err, "carrying out what the node wants failed; beginning again");
                // Nobody knows any more which of them were sent.
                let suspects = wanted_by(&self.controllers.told.view(), &scope).unwrap_or_default();
                let mut node = Node::new(&self.controllers, scope, suspects);
                node.pause = Some(AGAIN_AFTER);
                self.start(node);
            }
        }
    }
}

/// What one node wants.
struct Node {
    scope: Scope,
    told: Told,
    client: Client,
    /// Writes that may have been sent before.
    suspects: BTreeSet<String>,
    /// The write that the API server puts off, and since when it does.
    put_off: Option<(String, Instant)>,
    /// Before the first round.
    pause: Option<Duration>,
}

impl Node {
    fn new(controllers: &Controllers, scope: Scope, suspects: BTreeSet<String>) -> Node {
        Node {
            suspects,
            client: as_node::client(controllers.client.clone(), &scope),
            told: controllers.told.clone(),
            scope,
            put_off: None,
            pause: None,
        }
    }

    /// Carries out everything that waits.
    async fn work(mut self) -> Node {
        if let Some(pause) = self.pause.take() {
            sleep(pause).await;
        }
        while let Err(err) = self.round().await {
            tracing::warn!(node = %self.scope, %err, "what the node wants written waits; trying again");
            sleep(AGAIN_AFTER).await;
        }
        self
    }

    async fn round(&mut self) -> Result<(), RoundError> {
        let view = self.told.view();
        let wanted = view::entries::<_, v1::KubeWrite>(&view, &self.scope, Table::KubeWrites)?;
        let results = view::entries::<_, v1::KubeWriteResult>(&view, &self.scope, Table::KubeWriteResults)?;
        let mut done: BTreeSet<String> = results.into_iter().map(|(id, _)| id).collect();
        let mut waiting: Vec<(Seq, String, v1::KubeWrite)> = Vec::new();
        for (id, write) in wanted {
            if !done.remove(&id) {
                waiting.push((write.position.seq, id, write.content));
            }
        }
        // What is left has a result that the node took.
        let taken: Vec<v1::Record> = done
            .into_iter()
            .map(|id| record(id, &Payload::KubeWriteResultRemoved))
            .collect();
        if !taken.is_empty() {
            self.told.tell(self.scope.clone(), taken).await?;
        }
        waiting.sort_by_key(|(seq, ..)| *seq);
        for (_, id, write) in waiting {
            let suspect = !self.suspects.insert(id.clone());
            let carried_out = AssertUnwindSafe(self.carry_out(&id, &write, suspect))
                .catch_unwind()
                .await;
            let answer = match carried_out {
                Ok(Ok(answer)) => answer,
                Ok(Err(err)) => self.not_now(&id, err)?,
                Err(_) => status(
                    500,
                    "InternalError",
                    "cloudcore failed while it carried this out, and says why in its log: read the object, and write again if it lacks what was wanted",
                ),
            };
            tracing::info!(node = %self.scope, write = id, method = write.method, path = write.path, code = answer.code, "carried out what the node wants");
            let result = Payload::KubeWriteResult(v1::KubeWriteResult {
                code: u32::from(answer.code),
                json: bounded(answer).into(),
            });
            self.told
                .tell(self.scope.clone(), vec![record(id.clone(), &result)])
                .await?;
            self.suspects.remove(&id);
        }
        Ok(())
    }

    /// There is no answer: it is to be tried again, unless the API server puts it off too long. While that cannot be
    /// reached, nothing else could be carried out either: that is waited for.
    fn not_now(&mut self, id: &str, err: kube::Error) -> Result<Answer, kube::Error> {
        let kube::Error::Api(last) = &err else {
            self.put_off = None;
            return Err(err);
        };
        let before = self.put_off.take().filter(|(of, _)| of == id);
        let since = before.map_or_else(Instant::now, |(_, since)| since);
        if since.elapsed() < GIVEN_UP_AFTER {
            self.put_off = Some((id.to_owned(), since));
            return Err(err);
        }
        let message = format!(
            "the API server put this off for {} minutes, with {} at the end: {}. It may have been carried out all the same: read the object, and write again if it lacks what was wanted",
            since.elapsed().as_secs() / 60,
            last.code,
            last.message,
        );
        Ok(status(504, "Timeout", &message))
    }

    async fn carry_out(&self, id: &str, write: &v1::KubeWrite, suspect: bool) -> Result<Answer, kube::Error> {
        let request = match request::Request::new(id, write) {
            Ok(request) => request,
            Err(why) => return Ok(status(400, "BadRequest", &why)),
        };
        if !suspect {
            return request.send(&self.client).await;
        }
        match again::done_before(&self.client, &request, write).await? {
            again::Before::Done(answer) => Ok(answer),
            again::Before::Unknown => Ok(status(
                504,
                "Timeout",
                "cloudcore stopped while it may have carried this out, and the object has changed since: read it, and write again if it lacks what was wanted",
            )),
            again::Before::NotDone => request.send(&self.client).await,
        }
    }
}

/// The answer's body, or one that says that it is too large for a record.
fn bounded(answer: Answer) -> Vec<u8> {
    if answer.json.len() + RECORD_EXTRA <= limits::RECORD_MAX_BYTES {
        return answer.json;
    }
    let told = status(
        answer.code,
        "",
        "carried out; the answer is too large to be sent to the node",
    );
    told.json
}

#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
enum RoundError {
    #[error("projection: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Tell(#[from] TellError),
    #[error("Kubernetes API: {0}")]
    Api(#[from] kube::Error),
}
