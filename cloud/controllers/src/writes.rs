//! Requests that nodes want carried out: each once, in the node's own name, in the order in which the node made them. What
//! the API server said goes down as the result.
//!
//! A request that cloudcore may have sent before, because it stopped before the result was in the log, is looked into
//! first (`again`): what was done is not done again, and where nobody can tell, the result says so.

mod again;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Client;
use ledge_projection::{Changes, ReadError};
use ledge_proto::fold::{FoldError, Table, view};
use ledge_proto::ids::{Scope, Seq};
use ledge_proto::limits;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::request::{Answer, status};
use crate::told::{TellError, Told, record};
use crate::{Controllers, as_node};

/// A request whose answer did not come is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
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
            Some(ended) = nodes.working.join_next() => nodes.ended(ended.ok()),
            () = shutdown.cancelled() => return,
        }
    }
}

/// Nodes that wait for something, and the writes they want. When cloudcore starts, any of these may have been sent before.
fn waiting(told: &Told) -> Result<BTreeMap<Scope, BTreeSet<String>>, ReadError> {
    let view = told.view();
    let mut waiting = BTreeMap::new();
    for scope in view::scopes(&view).map_err(FoldError::Store)? {
        let writes = view::entries::<_, v1::KubeWrite>(&view, &scope, Table::KubeWrites)?;
        let ids: BTreeSet<String> = writes.into_iter().map(|(id, _)| id).collect();
        let results = view::entries::<_, v1::KubeWriteResult>(&view, &scope, Table::KubeWriteResults)?;
        if !(ids.is_empty() && results.is_empty()) {
            waiting.insert(scope, ids);
        }
    }
    Ok(waiting)
}

/// One task for each node that wants something.
struct Nodes {
    controllers: Controllers,
    /// Nodes being worked for, and whether more came meanwhile.
    under_way: BTreeMap<Scope, bool>,
    working: JoinSet<Node>,
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
        self.under_way.insert(node.scope.clone(), false);
        self.working.spawn(node.work());
    }

    fn ended(&mut self, node: Option<Node>) {
        let Some(node) = node else { return };
        if self.under_way.remove(&node.scope) == Some(true) {
            self.start(node);
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
}

impl Node {
    fn new(controllers: &Controllers, scope: Scope, suspects: BTreeSet<String>) -> Node {
        Node {
            suspects,
            client: as_node::client(controllers.client.clone(), &scope),
            told: controllers.told.clone(),
            scope,
        }
    }

    /// Carries out everything that waits.
    async fn work(mut self) -> Node {
        while let Err(err) = self.round().await {
            tracing::warn!(node = %self.scope, %err, "what the node wants written waits; trying again");
            tokio::time::sleep(AGAIN_AFTER).await;
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
            let answer = self.carry_out(&id, &write, suspect).await?;
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
