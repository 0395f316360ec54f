//! A log of cloudcore's in a temporary directory, with the embedded API on it if asked for.

use std::path::Path;
use std::sync::Arc;

use kube::Client;
use ledge_apiserver::embedded::{Config, Embedded, Limits};
use ledge_apiserver::local::Local;
use ledge_kubeapi::serve::Api;
use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{Follower, Projection};
use ledge_proto::ids::ClusterId;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Whose log it is.
const CLUSTER: ClusterId = ClusterId([7; 16]);

/// The log and what stands on it. Dropped, everything stops and the directory goes.
pub struct Place {
    api: Option<Api>,
    _serving: Option<DropGuard>,
    follower: Option<Follower>,
    projection: Projection,
    log: Log,
    dir: TempDir,
}

impl Place {
    /// A log with nothing in it.
    pub fn without_api() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(CLUSTER, "cloud".to_owned());
        let (log, _) = Log::open(Arc::new(DiskStorage), &dir.path().join("log"), options).unwrap();
        let cloud = ledge_projection::Options::cloud();
        let (projection, _) = Projection::open(&dir.path().join("projection"), &log, &cloud).unwrap();
        let follower = Follower::start(log.clone(), projection.clone());
        Place {
            api: None,
            _serving: None,
            follower: Some(follower),
            projection,
            log,
            dir,
        }
    }

    /// A log with the embedded API on it, which serves `definitions` and listens on loopback.
    pub async fn with_api(definitions: &[Value]) -> Place {
        let mut place = Place::without_api();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            names: Vec::new(),
            data_dir: place.dir.path().to_owned(),
            limits: Limits::default(),
        };
        let embedded = Embedded::open(config, place.log.clone(), &place.projection, definitions)
            .await
            .unwrap();
        place.api = Some(embedded.api().clone());
        let shutdown = CancellationToken::new();
        place._serving = Some(shutdown.clone().drop_guard());
        // It ends with `shutdown`, or with the runtime of the test.
        drop(tokio::spawn(embedded.run(shutdown)));
        place
    }

    /// A client of the embedded API that may do everything.
    ///
    /// # Panics
    /// When there is no embedded API here.
    pub fn client(&self, component: &str, namespace: &str) -> Client {
        let api = self.api.clone().expect("a place with the embedded API");
        Client::new(Local::privileged(api, component), namespace)
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its projection, which follows.
    pub fn projection(&self) -> &Projection {
        &self.projection
    }

    /// Where all of it is; there is room for files of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.take() {
            let stopped = follower.stop();
            // A panic in a drop while a test fails would hide why it fails.
            if !std::thread::panicking() {
                stopped.expect("the projection followed the log");
            }
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}
