#!/usr/bin/env python3
"""Records what a kube-apiserver answers to requests that are wrong (and a few that are not, between them).

usage: record.py https://127.0.0.1:6443 TOKEN > refusals.json
The namespace `refusals` is made first, and must not be there. The server's certificate is not checked: run the server on
this machine.
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

# What it is about, method, path, body, and more headers.
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
]


def send(method, path, body, headers):
    data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {sys.argv[2]}", "Content-Type": JSON, "User-Agent": "record", **headers}
    request = urllib.request.Request(sys.argv[1].rstrip("/") + path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        try:
            return error.code, json.loads(text)
        except ValueError:
            return error.code, text


def main():
    import time

    out = []
    for about, method, path, body, *more in STEPS:
        headers = more[0] if more else {}
        code, answer = send(method, path, body, headers)
        if about == "a definition":
            time.sleep(2)  # A kind is served a moment after its definition.
        step = {"about": about, "method": method, "path": path, "body": body, "headers": headers, "code": code}
        if code >= 400 and isinstance(answer, dict):
            step |= {"reason": answer.get("reason"), "message": answer.get("message"), "details": answer.get("details")}
        elif code >= 400:
            step |= {"text": answer}
        out.append(step)
    json.dump(out, sys.stdout, indent=1)
    print()


main()
