//! Requests that change something: a record in the node's log, durable before anything else. The cloud carries it out once,
//! and what the API server said is the answer.
//!
//! When there is no link, or no answer in time, the client is told which record it is: it is carried out when the link is
//! back, and `writes.edge.ledge` shows what became of it. Reads show what the API server accepted, never what waits. The
//! same request again while it waits is the same write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledge_kubeapi::error::{Cause, Details, Reason};
use ledge_kubeapi::path::ResourcePath;
use ledge_kubeapi::serve::options::Options;
use ledge_kubeapi::serve::request::{Method, Request};
use ledge_kubeapi::serve::respond::{Body, Response};
use ledge_kubeapi::{ApiError, ObjectKey};
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ledger::{self, Ledger};
use crate::mirror::{Mirror, record_key};
use crate::outbox::Outbox;

/// Writes that wait at once.
pub const PENDING_MAX: usize = 1000;
/// What their bodies may come to, bytes.
pub const PENDING_MAX_BYTES: usize = 16 << 20;
/// Largest body of one, as the API server's limit for an object.
pub const WRITE_MAX_BYTES: usize = 1_572_864;
/// The cloud has this long for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long what became of a write is shown to whoever did not wait for it.
const RESULT_KEPT: Duration = Duration::from_secs(3600);
/// How many of those are shown.
const RESULTS_KEPT: usize = 256;

/// See the module.
pub(crate) struct Writes {
    mirror: Mirror,
    outbox: Arc<dyn Outbox>,
    link: watch::Receiver<bool>,
    /// How many clients wait for each.
    waiting: Arc<Mutex<BTreeMap<String, usize>>>,
    /// One is put into the log after the other, so that none is there twice.
    placing: tokio::sync::Mutex<()>,
}

/// A client that waits for a write.
struct Waiting {
    all: Arc<Mutex<BTreeMap<String, usize>>>,
    id: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiting {
    fn new(all: &Arc<Mutex<BTreeMap<String, usize>>>, id: &str) -> Waiting {
        *lock(all).entry(id.to_owned()).or_default() += 1;
        Waiting {
            all: Arc::clone(all),
            id: id.to_owned(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        if let Some(count) = all.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.id);
            }
        }
    }
}

/// What came of waiting.
enum Outcome {
    Result(v1::KubeWriteResult),
    NoLink,
    Late,
}

impl Writes {
    pub(crate) fn new(mirror: Mirror, outbox: Arc<dyn Outbox>, link: watch::Receiver<bool>) -> Writes {
        Writes {
            mirror,
            outbox,
            link,
            waiting: Arc::default(),
            placing: tokio::sync::Mutex::default(),
        }
    }

    /// Carries a request to the API server, through the log.
    pub(crate) async fn carry(self: &Arc<Self>, request: &Request, path: &ResourcePath) -> Response {
        self.try_carry(request, path)
            .await
            .unwrap_or_else(|error| Response::error(&error))
    }

    async fn try_carry(
        self: &Arc<Self>,
        request: &Request,
        path: &ResourcePath,
    ) -> Result<Response, ApiError> {
        let options = Options::parse(&request.query)?;
        let write = self.write_of(request, path)?;
        // Nobody wants to hear later what would have happened.
        let question = options.dry_run
            || matches!(
                path.gvr.group.as_str(),
                "authorization.k8s.io" | "authentication.k8s.io"
            );
        if question && !*self.link.borrow() {
            return Err(ApiError::new(
                Reason::ServiceUnavailable,
                "only the API server can answer this, and there is no link to the cloud; nothing was stored",
            ));
        }
        let this = Arc::clone(self);
        // A client that goes away takes nothing back.
        let placed = tokio::spawn(async move { this.place(write).await });
        let (id, waiting) = placed.await.map_err(ApiError::internal)??;
        match self.wait(&id).await {
            Outcome::Result(result) => {
                drop(waiting);
                self.take_back(&id);
                Ok(answer(&result))
            }
            Outcome::NoLink => Err(in_log(
                Reason::ServiceUnavailable,
                &id,
                "there is no link to the cloud; it is carried out when the link is back",
            )),
            Outcome::Late => Err(in_log(
                Reason::Timeout,
                &id,
                "the cloud did not answer within 10 s; it is carried out as soon as the cloud can",
            )),
        }
    }

    fn write_of(&self, request: &Request, path: &ResourcePath) -> Result<v1::KubeWrite, ApiError> {
        if request.body.len() > WRITE_MAX_BYTES {
            return Err(ApiError::new(
                Reason::RequestEntityTooLarge,
                format!(
                    "Request entity too large: limit is {WRITE_MAX_BYTES} bytes, the body has {}",
                    request.body.len()
                ),
            ));
        }
        let method = match request.method {
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Get | Method::Head => {
                return Err(ApiError::internal("a request that changes nothing is no write"));
            }
        };
        let named = path.name.clone().or_else(|| {
            let body: Value = serde_json::from_slice(&request.body).ok()?;
            body["metadata"]["name"].as_str().map(str::to_owned)
        });
        let key = ObjectKey {
            resource: ledge_kubeapi::resource::GroupResource {
                group: path.gvr.group.clone(),
                resource: path.gvr.resource.clone(),
            },
            namespace: path.namespace.clone().unwrap_or_default(),
            name: named.unwrap_or_default(),
        };
        let seen = self.mirror.object(&key);
        let based_on = seen.and_then(|object| object.foreign_version().map(str::to_owned));
        Ok(v1::KubeWrite {
            method: method.to_owned(),
            path: request.path.clone(),
            query: request.query.clone(),
            content_type: request.header("content-type").to_owned(),
            body: request.body.clone(),
            user: String::new(),
            based_on: based_on.unwrap_or_default(),
            object: record_key(&key),
        })
    }

    /// Puts a write into the log, durably, unless the same one waits there already.
    async fn place(&self, write: v1::KubeWrite) -> Result<(String, Waiting), ApiError> {
        let content = ledger::content(&write);
        // Each of these makes an object of its own.
        let repeatable = !generates_name(&write);
        let _one = self.placing.lock().await;
        let (same, count, bytes) = self.mirror.ledger(|ledger| {
            let waits = || pending(ledger);
            let same = waits().find(|(_, standing)| repeatable && standing.content == content);
            let bytes: usize = waits().map(|(_, standing)| standing.bytes).sum();
            (same.map(|(id, _)| id.clone()), waits().count(), bytes)
        });
        if let Some(id) = same {
            let waiting = Waiting::new(&self.waiting, &id);
            return Ok((id, waiting));
        }
        if count >= PENDING_MAX || bytes + write.body.len() > PENDING_MAX_BYTES {
            return Err(ApiError::new(
                Reason::TooManyRequests,
                format!(
                    "{count} writes with {bytes} bytes wait in this node's log for the cloud, it takes no more (at most {PENDING_MAX} with {PENDING_MAX_BYTES} bytes); nothing was stored"
                ),
            ));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let waiting = Waiting::new(&self.waiting, &id);
        let mut taken = self.mirror.subscribe();
        let record = (id.clone(), Payload::KubeWrite(write));
        self.outbox.append(Lane::UpState, vec![record]).await?;
        // Whoever comes next finds it waiting.
        let folded = async {
            while !self.mirror.ledger(|ledger| ledger.writes.contains_key(&id)) {
                if taken.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, folded).await.ok();
        Ok((id, waiting))
    }

    async fn wait(&self, id: &str) -> Outcome {
        let mut taken = self.mirror.subscribe();
        let mut link = self.link.clone();
        let answered = async {
            loop {
                taken.borrow_and_update();
                if let Some(result) = self.mirror.ledger(|ledger| ledger.results.get(id).cloned()) {
                    return Outcome::Result(result);
                }
                if !*link.borrow_and_update() {
                    return Outcome::NoLink;
                }
                tokio::select! {
                    changed = taken.changed() => if changed.is_err() { return Outcome::NoLink },
                    changed = link.changed() => if changed.is_err() { return Outcome::NoLink },
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN, answered)
            .await
            .unwrap_or(Outcome::Late)
    }

    /// The result was given to its client: nobody else has to see it.
    fn take_back(self: &Arc<Self>, id: &str) {
        if lock(&self.waiting).contains_key(id) {
            return; // The last one does.
        }
        let (this, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            if let Err(error) = this.remove(BTreeSet::from([id])).await {
                // It is shown for a time, as if nobody had waited.
                tracing::warn!(%error, "a write that is done cannot be taken back yet");
            }
        });
    }

    async fn remove(&self, ids: BTreeSet<String>) -> Result<(), crate::OutboxError> {
        let records = ids.into_iter().map(|id| (id, Payload::KubeWriteRemoved));
        self.outbox.append(Lane::UpState, records.collect()).await
    }

    /// Takes results that nobody waited for back after a time. Never ends.
    pub(crate) async fn take_results(&self) {
        let mut taken = self.mirror.subscribe();
        let mut kept: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            taken.borrow_and_update();
            let now = Instant::now();
            self.mirror.ledger(|ledger| {
                kept.retain(|id, _| ledger.writes.contains_key(id));
                for id in ledger.writes.keys().filter(|id| ledger.results.contains_key(*id)) {
                    kept.entry(id.clone()).or_insert(now);
                }
            });
            let mut by_age: Vec<(Instant, String)> =
                kept.iter().map(|(id, since)| (*since, id.clone())).collect();
            by_age.sort();
            let too_many = by_age.len().saturating_sub(RESULTS_KEPT);
            let waited_for = lock(&self.waiting).clone();
            let over: BTreeSet<String> = by_age
                .iter()
                .enumerate()
                .filter(|(n, (since, id))| {
                    (*n < too_many || *since + RESULT_KEPT <= now) && !waited_for.contains_key(id)
                })
                .map(|(_, (_, id))| id.clone())
                .collect();
            let next = by_age.iter().map(|(since, _)| *since + RESULT_KEPT);
            let next = next.filter(|until| *until > now).min();
            let mut pause = None;
            if !over.is_empty() {
                match self.remove(over.clone()).await {
                    Ok(()) => kept.retain(|id, _| !over.contains(id)),
                    Err(error) => {
                        tracing::warn!(%error, "results of writes cannot be taken back yet");
                        pause = Some(now + ANSWER_WITHIN);
                    }
                }
            }
            let until = pause.or(next).unwrap_or(now + RESULT_KEPT);
            tokio::select! {
                changed = taken.changed(), if pause.is_none() => if changed.is_err() {
                    return std::future::pending().await;
                },
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}

/// Writes that have no result yet.
fn pending(ledger: &Ledger) -> impl Iterator<Item = (&String, &ledger::Standing)> {
    let waits = |id: &String| !ledger.results.contains_key(id);
    ledger.writes.iter().filter(move |(id, _)| waits(id))
}

fn generates_name(write: &v1::KubeWrite) -> bool {
    if write.method != "POST" {
        return false;
    }
    let body: Value = serde_json::from_slice(&write.body).unwrap_or_default();
    body["metadata"]["name"].as_str().is_none_or(str::is_empty)
}

/// What the API server gave.
fn answer(result: &v1::KubeWriteResult) -> Response {
    let code = u16::try_from(result.code)
        .ok()
        .filter(|code| (200..600).contains(code));
    Response {
        status: code.unwrap_or(500),
        headers: vec![("content-type", "application/json".to_owned())],
        body: Body::Whole(result.json.clone()),
    }
}

/// The write stands in the log, and nobody knows yet what comes of it. No `Retry-After`: clients would send it again by
/// themselves, and whoever does so on purpose gets the same write.
fn in_log(reason: Reason, id: &str, why: &str) -> ApiError {
    ApiError {
        details: Some(Box::new(Details {
            name: id.to_owned(),
            group: crate::OWN_GROUP.to_owned(),
            kind: crate::WRITES.to_owned(),
            causes: vec![Cause {
                reason: "InLog",
                message: id.to_owned(),
                field: String::new(),
            }],
            ..Details::default()
        })),
        ..ApiError::new(
            reason,
            format!(
                "the write is in this node's log, not carried out yet: {why}; see writes.{} \"{id}\"",
                crate::OWN_GROUP
            ),
        )
    }
}
