//! Events of nodes in namespaces that go.

use kube::api::{DeleteParams, ListParams};
use ledge_cloud_testing::{clusters, eventually};
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::json;

use crate::place::Anywhere;

const NAMESPACE: &str = "/v1/Namespace/namespaces";

async fn tells(place: &Anywhere, namespace: &str, message: &str) {
    let event = json!({
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "till"},
        "type": "Normal", "reason": "Started", "message": message, "source": {"component": "edgecore"},
    });
    let event = Payload::KubeEvent(v1::KubeEvent {
        json: event.to_string().into_bytes(),
    });
    let key = format!("/pods/{namespace}/till");
    place.says(Lane::UpData, &key, &event).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_namespace_that_goes_does_not_hold_up_others() {
    for cluster in clusters(&[]).await {
        let mut place = Anywhere::new(cluster);
        let going = place.cluster.unique("going");
        let held = json!({"metadata": {"name": going}, "spec": {"finalizers": ["kubernetes"]}});
        place.make(NAMESPACE, held).await;
        // Something in it keeps it where somebody takes namespaces away.
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": going, "name": "stays", "finalizers": ["example.org/stays"]},
        });
        let client = place.cluster.client("system:test");
        let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(client, &going);
        maps.create(&Default::default(), &serde_json::from_value(map).unwrap())
            .await
            .unwrap();
        let namespaces = place.api(NAMESPACE);
        namespaces.delete(&going, &DeleteParams::default()).await.unwrap();
        let phase = namespaces.get(&going).await.unwrap().data["status"]["phase"].clone();
        assert_eq!(phase, "Terminating", "on {}", place.cluster.name());
        tells(&place, &going, "lost").await;
        let here = place.cluster.namespace().to_owned();
        tells(&place, &here, "told").await;
        place.run();
        let what = format!("the event that comes after, on {}", place.cluster.name());
        eventually(&what, async || {
            let events = place
                .api("v1/Event/events")
                .list(&ListParams::default())
                .await
                .unwrap();
            let told = events.items.iter().any(|event| event.data["message"] == "told");
            told.then_some(())
        })
        .await;
        place.stop().await;
    }
}
