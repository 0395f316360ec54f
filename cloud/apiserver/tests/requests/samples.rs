//! What makes sense, before some of it is replaced.

use serde_json::{Value, json};

const GROUP: &str = "/apis/fuzz.example.com/v1/namespaces/default/widgets";

/// A kind of users.
pub(super) fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.fuzz.example.com"},
        "spec": {
            "group": "fuzz.example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count"}},
                "additionalPrinterColumns": [{"name": "Count", "type": "integer", "jsonPath": ".spec.count"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "count": {"type": "integer", "minimum": 1, "default": 2},
                        "color": {"type": "string", "enum": ["red", "blue"]},
                        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
                        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    }, "x-kubernetes-validations": [{"rule": "!has(self.count) || self.count != 7"}]},
                    "status": {"type": "object", "properties": {"count": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

fn template() -> Value {
    json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}],
            "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}}], "volumes": [{"name": "v", "emptyDir": {}}]},
    })
}

/// Collections with an object that fits into each.
pub(super) fn objects() -> Vec<(&'static str, Value)> {
    let meta = json!({"name": "a", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["example.com/f"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]});
    let request = json!({"request": "eA==", "signerName": "example.com/s", "usages": ["client auth"]});
    let conditions = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template(), "replicas": 1, "serviceName": "s"});
    let mut job = template();
    job["spec"]["restartPolicy"] = "Never".into();
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a"});
    let review = json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}, "user": "bob"});
    vec![
        (
            "/api/v1/namespaces",
            json!({"metadata": meta, "spec": {"finalizers": ["kubernetes"]}}),
        ),
        (
            "/api/v1/nodes",
            json!({"metadata": meta, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}, "status": {"addresses": []}}),
        ),
        (
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": meta, "data": {"a": "b"}, "binaryData": {"c": "eA=="}, "immutable": true}),
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": meta, "data": {"a": "eA=="}, "stringData": {"b": "c"}, "type": "Opaque"}),
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": meta, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}),
        ),
        (
            "/api/v1/namespaces/default/endpoints",
            json!({"metadata": meta, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        ),
        (
            "/api/v1/namespaces/default/serviceaccounts",
            json!({"metadata": meta}),
        ),
        (
            "/api/v1/namespaces/default/events",
            json!({"metadata": meta, "involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1}),
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            json!({"metadata": meta, "regarding": {"kind": "Pod"}, "note": "n", "eventTime": "2026-01-01T00:00:00.000000Z"}),
        ),
        (
            "/api/v1/persistentvolumes",
            json!({"metadata": meta, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}}}),
        ),
        (
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({"metadata": meta, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "/api/v1/namespaces/default/pods",
            json!({"metadata": meta, "spec": template()["spec"]}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": meta, "spec": spec}),
        ),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            json!({"metadata": meta, "spec": spec}),
        ),
        (
            "/apis/apps/v1/namespaces/default/daemonsets",
            json!({"metadata": meta, "spec": spec}),
        ),
        (
            "/apis/apps/v1/namespaces/default/replicasets",
            json!({"metadata": meta, "spec": spec}),
        ),
        (
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"metadata": meta, "spec": {"template": job}}),
        ),
        (
            "/apis/batch/v1/namespaces/default/cronjobs",
            json!({"metadata": meta, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": job}}}}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"metadata": meta, "spec": {"leaseDurationSeconds": 1}}),
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({"metadata": meta, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"metadata": meta, "provisioner": "p"}),
        ),
        (
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            json!({"metadata": meta, "spec": request, "status": conditions}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
            json!({"metadata": meta, "rules": rules}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": meta, "rules": rules}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
            json!({"metadata": meta, "roleRef": role, "subjects": [{"kind": "User", "name": "bob"}]}),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            definition(),
        ),
        (
            GROUP,
            json!({"apiVersion": "fuzz.example.com/v1", "kind": "Widget", "metadata": meta, "spec": {"count": 1, "color": "red", "parts": [{"name": "p"}], "any": {"x": 1}}}),
        ),
        (
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json!({"metadata": {}, "spec": review}),
        ),
        (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            json!({"metadata": {}, "spec": review}),
        ),
        (
            "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews",
            json!({"metadata": {}, "spec": review}),
        ),
        (
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            json!({"spec": {"namespace": "default"}}),
        ),
        (
            "/apis/authentication.k8s.io/v1/tokenreviews",
            json!({"spec": {"token": "t", "audiences": ["a"]}}),
        ),
        ("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})),
    ]
}

/// Bodies of subresources, and of what is no object.
pub(super) fn others() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a", "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n"}}),
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}, "deleteOptions": {"gracePeriodSeconds": 1}}),
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 3}}),
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5, "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "name": "a"}}}),
        json!([{"op": "replace", "path": "/metadata/labels", "value": {"x": "y"}}, {"op": "remove", "path": "/spec"}]),
        json!([{"op": "replace", "path": "", "value": []}]),
        json!([{"op": "add", "path": "/metadata/annotations/x", "value": 1}, {"op": "move", "from": "/spec", "path": "/status"}]),
        json!({"metadata": {"labels": null, "annotations": {"a": "c"}}, "spec": {"$patch": "replace"}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "$patch": "delete"}], "$setElementOrder/containers": [{"name": "c"}]}}}}),
        json!({"status": {"conditions": [{"type": "Denied", "status": "True"}], "count": 3}}),
        Value::Null,
    ]
}
