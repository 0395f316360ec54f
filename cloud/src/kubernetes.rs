//! Kubernetes, wherever it is: the API in this process, or a cluster's API server; and what runs against it.

use std::sync::Arc;

use kube::Client;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use ledge_apiserver::embedded::{self, Embedded};
use ledge_apiserver::local::Local;
use ledge_controllers::links::Links;
use ledge_controllers::told::Told;
use ledge_controllers::{Controllers, definitions};
use ledge_daemon::tasks::Tasks;
use ledge_workloads::Workloads;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, KubernetesAt};

/// The name under which controllers speak to the embedded API.
const COMPONENT: &str = "system:cloudcore";

/// Why Kubernetes cannot be had. A cluster that does not answer is no reason: controllers try again.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its source's kind")]
pub enum KubernetesError {
    #[error(transparent)]
    Embedded(#[from] embedded::OpenError),
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    #[error(
        "the environment says that this is a pod, but its account cannot be used: {0}; name a kubeconfig with --kubeconfig, or serve an API here with --api-listen"
    )]
    InCluster(#[from] InClusterError),
    #[error("no client for the cluster's API server: {0}")]
    Client(#[from] kube::Error),
}

/// Kubernetes, with nothing running against it yet.
pub(crate) struct Kubernetes {
    client: Client,
    /// The API in this process; `None`: it is a cluster's.
    embedded: Option<Embedded>,
    /// Where it is, for people.
    place: String,
    told: Told,
}

impl Kubernetes {
    /// Opens what `config` says; `None` when there shall be none. `told.projection` has folded all of its log.
    pub(crate) async fn open(config: &Config, told: Told) -> Result<Option<Kubernetes>, KubernetesError> {
        let kubernetes = match &config.kubernetes {
            KubernetesAt::Nowhere => return Ok(None),
            KubernetesAt::Kubeconfig(path) => {
                let options = KubeConfigOptions::default();
                let cluster =
                    kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?;
                Kubernetes::of_cluster(cluster, told)?
            }
            KubernetesAt::InCluster => Kubernetes::of_cluster(kube::Config::incluster()?, told)?,
            KubernetesAt::Embedded(listen) => {
                let api = embedded::Config {
                    listen: *listen,
                    names: Vec::new(),
                    data_dir: config.data_dir.clone(),
                    limits: embedded::Limits::default(),
                };
                let definitions = ledge_crds::definitions();
                let embedded = Embedded::open(api, told.log.clone(), &told.projection, &definitions).await?;
                let address = embedded
                    .address()
                    .map_or_else(|err| err.to_string(), |address| address.to_string());
                Kubernetes {
                    client: Client::new(Local::privileged(embedded.api().clone(), COMPONENT), "default"),
                    place: format!("{address} (kubeconfig {})", embedded.kubeconfig().display()),
                    embedded: Some(embedded),
                    told,
                }
            }
        };
        Ok(Some(kubernetes))
    }

    fn of_cluster(mut config: kube::Config, told: Told) -> Result<Kubernetes, KubernetesError> {
        // A write of a node that may have been carried out is looked into before it is sent again.
        config.default_retry = false;
        let place = config.cluster_url.to_string();
        Ok(Kubernetes {
            client: Client::try_from(config)?,
            embedded: None,
            place,
            told,
        })
    }

    /// A client that may do everything the controllers do.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Starts the API, if it is here, and everything that works against it.
    pub(crate) fn spawn(self, tasks: &mut Tasks, links: Arc<dyn Links>, shutdown: &CancellationToken) {
        let Kubernetes {
            client,
            embedded,
            told,
            ..
        } = self;
        let every_node = embedded.is_some();
        match embedded {
            Some(embedded) => {
                tasks.spawn("kubernetes-api", embedded.run(shutdown.clone()));
                let workloads = Workloads::new(client.clone());
                tasks.spawn("workloads", workloads.run(shutdown.clone()));
            }
            None => {
                let up = definitions::bring_up_to_date(
                    client.clone(),
                    ledge_crds::definitions(),
                    shutdown.clone(),
                );
                tasks.spawn("definitions", up);
            }
        }
        let controllers = Controllers {
            client,
            told,
            every_node,
            links,
        };
        tasks.spawn("controllers", controllers.run(shutdown.clone()));
    }
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
