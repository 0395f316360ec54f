//! Definitions in a cluster: what is missing or older is applied, the rest stays.

use crate::support::{Place, places};
use kube::api::{Patch, PatchParams};
use ledge_controllers::definitions::bring_up_to_date;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const KIND: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition/customresourcedefinitions";
const NAME: &str = "widgets.example.com";
const BY: &str = "ledge.kubeedge.io/applied-by-version";

fn definition(description: &str) -> Value {
    let schema = json!({"type": "object", "description": description});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// The description after bringing up to date with another one.
async fn after(place: &Place, description: &str) -> String {
    let definitions = vec![definition(description)];
    bring_up_to_date(place.client.clone(), definitions, CancellationToken::new()).await;
    let found = place.api(KIND, "").get(NAME).await.unwrap();
    let version = &found.data["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"]["description"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn annotate(place: &Place, by: &Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {BY: by}}}));
    let api = place.api(KIND, "");
    api.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_older_is_applied() {
    for place in places().await {
        println!("against {}", place.cluster.name());
        assert_eq!(after(&place, "first").await, "first");
        assert_eq!(after(&place, "second").await, "second");
        annotate(&place, &json!("0.0.1")).await;
        assert_eq!(after(&place, "third").await, "third");
        annotate(&place, &json!("99.0.0")).await;
        assert_eq!(after(&place, "fourth").await, "third");
        annotate(&place, &Value::Null).await;
        assert_eq!(after(&place, "fifth").await, "third");
    }
}
