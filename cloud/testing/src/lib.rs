//! Kubernetes APIs for the tests of controllers, so that each test runs against all there are: the embedded API, and a
//! real kube-apiserver with its etcd where `LEDGE_KUBE_APISERVER` and `LEDGE_ETCD` name the programs (`.ci/run` builds
//! them); beside that, a real kube-controller-manager where `LEDGE_KUBE_CONTROLLER_MANAGER` names it. Without them a line
//! says what was skipped; where `CI` or `LEDGE_REQUIRE_KUBERNETES` is set the test fails.
//!
//! ```no_run
//! # async fn test() {
//! for cluster in ledge_cloud_testing::clusters(&[]).await {
//!     println!("against {}", cluster.name());
//!     let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client("system:controller"));
//!     // …
//! }
//! # }
//! ```
//!
//! For tests and benchmarks only: no daemon has it. What goes wrong here is a failed test, so it panics.
//!
//! Reading order: this, [`place`], [`mod@real`], `manager`, `programs`.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "for tests only: a panic is how it fails"
)]

mod manager;
pub mod place;
mod programs;
pub mod real;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use ledge_log::Log;
use ledge_projection::Projection;
use serde_json::Value;

use crate::place::Place;
use crate::real::Real;

/// How long anything may take before a test gives up. No test waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A Kubernetes API with a namespace for one test, and a log of cloudcore's.
///
/// What is not in a namespace is shared with the other tests of the binary where the API is a real one: name such objects
/// with [`Cluster::unique`], and look only at what has your names.
#[derive(Debug)]
pub struct Cluster {
    api: Kind,
    place: Place,
    namespace: String,
}

#[derive(Debug)]
enum Kind {
    Embedded,
    Real(Real),
}

/// Every API there is, with `definitions` (CustomResourceDefinitions) applied and served.
pub async fn clusters(definitions: &[Value]) -> Vec<Cluster> {
    let mut all = vec![embedded(definitions).await];
    all.extend(real(definitions).await);
    all
}

/// The embedded API, on a log of its own: nobody else uses it.
pub async fn embedded(definitions: &[Value]) -> Cluster {
    let place = Place::with_api(definitions).await;
    Cluster::ready(Kind::Embedded, place).await
}

/// The real API server, shared by the tests of this binary; `None`, and a line that says so, where there is none.
pub async fn real(definitions: &[Value]) -> Option<Cluster> {
    let real = Real::shared().await?;
    let cluster = Cluster::ready(Kind::Real(real), Place::without_api()).await;
    for definition in definitions {
        cluster.define(definition).await;
    }
    Some(cluster)
}

impl Cluster {
    async fn ready(api: Kind, place: Place) -> Cluster {
        let namespace = unique("test");
        let cluster = Cluster {
            api,
            place,
            namespace,
        };
        let mut made = Namespace::default();
        made.metadata.name = Some(cluster.namespace.clone());
        let namespaces: Api<Namespace> = Api::all(cluster.client("system:test"));
        namespaces.create(&PostParams::default(), &made).await.unwrap();
        cluster
    }

    /// `embedded` or `kube-apiserver`, for messages.
    pub fn name(&self) -> &'static str {
        match self.api {
            Kind::Embedded => "embedded",
            Kind::Real(_) => "kube-apiserver",
        }
    }

    /// Whether it is a real API server: nothing runs beside it, no scheduler, and no controller manager but by
    /// [`Cluster::controller_manager`].
    pub fn is_real(&self) -> bool {
        matches!(self.api, Kind::Real(_))
    }

    /// A client that may do everything; objects without a namespace go to that of the test.
    ///
    /// The embedded API sees `component` as the user, the real one sees its administrator.
    pub fn client(&self, component: &str) -> Client {
        match &self.api {
            Kind::Embedded => self.place.client(component, &self.namespace),
            Kind::Real(real) => real.client(&self.namespace),
        }
    }

    /// The administrator's kubeconfig, for kubectl. The embedded API listens too.
    pub fn kubeconfig(&self) -> PathBuf {
        match &self.api {
            Kind::Embedded => self.place.dir().join("kubeconfig"),
            Kind::Real(real) => real.kubeconfig().to_owned(),
        }
    }

    /// The namespace of this test.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A name that nobody else has: for what is not in a namespace.
    pub fn unique(&self, prefix: &str) -> String {
        unique(prefix)
    }

    /// cloudcore's log, empty but for what the embedded API writes. It is there beside a real API server too.
    pub fn log(&self) -> &Log {
        self.place.log()
    }

    /// The projection of that log; it follows.
    pub fn projection(&self) -> &Projection {
        self.place.projection()
    }

    /// A directory for the files of the test.
    pub fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Applies `object` as kubectl does with `--server-side`, into the namespace of the test unless it names another or
    /// its kind (of `resource`) has none.
    pub async fn apply(&self, resource: &ApiResource, namespaced: bool, object: Value) -> DynamicObject {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let client = self.client("system:test");
        let api: Api<DynamicObject> = if namespaced {
            let namespace = object.namespace().unwrap_or_else(|| self.namespace.clone());
            Api::namespaced_with(client, &namespace, resource)
        } else {
            Api::all_with(client, resource)
        };
        let params = PatchParams::apply("test").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .unwrap()
    }

    /// Applies a CustomResourceDefinition and waits until its kinds are served.
    async fn define(&self, definition: &Value) {
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let resource = ApiResource::from_gvk(&kind);
        let applied = self.apply(&resource, false, definition.clone()).await;
        let name = applied.name_any();
        let definitions: Api<DynamicObject> = Api::all_with(self.client("system:test"), &resource);
        eventually(&format!("{name} is established"), async || {
            let now = definitions.get(&name).await.unwrap();
            let conditions = now.data["status"]["conditions"].as_array()?.clone();
            conditions
                .iter()
                .find(|condition| condition["type"] == "Established" && condition["status"] == "True")
                .map(|_| ())
        })
        .await;
        // Established is said before every handler serves it.
        let spec = &definition["spec"];
        let (group, plural) = (
            spec["group"].as_str().unwrap(),
            spec["names"]["plural"].as_str().unwrap(),
        );
        for version in spec["versions"].as_array().unwrap() {
            let kind = GroupVersionKind::gvk(
                group,
                version["name"].as_str().unwrap(),
                spec["names"]["kind"].as_str().unwrap(),
            );
            let resource = ApiResource::from_gvk_with_plural(&kind, plural);
            let objects: Api<DynamicObject> = Api::all_with(self.client("system:test"), &resource);
            eventually(&format!("{plural} are served"), async || {
                objects.list(&Default::default()).await.ok().map(|_| ())
            })
            .await;
        }
    }
}

/// Asks again and again until `question` has an answer, and gives it.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// As [`eventually`], for what is true or not.
///
/// # Panics
/// When it is not true within [`PATIENCE`].
pub async fn becomes_true(what: &str, mut question: impl AsyncFnMut() -> bool) {
    eventually(what, async || question().await.then_some(())).await;
}

fn unique(prefix: &str) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &id[..10])
}
