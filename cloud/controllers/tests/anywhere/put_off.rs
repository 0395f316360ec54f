//! What nodes want written, of an API server that does not take it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use kube::client::Body;
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};
use tokio::time::{Instant, advance};

use crate::clock::{Held, hold_the_clock, soon};
use crate::overlay;
use crate::place::Anywhere;

/// Of an API that `answer` speaks for.
const DEAD: &str = "/apis/dead.example.org/v1/things/a";

struct Writing {
    place: Anywhere,
    asked: Arc<AtomicUsize>,
    _held: Held,
}

impl Writing {
    /// Requests to [`DEAD`] and to pods get `answer`, which is told how often it was asked before.
    async fn start(
        answer: impl Fn(usize) -> Result<Option<Response<Body>>, kube::Error> + Send + Sync + 'static,
    ) -> Writing {
        rustls::crypto::ring::default_provider().install_default().ok();
        let held = hold_the_clock();
        let mut place = Anywhere::new(ledge_cloud_testing::embedded(&[]).await);
        let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]);
        let role = json!({"metadata": {"name": "nodes-write"}, "rules": rules});
        place
            .make("/rbac.authorization.k8s.io/v1/ClusterRole/clusterroles", role)
            .await;
        let binding = json!({
            "metadata": {"name": "nodes-write"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "nodes-write"},
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}],
        });
        place
            .make(
                "/rbac.authorization.k8s.io/v1/ClusterRoleBinding/clusterrolebindings",
                binding,
            )
            .await;
        let asked = Arc::new(AtomicUsize::new(0));
        let (counted, answer) = (asked.clone(), Arc::new(answer));
        let client = overlay::over(place.cluster.client("system:cloudcore"), move |request| {
            let path = request.uri().path();
            let ours = path == DEAD || path.ends_with("/eviction");
            let (counted, answer) = (counted.clone(), answer.clone());
            Box::pin(async move {
                if !ours {
                    return Ok(None);
                }
                answer(counted.fetch_add(1, Ordering::SeqCst))
            })
        });
        place.run_through(client);
        Writing {
            place,
            asked,
            _held: held,
        }
    }

    async fn wants(&self, id: &str, method: &str, path: &str, body: &Value) {
        let write = Payload::KubeWrite(v1::KubeWrite {
            method: method.to_owned(),
            path: path.to_owned(),
            content_type: if method == "PATCH" {
                "application/merge-patch+json"
            } else {
                "application/json"
            }
            .to_owned(),
            body: body.to_string().into_bytes().into(),
            ..Default::default()
        });
        self.place.says(Lane::UpState, id, &write).await;
    }

    /// Wants a config map after what it wanted before.
    async fn wants_another(&self) {
        let maps = format!("/api/v1/namespaces/{}/configmaps", self.place.cluster.namespace());
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
        self.wants("w-2", "POST", &maps, &map).await;
    }

    fn result_now(&self, id: &str) -> Option<(u32, Value)> {
        let result: v1::KubeWriteResult = self.place.entry(Table::KubeWriteResults, id)?;
        Some((result.code, serde_json::from_slice(&result.json).unwrap()))
    }

    async fn result(&self, id: &str) -> (u32, Value) {
        soon(&format!("a result of {id}"), async || self.result_now(id)).await
    }

    /// Lets `time` pass, a minute after each time that the API server is asked; less when there is a result.
    async fn lets_pass(&self, id: &str, time: Duration) {
        let began = Instant::now();
        while self.result_now(id).is_none() && began.elapsed() < time {
            let before = self.asked.load(Ordering::SeqCst);
            advance(Duration::from_secs(60)).await;
            soon("it is tried again", async || {
                let tried = self.asked.load(Ordering::SeqCst) > before;
                (tried || self.result_now(id).is_some()).then_some(())
            })
            .await;
        }
    }

    async fn was_asked(&self) {
        soon("the API server is asked", async || {
            (self.asked.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
    }
}

fn unavailable() -> Response<Body> {
    overlay::json(
        503,
        &json!({"kind": "Status", "message": "no endpoints available", "code": 503}),
    )
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_put_off_is_given_up_in_the_end_and_others_have_their_turn() {
    let node = Writing::start(|_| Ok(Some(unavailable()))).await;
    let began = Instant::now();
    node.wants("w-1", "PATCH", DEAD, &json!({})).await;
    node.was_asked().await;
    node.wants_another().await;
    node.lets_pass("w-1", Duration::from_secs(540)).await;
    assert_eq!(node.result_now("w-1"), None);
    assert_eq!(node.result_now("w-2"), None);
    node.lets_pass("w-1", Duration::from_secs(180)).await;
    let (code, status) = node.result("w-1").await;
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")));
    let message = status["message"].as_str().unwrap();
    for part in ["for 10 minutes", "503", "no endpoints available"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(
        began.elapsed() >= Duration::from_secs(600),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(node.result("w-2").await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn while_there_is_no_api_server_everything_waits() {
    const TRIES: usize = 60;
    let node = Writing::start(|asked| match asked {
        ..TRIES => Err(kube::Error::Service("connection refused".into())),
        _ => Ok(Some(overlay::json(200, &json!({"kind": "Thing"})))),
    })
    .await;
    node.wants("w-1", "PUT", DEAD, &json!({})).await;
    node.was_asked().await;
    node.lets_pass("w-1", Duration::from_secs(3 * 3600)).await;
    assert_eq!(node.result("w-1").await.0, 200);
    assert!(node.asked.load(Ordering::SeqCst) >= TRIES);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_a_budget_is_against_is_answered() {
    let refusal = json!({
        "kind": "Status", "status": "Failure", "reason": "TooManyRequests", "code": 429,
        "message": "Cannot evict pod as it would violate the pod's disruption budget.",
        "details": {"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget a needs 1 healthy pods and has 1 currently"}]},
    });
    let node = Writing::start(move |_| Ok(Some(overlay::json(429, &refusal)))).await;
    let path = format!(
        "/api/v1/namespaces/{}/pods/till/eviction",
        node.place.cluster.namespace()
    );
    node.wants(
        "w-1",
        "POST",
        &path,
        &json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "till"}}),
    )
    .await;
    let (code, status) = node.result("w-1").await;
    assert_eq!((code, &status["reason"]), (429, &json!("TooManyRequests")));
}

#[tokio::test(start_paused = true)]
async fn a_write_at_which_cloudcore_fails_has_a_result_and_others_have_their_turn() {
    let node = Writing::start(|_| panic!("as this test wants it")).await;
    node.wants("w-1", "PATCH", DEAD, &json!({})).await;
    node.wants_another().await;
    let (code, status) = node.result("w-1").await;
    assert_eq!((code, &status["reason"]), (500, &json!("InternalError")));
    assert_eq!(node.result("w-2").await.0, 201);
}
