//! The embedded API as a part of a daemon: open, then run.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use ledge_kubeapi::objects::Limits;
use ledge_kubeapi::resource::Resource;
use ledge_kubeapi::serve::Api;
use ledge_kubeapi::{Object, Registry, Version, builtin, crd};
use ledge_log::Log;
use ledge_projection::Projection;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::accounts::Accounts;
use crate::admission::Admission;
use crate::bootstrap::{self, BootstrapError};
use crate::environment::SystemEnvironment;
use crate::janitor;
use crate::pki::{self, PkiError};
use crate::reviews::Reviews;
use crate::server::{self, ServeError, Served, Server};
use crate::store::{LoadError, LogStore};

/// How long events are kept, as upstream's `--event-ttl`.
pub const EVENT_TTL: Duration = Duration::from_secs(3600);

/// Where the API is and what it keeps in memory.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names and addresses clients dial, besides the one it listens on: for its certificate.
    pub names: Vec<String>,
    /// The daemon's data directory: certificates are kept in `kube-pki`, the administrator's kubeconfig in `kubeconfig`.
    pub data_dir: PathBuf,
    /// What is kept in memory.
    pub limits: Limits,
}

/// Why the API cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
pub enum OpenError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("the address of the Kubernetes API is not told: {0}")]
    Address(io::Error),
}

/// The embedded API, open but not serving.
pub struct Embedded {
    api: Api,
    accounts: Accounts,
    store: LogStore,
    server: Server,
    acceptor: TlsAcceptor,
    kubeconfig: PathBuf,
    event_ttl: Duration,
}

impl Embedded {
    /// Opens the API over the objects in `projection`, which has folded all of `log`, and makes what is there from the
    /// beginning, `definitions` (CustomResourceDefinitions) among it. What it changes is durable when this returns.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        config: Config,
        log: Log,
        projection: &Projection,
        definitions: &[Value],
    ) -> Result<Embedded, OpenError> {
        let server = Server::bind(config.listen).await?;
        let address = server.address().map_err(OpenError::Address)?;
        let pki_dir = config.data_dir.join("kube-pki");
        let pki = pki::open(&pki_dir, address, &config.names)?;
        let acceptor = server::acceptor(&pki)?;
        let kinds = Kinds::default();
        let registry = Box::new(move |definitions: &[Object]| kinds.registry(definitions));
        let store = LogStore::load(log, projection, config.limits, registry)?;
        let shared: Arc<dyn ledge_kubeapi::Store> = Arc::new(store.clone());
        let accounts = Accounts::new(Arc::clone(&shared), Arc::new(pki.tokens));
        let reviews = Reviews::new(Access::new(Arc::clone(&shared)), accounts.clone());
        let api = Api::new(
            Arc::clone(&shared),
            Arc::new(SystemEnvironment),
            Arc::new(Access::new(Arc::clone(&shared))),
            Arc::new(Admission::new(shared, reviews)),
        );
        bootstrap::run(&api, definitions).await?;
        let kubeconfig = config.data_dir.join("kubeconfig");
        pki::write_kubeconfig(&kubeconfig, &pki_dir, address)?;
        Ok(Embedded {
            api,
            accounts,
            store,
            server,
            acceptor,
            kubeconfig,
            event_ttl: EVENT_TTL,
        })
    }

    /// Keeps events for `event_ttl` after they were last seen, instead of [`EVENT_TTL`].
    pub fn with_event_ttl(mut self, event_ttl: Duration) -> Embedded {
        self.event_ttl = event_ttl;
        self
    }

    /// Where it listens, with the real port.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.server.address()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API, for controllers in the same process.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The objects, for metrics.
    pub fn store(&self) -> &LogStore {
        &self.store
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let janitor = janitor::run(self.api.clone(), self.event_ttl, shutdown.clone());
        let served = Served {
            api: self.api,
            accounts: self.accounts,
        };
        let serve = self.server.serve(served, self.acceptor, shutdown);
        tokio::join!(janitor, serve);
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// What definitions describe, each read once for as long as it stays as it is: with every change of one, all are asked for.
#[derive(Default)]
struct Kinds {
    read: Mutex<BTreeMap<String, Described>>,
}

/// What one version of a definition describes.
struct Described {
    by: Version,
    resources: Vec<Arc<Resource>>,
}

impl Kinds {
    /// Built-in kinds and those that `definitions` add.
    fn registry(&self, definitions: &[Object]) -> Registry {
        let mut registry = builtin::registry();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = BTreeMap::new();
        for definition in definitions {
            let name = &definition.key().name;
            let described = read
                .remove(name)
                .filter(|described| described.by == definition.version());
            let described = described.unwrap_or_else(|| Described {
                by: definition.version(),
                resources: resources_of(definition),
            });
            for resource in &described.resources {
                registry.insert(Arc::clone(resource));
            }
            kept.insert(name.clone(), described);
        }
        *read = kept;
        registry
    }
}

fn resources_of(definition: &Object) -> Vec<Arc<Resource>> {
    match crd::resources(&definition.value()) {
        Ok(resources) => resources.into_iter().map(Arc::new).collect(),
        // It was accepted by another version of this program.
        Err(causes) => {
            let name = &definition.key().name;
            tracing::error!(name, ?causes, "a definition cannot be served: apply it again");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use ledge_kubeapi::ObjectKey;
    use ledge_kubeapi::resource::{GroupResource, Gvr};
    use serde_json::json;

    use super::*;

    fn definition(at: u64) -> Object {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        let value = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [
                    {"name": "v1", "served": true, "storage": true, "schema": schema},
                    {"name": "v2", "served": true, "storage": false, "schema": schema},
                ],
            },
        });
        let key = ObjectKey {
            resource: GroupResource {
                group: "apiextensions.k8s.io".to_owned(),
                resource: "customresourcedefinitions".to_owned(),
            },
            namespace: String::new(),
            name: "widgets.example.com".to_owned(),
        };
        Object::new(key, Version(at), value, &[])
    }

    fn widgets(registry: &Registry, version: &str) -> Option<Arc<Resource>> {
        let gvr = Gvr {
            group: "example.com".to_owned(),
            version: version.to_owned(),
            resource: "widgets".to_owned(),
        };
        registry.get(&gvr).cloned()
    }

    #[test]
    fn a_definition_is_read_again_when_it_has_changed() {
        let kinds = Kinds::default();
        let first = widgets(&kinds.registry(&[definition(1)]), "v1").unwrap();
        let same = kinds.registry(&[definition(1)]);
        assert!(Arc::ptr_eq(&first, &widgets(&same, "v1").unwrap()));
        // Both versions say the same of their objects.
        assert!(Arc::ptr_eq(&first.schema, &widgets(&same, "v2").unwrap().schema));
        let changed = kinds.registry(&[definition(2)]);
        assert!(!Arc::ptr_eq(&first, &widgets(&changed, "v1").unwrap()));
        assert!(widgets(&kinds.registry(&[]), "v1").is_none());
    }
}
