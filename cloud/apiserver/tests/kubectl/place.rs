//! An API on a log of its own, and the kubectl that is run against it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledge_apiserver::embedded::{Config, EVENT_TTL, Embedded, Limits};
use ledge_log::{DiskStorage, Log, Options};
use ledge_projection::{Follower, Projection};
use ledge_proto::ids::ClusterId;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::programs;

/// An API on a log of its own.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    kubectl: PathBuf,
    /// CustomResourceDefinitions that are there from the start.
    definitions: Vec<Value>,
}

/// What kubectl said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Option<Place> {
        let [kubectl] = programs::or_skip("kubectl against the embedded API", ["LEDGE_KUBECTL"])?;
        Some(Place {
            kubectl,
            ..Place::here()
        })
    }

    /// As [`Place::new`], with the kinds that Ledge adds, as cloudcore has them.
    pub(crate) fn with_ledges_kinds() -> Option<Place> {
        Some(Place {
            definitions: ledge_crds::definitions(),
            ..Place::new()?
        })
    }

    /// For stories without kubectl.
    pub(crate) fn here() -> Place {
        Place {
            dir: tempfile::tempdir().unwrap(),
            kubectl: "kubectl".into(),
            definitions: Vec::new(),
        }
    }

    /// Serves the API while `story` runs.
    pub(crate) async fn serve<F: Future>(&self, story: F) -> F::Output {
        self.serve_with(EVENT_TTL, story).await
    }

    /// As [`Place::serve`], with events kept for `event_ttl`.
    pub(crate) async fn serve_with<F: Future>(&self, event_ttl: Duration, story: F) -> F::Output {
        rustls::crypto::ring::default_provider().install_default().ok();
        let dir = self.dir.path();
        let options = Options::new(ClusterId([7; 16]), "cloud".to_owned());
        let (log, _) = Log::open(Arc::new(DiskStorage), &dir.join("log"), options).unwrap();
        let cloud = ledge_projection::Options::cloud();
        let (projection, _) = Projection::open(&dir.join("projection"), &log, &cloud).unwrap();
        Follower::catch_up(&log, &projection, || false).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            names: Vec::new(),
            data_dir: dir.to_owned(),
            limits: Limits::default(),
        };
        let embedded = Embedded::open(config, log.clone(), &projection, &self.definitions)
            .await
            .unwrap()
            .with_event_ttl(event_ttl);
        let follower = Follower::start(log.clone(), projection);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(embedded.run(shutdown.clone()));
        let told = story.await;
        shutdown.cancel();
        serving.await.unwrap();
        follower.stop().unwrap();
        log.close().unwrap();
        told
    }

    pub(crate) fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.kubectl);
        command
            .args(args)
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            // Its cache of discovery must not outlive the test.
            .env("HOME", self.dir.path())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().await.unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs what has to succeed, and gives what it printed.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args).await;
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}
