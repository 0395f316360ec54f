//! Following objects of the API, for as long as somebody listens.

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Error};
use tokio::sync::mpsc;

/// What is followed.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    pub(crate) resource: ApiResource,
    /// Empty: all.
    pub(crate) namespace: String,
    pub(crate) config: watcher::Config,
}

impl Followed {
    /// All objects of a kind.
    pub(crate) fn all(group: &str, version: &str, kind: &str, plural: &str) -> Followed {
        Followed {
            resource: resource(group, version, kind, plural),
            namespace: String::new(),
            config: watcher::Config::default(),
        }
    }

    pub(crate) fn api(&self, client: Client) -> Api<DynamicObject> {
        match self.namespace.as_str() {
            "" => Api::all_with(client, &self.resource),
            namespace => Api::namespaced_with(client, namespace, &self.resource),
        }
    }
}

/// The resource, for the client.
pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: match group {
            "" => version.to_owned(),
            _ => format!("{group}/{version}"),
        },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Sends what happens to what is followed, and `Err` with the status while the API refuses it; ends when nobody takes
/// it any more.
pub(crate) async fn follow<T>(
    client: Client,
    followed: Followed,
    events: mpsc::Sender<T>,
    wrap: impl Fn(Result<Event<DynamicObject>, kube::core::Status>) -> T,
) {
    let what = format!("{}/{}", followed.resource.group, followed.resource.plural);
    let mut stream = std::pin::pin!(watcher(followed.api(client), followed.config).default_backoff());
    let mut told = String::new();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => {
                told.clear();
                Ok(event)
            }
            Err(err) => {
                // Tried again by the stream; told once for as long as it goes on.
                if told != err.to_string() {
                    told = err.to_string();
                    tracing::warn!(what, %err, "cannot be followed now; trying again");
                }
                match refused(err) {
                    Some(status) => Err(status),
                    None => continue,
                }
            }
        };
        if events.send(wrap(event)).await.is_err() {
            return;
        }
    }
}

/// The status with which the API refused it; `None` for what may pass by itself.
fn refused(err: watcher::Error) -> Option<kube::core::Status> {
    match err {
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status))
            if (400..500).contains(&status.code) && ![408, 410, 429].contains(&status.code) =>
        {
            Some(*status)
        }
        _ => None,
    }
}
