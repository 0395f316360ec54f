//! What nodes want written is written once, in their own name.

use crate::support::{Place, places};
use kube::api::{DynamicObject, Patch, PatchParams};
use ledge_proto::fold::Table;
use ledge_proto::ids::Lane;
use ledge_proto::record::Payload;
use ledge_proto::v1;
use serde_json::{Value, json};

const MAP: &str = "v1/ConfigMap/configmaps";

fn write(method: &str, path: &str, body: &Value) -> v1::KubeWrite {
    let content_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    v1::KubeWrite {
        method: method.to_owned(),
        path: path.to_owned(),
        content_type: content_type.to_owned(),
        body: body.to_string().into_bytes().into(),
        ..Default::default()
    }
}

/// Lets nodes write config maps, and starts the controllers.
async fn run(place: &mut Place) {
    place.nodes_may("", "configmaps").await;
    place.run();
}

fn maps(place: &Place) -> String {
    format!("/api/v1/namespaces/{}/configmaps", place.namespace())
}

async fn wants(place: &Place, id: &str, write: v1::KubeWrite) {
    let payload = Payload::KubeWrite(write);
    place
        .node_says(&place.own("edge-1"), Lane::UpState, id, &payload)
        .await;
}

async fn result(place: &Place, id: &str) -> (u32, Value) {
    let found: v1::KubeWriteResult = place
        .until(&format!("a result of {id}"), async |place| {
            place.entry(&place.own("edge-1"), Table::KubeWriteResults, id)
        })
        .await;
    (found.code, serde_json::from_slice(&found.json).unwrap())
}

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

async fn there(place: &Place, name: &str) -> Option<DynamicObject> {
    place.objects_of(MAP).get_opt(name).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_carried_out_in_order_and_forgotten_when_the_node_took_the_result() {
    for mut place in places().await {
        run(&mut place).await;
        let maps = maps(&place);
        wants(&place, "w-1", write("POST", &maps, &map("a", "1"))).await;
        let path = format!("{maps}/a");
        wants(
            &place,
            "w-2",
            write("PATCH", &path, &json!({"data": {"key": "2"}})),
        )
        .await;
        wants(
            &place,
            "w-3",
            write("DELETE", &format!("{maps}/absent"), &json!({})),
        )
        .await;
        assert_eq!(result(&place, "w-1").await.0, 201);
        let (code, object) = result(&place, "w-2").await;
        assert_eq!((code, &object["data"]["key"]), (200, &json!("2")));
        let (code, status) = result(&place, "w-3").await;
        assert_eq!((code, &status["reason"]), (404, &json!("NotFound")));
        let manager = there(&place, "a").await.unwrap().metadata.managed_fields;
        assert!(manager.is_some());
        place
            .node_says(
                &place.own("edge-1"),
                Lane::UpState,
                "w-1",
                &Payload::KubeWriteRemoved,
            )
            .await;
        place
            .until("the result is forgotten", async |place| {
                let result: Option<v1::KubeWriteResult> =
                    place.entry(&place.own("edge-1"), Table::KubeWriteResults, "w-1");
                result.is_none().then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_only_what_its_user_may_and_only_requests_are_sent() {
    for mut place in places().await {
        run(&mut place).await;
        let maps = maps(&place);
        let secrets = format!("/api/v1/namespaces/{}/secrets", place.namespace());
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
        wants(&place, "w-1", write("POST", &secrets, &secret)).await;
        let (code, status) = result(&place, "w-1").await;
        assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
        assert!(
            status["message"]
                .as_str()
                .unwrap()
                .contains(&format!("system:node:{}", place.own("edge-1"))),
            "{status}"
        );
        for (id, method, path) in [
            ("w-2", "GET", maps.as_str()),
            ("w-3", "POST", "/healthz"),
            ("w-4", "PUT", "/api/v1/namespaces/../x"),
        ] {
            wants(&place, id, write(method, path, &json!({}))).await;
            assert_eq!(result(&place, id).await.0, 400);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_before_a_stop_is_not_done_again() {
    for mut place in places().await {
        run(&mut place).await;
        let maps = maps(&place);
        let path = format!("{maps}/old");
        wants(&place, "w-0", write("POST", &maps, &map("old", "1"))).await;
        let old = result(&place, "w-0").await.1;
        let based_on = old["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        place.stop().await;
        // As if each had been carried out and cloudcore had stopped before it could note the result.
        let mut made = map("a", "1");
        made["metadata"]["annotations"] = json!({"ledge.kubeedge.io/made-by-write": "w-1"});
        place.create_here(MAP, made).await;
        wants(&place, "w-1", write("POST", &maps, &map("a", "1"))).await;
        let foreign = map("foreign", "1");
        place.create_here(MAP, foreign).await;
        wants(&place, "w-2", write("POST", &maps, &map("foreign", "1"))).await;
        let mut put = old.clone();
        put["data"]["key"] = "2".into();
        let change = Patch::Merge(json!({"data": {"key": "2"}}));
        let config_maps = place.objects_of(MAP);
        config_maps
            .patch("old", &PatchParams::default(), &change)
            .await
            .unwrap();
        wants(&place, "w-3", write("PUT", &path, &put)).await;
        put["data"]["key"] = "3".into();
        wants(&place, "w-4", write("PUT", &path, &put)).await;
        let mut patch = write(
            "PATCH",
            &path,
            &json!([{"op": "add", "path": "/data/x", "value": "y"}]),
        );
        patch.content_type = "application/json-patch+json".to_owned();
        patch.based_on = based_on;
        wants(&place, "w-5", patch).await;
        wants(
            &place,
            "w-6",
            write("DELETE", &format!("{maps}/gone"), &json!({})),
        )
        .await;
        // Nobody sent this one: it is done now.
        wants(&place, "w-7", write("POST", &maps, &map("fresh", "1"))).await;
        place.run();
        let mut codes = Vec::new();
        for number in 1..=7 {
            codes.push(result(&place, &format!("w-{number}")).await.0);
        }
        assert_eq!(codes, [201, 409, 200, 504, 504, 200, 201]);
        assert_eq!(there(&place, "old").await.unwrap().data["data"]["key"], "2");
        assert!(there(&place, "fresh").await.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_name_follows_from_the_write() {
    for mut place in places().await {
        run(&mut place).await;
        let maps = maps(&place);
        let mut object = map("", "1");
        object["metadata"] = json!({"generateName": "made-"});
        wants(
            &place,
            "2f1b6c04-0000-4000-8000-0123456789ab",
            write("POST", &maps, &object),
        )
        .await;
        let (code, object) = result(&place, "2f1b6c04-0000-4000-8000-0123456789ab").await;
        assert_eq!(
            (code, &object["metadata"]["name"]),
            (201, &json!("made-2f1b6c0400"))
        );
    }
}
