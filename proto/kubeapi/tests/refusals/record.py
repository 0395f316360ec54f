#!/usr/bin/env python3
"""Records what a kube-apiserver answers to requests that are wrong (and a few that are not, between them).

usage: record.py https://127.0.0.1:6443 TOKEN http://127.0.0.1:2379 > refusals.json
The last is etcd's address: its past is taken away in between. The namespace `refusals` is made first, and must not be
there. The server's certificate is not checked: run the server on this machine, with --authorization-mode=RBAC, a token file
whose only user is in system:masters, --disable-admission-plugins=ServiceAccount (nobody makes accounts) and
--feature-gates=ListFromCacheSnapshot=false (else lists go on from a copy of the past that etcd has forgotten).
"""

import json
import ssl
import sys
import urllib.error
import urllib.request

JSON = "application/json"
CM = "/api/v1/namespaces/refusals/configmaps"
SECRET = "/api/v1/namespaces/refusals/secrets"
SERVICE = "/api/v1/namespaces/refusals/services"
CLAIM = "/api/v1/namespaces/refusals/persistentvolumeclaims"
JOB = "/apis/batch/v1/namespaces/refusals/jobs"
STATEFUL_SET = "/apis/apps/v1/namespaces/refusals/statefulsets"
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
POD = "/api/v1/namespaces/refusals/pods"
DEPLOYMENT = "/apis/apps/v1/namespaces/refusals/deployments"
REQUEST = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CSR = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlITk1IVUNBUUF3RXpFUk1BOEdBMVVFQXd3SWNtVm1kWE5oYkhNd1dUQVRCZ2NxaGtqT1BRSUJCZ2dxaGtqTwpQUU1CQndOQ0FBVFBpRkpxNXJIN1dHemx1OTBLS2J6U1RHN3YzcFJmMUI1MGVNdkIyOElNYUdveGlkQ1VOYzhIClM2UURpY0x1dDVqeVhhYno3ZVpnbm5QbVMzUHN1WCtUb0FBd0NnWUlLb1pJemowRUF3SURTQUF3UlFJaEFNMjkKbStQdTJWRGpORGNLYzVmaG5GdjVJZUh4T3VUMjJKOUhrcm9vNGxKaEFpQksvVURxL0hud3dOcmwwTVhzbUp6aQoxTUNRdFhaZVIxMjlVdzQrT2N3Z0ZnPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg=="
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGET = "/apis/refusals.example.com/v1/namespaces/refusals/widgets"


def cm(name, **more):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def pod(**spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def service(**spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}


def stateful_set(service):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"serviceName": service, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"}, "spec": spec}


def binding(role, subjects):
    role = {"apiGroup": "rbac.authorization.k8s.io", **role}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "refusals"},
        "roleRef": role, "subjects": subjects,
    }


def signing_request(**status):
    spec = {"request": CSR, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    return {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "refusals"}, "spec": spec, "status": status}


def pod_binding(annotations):
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "annotations": annotations}, "target": {"kind": "Node", "name": "n"}}


def widget(name, spec):
    return {"apiVersion": "refusals.example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


def deployment(**spec):
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.refusals.example.com"},
    "spec": {
        "group": "refusals.example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
        "versions": [{
            "name": "v1",
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {
                    "type": "object",
                    "required": ["count"],
                    "properties": {
                        "count": {"type": "integer", "minimum": 1, "maximum": 9},
                        "color": {"type": "string", "enum": ["red", "blue"]},
                        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
                    },
                    "x-kubernetes-validations": [{"rule": "self.count != 7", "message": "seven is taken"}],
                }},
            }},
        }],
    },
}

JSON_PATCH = {"Content-Type": "application/json-patch+json"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}
YAML = {"Content-Type": "application/yaml"}
# Nobody gave him a role.
BOB = {"Impersonate-User": "bob"}
TWICE = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "%s"}, "data": {"a": "1", "a": "2"}}'
TWICE_YAML = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\ndata:\n  a: b\n  a: c\n"
WIDGET_TWICE = '{"apiVersion": "refusals.example.com/v1", "kind": "Widget", "metadata": {"name": "twice"}, "spec": {"count": 1, "count": 2}}'

# What it is about, method, path, body, more headers, and how many letters stand for PAD in the body. `{continue}` in a
# path is what the list before gave; COMPACT makes etcd forget the past.
STEPS = [
    ("a namespace", "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "refusals"}}),
    ("no such object", "GET", CM + "/none", None),
    ("no such resource", "GET", "/api/v1/namespaces/refusals/nothings", None),
    ("no such group", "GET", "/apis/none.example.com/v1/things", None),
    ("no such version", "GET", "/apis/apps/v9/deployments", None),
    ("no such path", "GET", "/nothing/here", None),
    ("no such subresource", "GET", CM + "/none/status", None),
    ("a subresource of nothing", "GET", DEPLOYMENT + "/none/scale", None),
    ("to a namespaced kind without a namespace", "POST", "/api/v1/configmaps", cm("a")),
    ("a collection cannot be replaced", "PUT", CM, cm("a")),
    ("an object cannot be posted to", "POST", CM + "/a", cm("a")),
    ("no JSON", "POST", CM, "{"),
    ("a list", "POST", CM, "[]"),
    ("no kind, which is that of the path", "POST", CM, {"apiVersion": "v1", "metadata": {"name": "k1"}}),
    ("no version, which is that of the path", "POST", CM, {"kind": "ConfigMap", "metadata": {"name": "k2"}}),
    ("another kind", "POST", CM, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}),
    ("another group", "POST", CM, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}),
    ("an unknown kind", "POST", CM, {"apiVersion": "v1", "kind": "Nothing", "metadata": {"name": "a"}}),
    ("another namespace", "POST", CM, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}),
    ("no name", "POST", CM, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
    ("a name that is none", "POST", CM, cm("A_b")),
    ("a label that is none", "POST", CM, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"a b": "c"}}}),
    ("a version on creation", "POST", CM, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "5"}}),
    ("an unknown field, strictly", "POST", CM + "?fieldValidation=Strict", cm("a", datum={"a": "b"})),
    ("an unknown field within, strictly", "POST", DEPLOYMENT + "?fieldValidation=Strict", deployment(replica=3)),
    ("a value of another type", "POST", CM, cm("a", data={"a": 1})),
    ("a number that is a text", "POST", DEPLOYMENT, deployment(replicas="x")),
    ("created", "POST", CM, cm("a", data={"a": "b"})),
    ("created twice", "POST", CM, cm("a")),
    ("another name", "PUT", CM + "/a", cm("b")),
    ("a version of before", "PUT", CM + "/a", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "1"}}),
    ("replacing what is not there", "PUT", CM + "/none", cm("none")),
    ("another uid", "DELETE", CM + "/a", {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "u"}}),
    ("deleting what is not there", "DELETE", CM + "/none", None),
    ("an unknown propagation", "DELETE", CM + "/a?propagationPolicy=Sideways", None),
    ("a body in XML", "POST", CM, "<a/>", {"Content-Type": "application/xml"}),
    ("an answer in XML", "GET", CM + "/a", None, {"Accept": "application/xml"}),
    ("a patch of no known type", "PATCH", CM + "/a", {}, {"Content-Type": "application/patch"}),
    ("a patch that is none", "PATCH", CM + "/a", "{", {"Content-Type": "application/merge-patch+json"}),
    ("a test that fails", "PATCH", CM + "/a", [{"op": "test", "path": "/data/a", "value": "c"}], {"Content-Type": "application/json-patch+json"}),
    ("a patch of what is not there", "PATCH", CM + "/none", {}, {"Content-Type": "application/merge-patch+json"}),
    ("an apply without a manager", "PATCH", CM + "/a", cm("a"), {"Content-Type": "application/apply-patch+yaml"}),
    ("an apply of what another has", "PATCH", CM + "/a?fieldManager=m", cm("a", data={"a": "c"}), {"Content-Type": "application/apply-patch+yaml"}),
    ("a dry run of some", "POST", CM + "?dryRun=Some", cm("x")),
    ("a field validation of a kind", "POST", CM + "?fieldValidation=Maybe", cm("x")),
    ("a limit that is none", "GET", CM + "?limit=x", None),
    ("a label selector that is none", "GET", CM + "?labelSelector=a%20b", None),
    ("a field that cannot be selected", "GET", CM + "?fieldSelector=data.a%3Db", None),
    ("a continue that is none", "GET", CM + "?continue=zz", None),
    ("a version that is none", "GET", CM + "?resourceVersion=x", None),
    ("a version of nothing", "GET", CM + "?resourceVersionMatch=Exact", None),
    ("a deployment", "POST", DEPLOYMENT, deployment()),
    ("another selector", "PUT", DEPLOYMENT + "/d", deployment(selector={"matchLabels": {"x": "y"}})),
    ("fewer than no replicas", "PUT", DEPLOYMENT + "/d/scale", {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "refusals"}, "spec": {"replicas": -1}}),
    ("a pod without containers", "POST", POD, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}),
    ("a container of nothing", "POST", POD, pod(containers=[{}])),
    ("containers of one name", "POST", POD, pod(containers=[{"name": "A_", "image": "i"}, {"name": "A_", "image": " i"}])),
    ("ports and mounts", "POST", POD, pod(
        containers=[{
            "name": "a", "image": "i", "imagePullPolicy": "x", "ports": [{"containerPort": 0}, {"containerPort": 70000, "protocol": "x"}],
            "volumeMounts": [{"name": "v"}],
        }],
        volumes=[{"name": "a"}, {"name": "a", "emptyDir": {}}],
    )),
    ("an unknown restart policy", "POST", POD, pod(containers=[{"name": "a", "image": "i"}], restartPolicy="x")),
    ("a pod", "POST", POD, pod(containers=[{"name": "a", "image": "i"}])),
    ("another image", "PUT", POD + "/p", pod(containers=[{"name": "a", "image": "j"}])),
    ("a key that is none", "POST", CM, cm("b", data={"a b": "c"}, binaryData={"x/y": "YQ=="})),
    ("a key twice", "POST", CM, cm("b", data={"a": "c"}, binaryData={"a": "YQ=="})),
    ("a secret", "POST", SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
    ("another type of secret", "PUT", SECRET + "/s", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "x"}),
    ("a service without ports", "POST", SERVICE, service()),
    ("wrong ports", "POST", SERVICE, service(ports=[{"port": 0}, {"port": 70000, "protocol": "x", "name": "A"}], type="x", sessionAffinity="y")),
    ("a claim of nothing", "POST", CLAIM, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {}}),
    ("a deployment of nothing", "POST", DEPLOYMENT, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "e"}, "spec": {}}),
    ("a deployment that selects everything", "POST", DEPLOYMENT, deployment(replicas=-1, selector={})),
    ("a deployment of pods that end", "POST", DEPLOYMENT, deployment(template={
        "metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
    })),
    ("a job that never ends", "POST", JOB, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}}),
    ("a cron job of no time", "POST", JOB.replace("jobs", "cronjobs"), {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "j"}, "spec": {
        "schedule": "x", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}}}},
    }}),
    ("a stateful set", "POST", STATEFUL_SET, stateful_set("a")),
    ("a stateful set of another service", "PUT", STATEFUL_SET + "/s", stateful_set("b")),
    ("a binding to nothing", "POST", BINDING, binding({"kind": "X", "name": ""}, [{"kind": "Foo", "name": ""}])),
    ("a binding", "POST", BINDING, binding({"kind": "ClusterRole", "name": "a"}, [])),
    ("a binding to another role", "PUT", BINDING + "/refusals", binding({"kind": "ClusterRole", "name": "b"}, [])),
    ("a role of nothing", "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "refusals"},
        "rules": [{"verbs": []}, {"verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["x"]}],
    }),
    ("a lease of no time", "POST", "/apis/coordination.k8s.io/v1/namespaces/refusals/leases", {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0}}),
    ("a storage class of nobody", "POST", "/apis/storage.k8s.io/v1/storageclasses", {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "refusals"}}),
    ("a definition", "POST", CRD, DEFINITION),
    ("a definition of another name", "POST", CRD, {**DEFINITION, "metadata": {"name": "x.example.com"}}),
    ("too few", "POST", WIDGET, widget("w", {"count": 0})),
    ("too many", "POST", WIDGET, widget("w", {"count": 10})),
    ("none", "POST", WIDGET, widget("w", {})),
    ("not one of those", "POST", WIDGET, widget("w", {"count": 1, "color": "green"})),
    ("not like that", "POST", WIDGET, widget("w", {"count": 1, "name": "ABCD"})),
    ("a text", "POST", WIDGET, widget("w", {"count": "x"})),
    ("what a rule forbids", "POST", WIDGET, widget("w", {"count": 7})),
    ("unknown in a kind of one's own, strictly", "POST", WIDGET + "?fieldValidation=Strict", widget("w", {"count": 1, "x": 1})),
    ("a strategic merge patch of a kind of one's own", "PATCH", WIDGET + "/w", {}, {"Content-Type": "application/strategic-merge-patch+json"}),
    ("a widget", "POST", WIDGET, widget("w", {"count": 1})),
    ("a widget without a version", "PUT", WIDGET + "/w", widget("w", {"count": 2})),
    ("no scale", "GET", WIDGET + "/w/scale", None),
    # What is in it is no object, or of another type.
    ("a patch that leaves a list", "PATCH", CM + "/a", [{"op": "replace", "path": "", "value": []}], JSON_PATCH),
    ("a patch that leaves a text", "PATCH", CM + "/a", [{"op": "replace", "path": "", "value": "x"}], JSON_PATCH),
    ("a patch that leaves nothing", "PATCH", CM + "/a", [{"op": "replace", "path": "", "value": None}], JSON_PATCH),
    ("a patch of a scale that leaves a list", "PATCH", DEPLOYMENT + "/d/scale", [{"op": "replace", "path": "", "value": []}], JSON_PATCH),
    ("metadata that are a text", "POST", CM, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": "x"}),
    ("labels that are a text", "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": "x"}}),
    ("a spec that is a text", "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": "x"}),
    ("a signing request", "POST", REQUEST, signing_request()),
    ("a condition that is a text", "PUT", REQUEST + "/refusals/approval", signing_request(conditions=["x"])),
    ("a condition that is a text, of a signer", "PUT", REQUEST + "/refusals/status", signing_request(conditions=["x"])),
    # A field that is there twice.
    ("a field twice, strictly", "POST", CM + "?fieldValidation=Strict", TWICE % "twice"),
    ("a field twice and an unknown one, strictly", "POST", CM + "?fieldValidation=Strict", (TWICE % "twice")[:-1] + ', "datum": 1}'),
    ("a field twice", "POST", CM, TWICE % "twice"),
    ("a field twice and an unknown one", "PUT", CM + "/twice", (TWICE % "twice")[:-1] + ', "datum": 1}'),
    ("a field twice, never mind", "PUT", CM + "/twice?fieldValidation=Ignore", TWICE % "twice"),
    ("a field twice in YAML, strictly", "POST", CM + "?fieldValidation=Strict", TWICE_YAML, YAML),
    ("a field twice in YAML", "POST", CM, TWICE_YAML, YAML),
    ("a field twice in a merge patch, strictly", "PATCH", CM + "/a?fieldValidation=Strict", '{"data": {"b": "1", "b": "2"}}', MERGE_PATCH),
    ("a field twice in a merge patch", "PATCH", CM + "/a", '{"data": {"b": "1", "b": "2"}}', MERGE_PATCH),
    ("a field twice in a strategic merge patch, strictly", "PATCH", CM + "/a?fieldValidation=Strict", '{"data": {"b": "1", "b": "2"}}', STRATEGIC),
    ("a field twice in a strategic merge patch", "PATCH", CM + "/a", '{"data": {"b": "1", "b": "2"}}', STRATEGIC),
    ("a field twice in a JSON patch, strictly", "PATCH", CM + "/a?fieldValidation=Strict", '[{"op": "add", "op": "add", "path": "/data/b", "value": "1"}]', JSON_PATCH),
    ("a field twice in a JSON patch", "PATCH", CM + "/a", '[{"op": "add", "op": "add", "path": "/data/b", "value": "3"}]', JSON_PATCH),
    ("an unknown field in a merge patch, strictly", "PATCH", CM + "/a?fieldValidation=Strict", {"datum": {"b": "1"}}, MERGE_PATCH),
    ("an unknown field in a merge patch", "PATCH", CM + "/a", {"datum": {"b": "1"}}, MERGE_PATCH),
    ("a field twice in an apply, strictly", "PATCH", CM + "/applied?fieldManager=m&fieldValidation=Strict", TWICE % "applied", APPLY),
    ("a field twice in an apply", "PATCH", CM + "/applied?fieldManager=m", TWICE % "applied", APPLY),
    ("a field twice in a kind of one's own, strictly", "POST", WIDGET + "?fieldValidation=Strict", WIDGET_TWICE),
    ("a field twice in a kind of one's own", "POST", WIDGET, WIDGET_TWICE),
    # Options of lists and watches that do not go together.
    ("a match of no kind", "GET", CM + "?resourceVersionMatch=Maybe&resourceVersion=1", None),
    ("exactly the version 0", "GET", CM + "?resourceVersionMatch=Exact&resourceVersion=0", None),
    ("a list of initial events", "GET", CM + "?sendInitialEvents=true&resourceVersionMatch=NotOlderThan", None),
    ("a list of no initial events", "GET", CM + "?sendInitialEvents=false", None),
    ("a watch of initial events", "GET", CM + "?watch=1&sendInitialEvents=true", None),
    ("a watch of initial events at a version", "GET", CM + "?watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1", None),
    ("a watch of no initial events", "GET", CM + "?watch=1&sendInitialEvents=false", None),
    ("a watch with a match", "GET", CM + "?watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1", None),
    ("a watch with a match of no kind", "GET", CM + "?watch=1&resourceVersionMatch=Maybe&resourceVersion=1", None),
    ("a watch with a continue", "GET", CM + "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x", None),
    ("the first of a list", "GET", CM + "?limit=1", None),
    ("a continue with a version", "GET", CM + "?limit=1&continue={continue}&resourceVersion=1", None),
    ("a continue with version 0", "GET", CM + "?limit=1&continue={continue}&resourceVersion=0", None),
    ("a continue with a match", "GET", CM + "?limit=1&continue={continue}&resourceVersion=1&resourceVersionMatch=Exact", None),
    ("another resource's continue", "GET", SECRET + "?limit=1&continue={continue}", None),
    ("another namespace's continue", "GET", CM.replace("refusals", "default") + "?limit=1&continue={continue}", None),
    ("a watch of the future", "GET", CM + "?resourceVersion=999999999", None),
    # What a user without a role may not do.
    ("getting is not allowed", "GET", CM + "/a", None, BOB),
    ("listing is not allowed", "GET", CM, None, BOB),
    ("listing all is not allowed", "GET", "/api/v1/configmaps", None, BOB),
    ("watching is not allowed", "GET", CM + "?watch=1", None, BOB),
    ("creating is not allowed", "POST", CM, cm("b"), BOB),
    ("updating is not allowed", "PUT", CM + "/a", cm("a"), BOB),
    ("patching is not allowed", "PATCH", CM + "/a", {}, {**BOB, **MERGE_PATCH}),
    ("deleting is not allowed", "DELETE", CM + "/a", None, BOB),
    ("deleting all is not allowed", "DELETE", CM, None, BOB),
    ("a subresource is not allowed", "PUT", DEPLOYMENT + "/d/scale", {}, BOB),
    ("a status is not allowed", "PATCH", DEPLOYMENT + "/d/status", {}, {**BOB, **MERGE_PATCH}),
    ("a kind of one's own is not allowed", "GET", WIDGET + "/w", None, BOB),
    ("a namespace is not allowed", "GET", "/api/v1/namespaces/refusals", None, BOB),
    ("finalizing a namespace is not allowed", "PUT", "/api/v1/namespaces/refusals/finalize", {}, BOB),
    ("deleting a namespace is not allowed", "DELETE", "/api/v1/namespaces/refusals", None, BOB),
    ("making a namespace is not allowed", "POST", "/api/v1/namespaces", {}, BOB),
    ("what is of no namespace is not allowed", "GET", "/api/v1/nodes/n", None, BOB),
    ("a path is not allowed", "GET", "/metrics", None, BOB),
    ("nonsense is not allowed before it is not understood", "POST", CM, "{", BOB),
    # Bindings of pods.
    ("a binding's annotation that is a number", "POST", POD + "/p/binding", pod_binding({"a": 1})),
    ("a binding's annotations that are a text", "POST", POD + "/p/binding", pod_binding("x")),
    # What is too large.
    ("a body that is too large", "POST", CM, cm("large", data={"a": "PAD"}), {}, 3 * 1024 * 1024),
    ("a config map that is too large", "POST", CM, cm("large", data={"a": "PAD"}), {}, 1024 * 1024 + 1),
    ("a secret that is too large", "POST", SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "large"}, "data": {"a": "PAD"}}, {}, 1400000),
    ("an object that is too large", "POST", POD, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "large"}, "spec": {"containers": [{"name": "a", "image": "i", "args": ["PAD"]}]}}, {}, 1572864),
    # What is not held any more.
    ("the first of a list again", "GET", CM + "?limit=1", None),
    ("time goes on", "COMPACT", "", None),
    ("a continue of the past", "GET", CM + "?limit=1&continue={continue}", None),
    ("a list of the past", "GET", CM + "?resourceVersion=1&resourceVersionMatch=Exact", None),
    # Of events no copy is kept.
    ("a watch of the past", "GET", CM.replace("configmaps", "events") + "?watch=1&resourceVersion=1", None),
]


def send(method, path, body, headers):
    data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {sys.argv[2]}", "Content-Type": JSON, "User-Agent": "record", **headers}
    request = urllib.request.Request(sys.argv[1].rstrip("/") + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as response:
            warnings = response.headers.get_all("Warning") or []
            # Of a watch, how it begins.
            answer = json.loads(response.readline()) if "watch=" in path else json.load(response)
            return response.status, answer, warnings
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        try:
            return error.code, json.loads(text), []
        except ValueError:
            return error.code, text, []


def compact(etcd):
    def post(path, body):
        with urllib.request.urlopen(urllib.request.Request(etcd + path, data=json.dumps(body).encode())) as answer:
            return json.load(answer)

    now = post("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
    post("/v3/kv/compaction", {"revision": now, "physical": True})


def main():
    import time

    out = []
    token = ""
    for about, method, path, body, *more in STEPS:
        headers, pad = [*more, {}, 0][:2] if len(more) < 2 else more
        step = {"about": about, "method": method, "path": path, "body": body, "headers": headers}
        if pad:
            step |= {"pad": pad}
        if method == "COMPACT":
            # Something has to change, or the past is the present.
            send("PUT", CM + "/a", cm("a", data={"a": "b"}), {})
            compact(sys.argv[3])
            out.append(step | {"code": 200})
            continue
        sent = json.loads(json.dumps(body).replace("PAD", "x" * pad)) if pad else body
        code, answer, warnings = send(method, path.replace("{continue}", token), sent, headers)
        if about == "a definition":
            time.sleep(2)  # A kind is served a moment after its definition.
        step |= {"code": code}
        if code < 400 and isinstance(answer, dict):
            token = answer.get("metadata", {}).get("continue", token)
        if warnings:
            step |= {"warnings": warnings}
        if isinstance(answer, dict) and answer.get("type") == "ERROR":
            answer = answer["object"]
            step |= {"event": answer["code"], "reason": answer.get("reason"), "message": answer.get("message")}
        elif code >= 400 and isinstance(answer, dict):
            step |= {"reason": answer.get("reason"), "message": answer.get("message"), "details": answer.get("details")}
        elif code >= 400:
            step |= {"text": answer}
        out.append(step)
    json.dump(out, sys.stdout, indent=1)
    print()


main()
