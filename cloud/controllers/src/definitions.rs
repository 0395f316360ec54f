//! The definitions of Ledge's kinds in a cluster's API server. The embedded API makes its own when it opens.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Error};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Says which version of Ledge applied a definition: an older one leaves it alone.
const APPLIED_BY: &str = "ledge.kubeedge.io/applied-by-version";
const MANAGER: &str = "ledge-definitions";
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What became of one definition.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Applied,
    /// Somebody else's, or of a later version: as it is.
    Left(String),
}

/// Applies every definition that is missing or was applied by an older version of Ledge. What the API server refuses is
/// told, with what to do, and tried again like what it does not answer, until `shutdown`.
pub async fn bring_up_to_date(client: Client, definitions: Vec<Value>, shutdown: CancellationToken) {
    let name = |definition: &Value| {
        let name = definition["metadata"]["name"].as_str();
        name.unwrap_or_default().to_owned()
    };
    let mut missing: Vec<(String, Value)> = definitions
        .into_iter()
        .map(|definition| (name(&definition), definition))
        .collect();
    let mut told = BTreeMap::new();
    loop {
        let mut left = Vec::new();
        for (name, definition) in missing {
            match one(&client, &name, definition.clone(), env!("CARGO_PKG_VERSION")).await {
                Ok(Outcome::Applied) => tracing::info!(name, "definition applied"),
                Ok(Outcome::Left(why)) => tracing::info!(name, why, "definition left as it is"),
                Err(err) => {
                    tell(&mut told, &name, &err);
                    left.push((name, definition));
                }
            }
        }
        if left.is_empty() {
            return;
        }
        missing = left;
        tokio::select! {
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Says why a definition is not there yet, once for as long as it is the same reason.
fn tell(told: &mut BTreeMap<String, String>, name: &str, err: &Error) {
    let why = match err {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    if told.insert(name.to_owned(), why.clone()).as_ref() == Some(&why) {
        return;
    }
    match err {
        Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            tracing::error!(
                name,
                why,
                "the API server refuses the definition; trying again: let cloudcore's user get, create and patch customresourcedefinitions, or apply it as an administrator"
            );
        }
        _ => tracing::warn!(name, why, "definition not applied yet; trying again"),
    }
}

async fn one(client: &Client, name: &str, mut definition: Value, version: &str) -> Result<Outcome, Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    if let Some(there) = api.get_opt(name).await? {
        let by = there
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(APPLIED_BY));
        match by {
            None => return Ok(Outcome::Left("somebody else applied it".to_owned())),
            Some(by) if number(by) > number(version) => {
                return Ok(Outcome::Left(format!("Ledge {by} applied it, this is {version}")));
            }
            Some(_) => {}
        }
    }
    definition["metadata"]["annotations"][APPLIED_BY] = version.into();
    let params = PatchParams::apply(MANAGER).force();
    api.patch(name, &params, &Patch::Apply(&definition)).await?;
    Ok(Outcome::Applied)
}

/// `MAJOR.MINOR.PATCH` to compare; what is not a number counts as none.
fn number(version: &str) -> [u64; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}
