"""Records what a real API server answers, for tests/recorded.rs.

Usage: record.py https://127.0.0.1:6443 TOKEN OUTPUT_DIRECTORY

Needs an empty cluster: kube-apiserver 1.34.4 with etcd, nothing else, started with
--authorization-mode=AlwaysAllow and --token-auth-file. Objects are made in namespace `default` and
deleted again.
"""

import json
import ssl
import sys
import time
import urllib.request

SERVER, TOKEN, OUTPUT = sys.argv[1:4]
TLS = ssl._create_unverified_context()
TYPES = {
    "create": ("POST", "application/json"),
    "update": ("PUT", "application/json"),
    "json": ("PATCH", "application/json-patch+json"),
    "merge": ("PATCH", "application/merge-patch+json"),
    "strategic": ("PATCH", "application/strategic-merge-patch+json"),
    "apply": ("PATCH", "application/apply-patch+yaml"),
}


def ask(method, path, body=None, content="application/json"):
    request = urllib.request.Request(SERVER + path, method=method)
    request.add_header("Authorization", "Bearer " + TOKEN)
    request.add_header("User-Agent", "recorder")
    if body is not None:
        request.add_header("Content-Type", content)
        request.data = json.dumps(body).encode()
    try:
        with urllib.request.urlopen(request, context=TLS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read()
        try:
            return error.code, json.loads(text)
        except ValueError:
            return error.code, text.decode()


def story(kind, collection, name, steps):
    """Runs steps one after the other on one object: (op, manager, body[, {force, subresource}])."""
    out = []
    for op, manager, body, *more in steps:
        more = more[0] if more else {}
        method, content = TYPES[op]
        code, before = ask("GET", f"{collection}/{name}")
        before = before if code == 200 else None
        path = collection if op == "create" else f"{collection}/{name}"
        if more.get("subresource"):
            path += "/" + more["subresource"]
        path += f"?fieldManager={manager}"
        if op == "apply":
            path += f"&force={str(more.get('force', False)).lower()}"
        if more.get("lenient"):
            path += "&fieldValidation=Ignore"
        if op == "update":
            body = merged(before, body)
        code, result = ask(method, path, body, content)
        out.append(dict(op=op, manager=manager, body=body, before=before, code=code, result=result,
                        force=more.get("force", False), subresource=more.get("subresource", "")))
    ask("DELETE", f"{collection}/{name}")
    return dict(kind=kind, steps=out)


def merged(before, body):
    """What a client puts that has read the object and changes some of it; a list changes it whole."""
    if isinstance(before, dict) and isinstance(body, dict):
        out = dict(before)
        for key, value in body.items():
            if value is None:
                out.pop(key, None)
            else:
                out[key] = merged(before.get(key), value)
        return out
    return body


def deployment(spec=None, containers=None, metadata=None, **more):
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", **(metadata or {})}}
    spec = dict(spec or {})
    if containers is not None:
        spec["selector"] = {"matchLabels": {"app": "d"}}
        spec["template"] = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}}
    if spec:
        body["spec"] = spec
    return {**body, **more}


A = {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]}
B = {"name": "b", "image": "b:1"}


def template(**spec):
    return {"spec": {"template": {"spec": spec}}}


def deployments():
    where = "/apis/apps/v1/namespaces/default/deployments"
    yield story("Deployment", where, "d", [
        ("apply", "one", deployment({"replicas": 2}, [A, B], {"labels": {"l": "1"}})),
        ("apply", "one", deployment({"replicas": 2}, [A, B], {"labels": {"l": "1"}})),
        ("apply", "two", deployment({"replicas": 3})),
        ("apply", "two", deployment({"replicas": 3}, None, {"labels": {"l": "2"}})),
        ("apply", "two", deployment({"replicas": 2}, None, {"labels": {"m": "2"}})),
        ("apply", "two", deployment({"replicas": 3}, None, {"labels": {"m": "2"}}), {"force": True}),
        ("apply", "one", deployment({}, [A])),
        ("apply", "two", deployment({}, [{"name": "c", "image": "c:1"}, {"name": "a", "env": [{"name": "Y", "value": "2"}]}])),
        ("apply", "one", deployment({}, [{**A, "ports": [{"containerPort": 80}, {"containerPort": 81, "protocol": "UDP"}]}])),
        ("merge", "three", {"spec": {"replicas": 5}}),
        ("apply", "two", deployment({"replicas": 4})),
        ("strategic", "three", {"metadata": {"labels": {"l": None}}, **template(containers=[{"name": "a", "image": "a:2"}])}),
        ("apply", "one", deployment({}, [A])),
        ("apply", "one", deployment({}, [{"name": "a", "image": "a:2"}])),
        ("merge", "four", {"status": {"replicas": 5}}, {"subresource": "status"}),
        ("merge", "four", {"status": {"replicas": 6}}),
        ("merge", "three", {"metadata": {"managedFields": [{}]}}),
        ("apply", "one", deployment({"replicas": 1})),
        ("merge", "three", {"metadata": {"managedFields": []}}),
        ("merge", "three", {"spec": {"replicas": 7}}),
        ("apply", "one", deployment({}, [{"name": "a", "image": "a:2"}])),
    ])
    yield story("Deployment", where, "d", [
        ("create", "kubectl-create", deployment({"replicas": 2}, [A, B])),
        ("apply", "one", deployment({}, [A, A])),
        ("apply", "one", deployment({"foo": 1}, [{"image": "x"}])),
        ("apply", "one", deployment({"replicas": "x", "paused": 1, "strategy": [], "template": {"spec": {"containers": {}}}})),
        ("update", "edit", {"spec": {"replicas": 3}, "metadata": {"annotations": {"a": "b"}}}),
        ("update", "edit", {"metadata": {"annotations": None}}),
        ("json", "j", [{"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "c", "image": "c:1"}},
                       {"op": "remove", "path": "/spec/template/spec/containers/0"}]),
    ])
    volumes = [{"name": "v", "emptyDir": {}}]
    yield story("Deployment", where, "d", [
        ("create", "c", deployment({"template": {"metadata": {"labels": {"app": "d"}}, "spec": {
            "containers": [A, B, {"name": "c", "image": "c:1"}], "volumes": volumes}}, "selector": {"matchLabels": {"app": "d"}}},
            None, {"finalizers": ["x/a", "x/b"], "labels": {"p": "1", "q": "2"}})),
        ("strategic", "s", template(containers=[{"name": "b", "image": "b:2"}])),
        ("strategic", "s", template(containers=[{"name": "b", "$patch": "delete"}])),
        ("strategic", "s", template(**{"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "a", "image": "a:3"}]})),
        ("strategic", "s", template(containers=[{"name": "z", "image": "z:1"}, {"name": "a", "env": [{"name": "W", "value": "0"}, {"name": "X", "value": "2"}]}])),
        ("strategic", "s", template(containers=[{"name": "a", "$setElementOrder/env": [{"name": "X"}, {"name": "W"}], "env": [{"name": "X", "value": "3"}]}])),
        ("strategic", "s", template(volumes=[{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "cm"}}])),
        ("strategic", "s", {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        ("strategic", "s", {"metadata": {"finalizers": ["x/c", "x/a"]}}),
        ("strategic", "s", {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"], "$setElementOrder/finalizers": ["x/b", "x/c"]}}),
        ("strategic", "s", {"metadata": {"labels": {"$patch": "replace", "r": "3"}}}),
        ("strategic", "s", {"metadata": {"labels": {"$patch": "delete"}}}),
        ("strategic", "s", template(containers=[{"$patch": "replace"}, {"name": "n", "image": "n:1", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"}]}])),
        ("strategic", "s", template(containers=[{"name": "n", "ports": [{"containerPort": 2}], "args": ["x", "y"]}])),
        ("strategic", "s", template(containers=[{"name": "n", "args": ["z"], "ports": None}])),
        ("strategic", "s", template(containers=[{"image": "x"}])),
        ("strategic", "s", {"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
        ("strategic", "s", template(**{"$setElementOrder/containers": [{"name": "n"}], "containers": [{"name": "m", "image": "m"}]})),
        ("json", "s", [{"op": "replace", "path": "/metadata/finalizers", "value": []}]),
    ])


def services():
    where = "/api/v1/namespaces/default/services"

    def service(ports, **more):
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports, **more}}

    yield story("Service", where, "s", [
        ("apply", "one", service([{"name": "a", "port": 80}], selector={"x": "y"})),
        ("apply", "two", service([{"name": "b", "port": 80, "protocol": "UDP"}])),
        ("apply", "two", service([{"name": "c", "port": 80, "protocol": "TCP"}])),
        ("apply", "two", service([{"name": "b", "port": 81, "protocol": "UDP", "targetPort": "web"}], selector={"x": "y"})),
        ("apply", "one", service([{"name": "a", "port": 80}], selector={"z": "y"})),
        ("strategic", "three", {"spec": {"ports": [{"port": 81, "protocol": "UDP", "name": "d"}]}}),
        ("apply", "two", service([])),
    ])


def config_maps():
    where = "/api/v1/namespaces/default/configmaps"

    def config(data=None, **metadata):
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", **metadata}, **({"data": data} if data is not None else {})}

    annotation = "kubectl.kubernetes.io/last-applied-configuration"
    last = json.dumps(config({"a": "1", "b": "2"}, annotations={}))
    yield story("ConfigMap", where, "c", [
        ("create", "kubectl-client-side-apply", config({"a": "1", "b": "2"}, annotations={annotation: last})),
        ("apply", "kubectl", config({"a": "3"})),
        ("apply", "kubectl", config({"a": "3", "b": "4"})),
        ("apply", "other", config({"a": "5"})),
        ("apply", "kubectl", config({})),
        ("apply", "kubectl", config()),
    ])
    yield story("ConfigMap", where, "c", [("create", "m0", config({"k": "v"}))] + [
        ("merge", f"m{n}", {"data": {f"k{n}": "v"}}) for n in range(1, 13)
    ])
    yield story("ConfigMap", where, "c", [
        ("create", "m", config({"k": "v"}, managedFields=[])),
        ("apply", "a", config({"k": "v", "l": "w"}, finalizers=["x/a"],
                              ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u1"}])),
        ("apply", "b", config({}, finalizers=["x/b"],
                              ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u2"}])),
        ("apply", "a", config({}, managedFields=[{"manager": "x"}])),
        ("apply", "a", {**config({}), "apiVersion": "v2"}),
        ("apply", "a", config({"k": "v"}, finalizers=[])),
        ("apply", "b", config({})),
    ])


THING = {"type": "object", "properties": {
    "spec": {"type": "object", "properties": {
        "text": {"type": "string", "maxLength": 5, "pattern": "^[a-z]*$"},
        "count": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "ratio": {"type": "number", "maximum": 1.5, "exclusiveMinimum": True, "minimum": 0},
        "even": {"type": "integer", "multipleOf": 2},
        "mode": {"type": "string", "enum": ["A", "B"]},
        "on": {"type": "boolean"},
        "when": {"type": "string", "format": "date-time"},
        "ip": {"type": "string", "format": "ipv4"},
        "either": {"x-kubernetes-int-or-string": True},
        "maybe": {"type": "string", "nullable": True},
        "named": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "zone"], "maxItems": 3,
                  "items": {"type": "object", "required": ["name"], "properties": {
                      "name": {"type": "string"}, "zone": {"type": "string", "default": "z"}, "value": {"type": "integer"}}}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "atomic": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        "labels": {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "choice": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}},
                   "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}},
        "some": {"type": "object", "properties": {"a": {"type": "integer"}},
                 "anyOf": [{"properties": {"a": {"minimum": 5}}}, {"properties": {"a": {"maximum": 2}}}]},
        "min": {"type": "integer"}, "max": {"type": "integer"},
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed cannot change"}]},
    }, "x-kubernetes-validations": [
        {"rule": "!has(self.min) || !has(self.max) || self.min <= self.max", "message": "min must not be above max"},
        {"rule": "!has(self.min) || self.min != 13", "messageExpression": "'not ' + 'thirteen'", "reason": "FieldValueForbidden", "fieldPath": ".min"},
    ]},
    "status": {"type": "object", "properties": {"phase": {"type": "string"}, "seen": {"type": "integer"}}},
}}
GROUP = "/apis/recorded.example/v1/namespaces/default/things"


def crd(schema, plural="things", kind="Thing"):
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.recorded.example"},
            "spec": {"group": "recorded.example", "scope": "Namespaced",
                     "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": kind + "List"},
                     "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                                   "schema": {"openAPIV3Schema": schema}}]}}


def thing(spec=None, status=None, **metadata):
    out = {"apiVersion": "recorded.example/v1", "kind": "Thing", "metadata": {"name": "t", **metadata}}
    if spec is not None:
        out["spec"] = spec
    if status is not None:
        out["status"] = status
    return out


def things():
    yield story("Thing", GROUP, "t", [
        ("apply", "one", thing({"text": "a", "named": [{"name": "x", "value": 1}, {"name": "y"}], "set": ["p", "q"],
                                "atomic": [{"a": 1}], "whole": {"a": "1"}, "free": {"deep": {"er": [1, {"x": 1}]}}}, {"phase": "no"})),
        ("apply", "two", thing({"named": [{"name": "y", "value": 2}, {"name": "x", "zone": "other"}], "set": ["r", "p"]})),
        ("apply", "two", thing({"atomic": [{"a": 2}], "whole": {"b": "2"}, "free": {"deep": {"er": [2]}}})),
        ("apply", "two", thing({"atomic": [{"a": 2}], "whole": {"b": "2"}, "free": {"deep": {"er": [2], "new": {"x": None}}}}), {"force": True}),
        ("apply", "one", thing({"text": "a", "named": [{"name": "x"}], "set": ["q"]})),
        ("apply", "two", thing({"set": []})),
        ("apply", "one", thing({})),
        ("apply", "one", thing()),
        ("apply", "s", thing(None, {"phase": "up", "seen": 1}), {"subresource": "status"}),
        ("apply", "t", thing(None, {"phase": "down"}), {"subresource": "status"}),
        ("merge", "u", {"spec": {"text": "zz"}, "status": {"phase": "u"}}, {"subresource": "status"}),
        ("merge", "u", {"spec": {"text": "zz", "labels": {"a": "b"}}, "status": {"phase": "v"}}),
        ("merge", "u", {"spec": {"labels": None}}),
        ("json", "u", [{"op": "add", "path": "/spec/named", "value": [{"name": "b"}, {"name": "a"}]}]),
        ("apply", "one", thing({"named": [{"name": "new"}, {"name": "a", "value": 3}]})),
        ("apply", "one", thing({"foo": 1})),
        ("apply", "one", thing({"named": [{"value": 1}, {"name": "n"}, {"name": "n", "zone": "z"}], "set": ["a", "a", None], "count": "x"})),
    ])


def invalid():
    """Objects that are refused, or pruned and defaulted: created, and changed from a good one."""
    specs = [
        {"text": 5, "count": "x", "on": "true", "either": True, "named": {}, "labels": {"a": 1}},
        {"text": "toolong"}, {"text": "A"}, {"count": 0}, {"count": 11}, {"ratio": 2.5}, {"ratio": 0}, {"even": 3}, {"mode": "C"},
        {"when": "now"}, {"when": "2024-01-02T03:04:05Z"}, {"ip": "1.2.3"}, {"either": 5}, {"either": "x"}, {"either": 1.5},
        {"maybe": None, "text": None, "count": None},
        {"named": [{"value": 1}]}, {"named": [{"name": "a"}, {"name": "a"}, {"name": "a", "zone": "z"}]}, {"named": [{"name": str(n)} for n in range(4)]},
        {"set": ["a", "b", "a"]}, {"atomic": []}, {"labels": {"a": "1", "b": "2", "c": "3"}},
        {"choice": {}}, {"choice": {"a": "", "b": ""}}, {"choice": {"a": "", "c": ""}}, {"choice": {"a": ""}}, {"some": {"a": 3}}, {"some": {"a": 5}},
        {"min": 2, "max": 1}, {"min": 13}, {"fixed": "a"},
        {"unknown": 1, "free": {"x": 1}, "atomic": [{"a": 1, "b": 2}]},
        {"count": 1.0}, {"count": 1.5},
    ]
    out = []
    for spec in specs:
        code, result = ask("POST", GROUP + "?fieldValidation=Ignore", thing(spec))
        if code == 201:
            ask("DELETE", GROUP + "/t")
        strict, refused = ask("POST", GROUP + "?fieldValidation=Strict&dryRun=All", thing(spec))
        out.append(dict(spec=spec, code=code, result=result, strict=dict(code=strict, result=refused)))
    good = thing({"fixed": "a"})
    ask("POST", GROUP, good)
    code, result = ask("PATCH", GROUP + "/t", {"spec": {"fixed": "b"}}, "application/merge-patch+json")
    out.append(dict(spec={"fixed": "b"}, old=good["spec"], code=code, result=result, strict=None))
    ask("DELETE", GROUP + "/t")
    return out


def definitions_refused():
    field = lambda schema: {"type": "object", "properties": {"spec": schema}}
    schemas = [
        {}, {"type": "array", "items": {"type": "string"}}, {"type": "object", "nullable": True}, field({}), field({"type": "foo"}), field({"type": "array"}), field({"type": "array", "items": {}}),
        field({"type": "string", "pattern": "("}), field({"type": "object", "additionalProperties": False}),
        field({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"a": {"type": "string"}}}),
        field({"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        field({"type": "object", "oneOf": [{"type": "object"}]}), field({"type": "object", "anyOf": [{"properties": {"a": {"default": 1, "minimum": 1}}}]}),
        field({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
        field({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"], "items": {"type": "object"}}),
        field({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"], "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
        field({"type": "array", "x-kubernetes-list-type": "bag", "items": {"type": "string"}}),
        field({"type": "string", "x-kubernetes-list-type": "set"}),
        field({"type": "object", "x-kubernetes-map-type": "x"}),
        field({"type": "object", "x-kubernetes-embedded-resource": True}), field({"x-kubernetes-int-or-string": True, "x-kubernetes-preserve-unknown-fields": True}),
        field({"type": "object", "$ref": "#/a"}), field({"type": "object", "definitions": {"a": {"type": "string"}}}), field({"type": "null"}),
        {"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}},
        {"type": "object", "properties": {"kind": {"type": "integer"}}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        field({"type": "integer", "x-kubernetes-validations": [{"rule": "self >"}]}),
        field({"type": "integer", "x-kubernetes-validations": [{"rule": ""}]}),
    ]
    out = []
    for at, schema in enumerate(schemas):
        code, result = ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", crd(schema, f"w{at}s", f"W{at}"))
        out.append(dict(schema=schema, code=code, result=result))
    return out


RULES = {"type": "object", "properties": {"spec": {"type": "object", "properties": {
    "named": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
        "type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 9},
            "n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "n only grows"}]}}}},
    "texts": {"type": "object", "maxProperties": 5, "additionalProperties": {
        "type": "string", "maxLength": 9, "x-kubernetes-validations": [{"rule": "self.matches('^[a-z]+$')"}]}},
    "set": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 9},
            "x-kubernetes-validations": [{"rule": "self.all(x, x in oldSelf)", "message": "nothing may be added"}]},
    "either": {"x-kubernetes-int-or-string": True, "maxLength": 9, "x-kubernetes-validations": [{"rule": "self != 0", "message": "not zero"}, {"rule": "type(self) == int ? self < 100 : self.endsWith('%')", "message": "neither small nor a share"}]},
    "size": {"type": "string", "maxLength": 9,
             "x-kubernetes-validations": [{"rule": "quantity(self).isGreaterThan(quantity('1Gi'))", "message": "too small"}]},
    "when": {"type": "string", "format": "date-time", "x-kubernetes-validations": [{"rule": "self > timestamp('2024-01-01T00:00:00Z')", "message": "too early"}]},
    "once": {"type": "string", "maxLength": 9},
    "late": {"type": "string", "maxLength": 9, "x-kubernetes-validations": [
        {"rule": "oldSelf.hasValue() || self == 'first'", "optionalOldSelf": True, "message": "has to begin with first"}]},
    "odd": {"type": "object", "properties": {"x_y": {"type": "integer"}, "x-y": {"type": "integer"}, "x__y": {"type": "integer"}, "f": {"type": "number"}, "d": {"type": "string", "format": "duration"}, "b": {"type": "string", "format": "byte", "maxLength": 9}},
            "x-kubernetes-validations": [{"rule": "!has(self.x_y) || self.x_y == 1"}, {"rule": "!has(self.x__dash__y) || self.x__dash__y == 2"}, {"rule": "!has(self.x__underscores__y) || self.x__underscores__y == 3"},
                                         {"rule": "!has(self.f) || self.f / 2.0 < 1.0"}, {"rule": "!has(self.d) || self.d < duration('1m')"}, {"rule": "!has(self.b) || size(self.b) == 3"}]},
    "part": {"type": "object", "properties": {"a": {"type": "integer"}, "in": {"type": "integer"}}, "x-kubernetes-validations": [
        {"rule": "!has(self.a) || self.a < 10", "fieldPath": ".a", "reason": "FieldValueRequired", "message": "a is too large"},
        {"rule": "!has(self.__in__) || self.__in__ == 1 / 1", "message": "in is one"},
        {"rule": "!has(self.a) || 10 / self.a > 0"}]},
}, "x-kubernetes-validations": [{"rule": "has(oldSelf.once) == has(self.once)", "message": "once is there from the beginning or never"}]}},
    "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('r')", "message": "a name begins with r"}]}


def rules():
    where = "/apis/recorded.example/v1/namespaces/default/ruleds"
    cases = [
        (None, {"named": [{"name": "a", "n": 3}]}),
        ({"named": [{"name": "a", "n": 3}, {"name": "b", "n": 1}]}, {"named": [{"name": "b", "n": 0}, {"name": "a", "n": 4}, {"name": "c", "n": 0}]}),
        (None, {"texts": {"a": "x", "b": "X", "c": "1"}}),
        ({"set": ["a", "b"]}, {"set": ["b"]}), ({"set": ["a", "b"]}, {"set": ["c"]}),
        (None, {"either": 0}), (None, {"either": "0"}), (None, {"either": 200}), (None, {"either": "5%"}),
        (None, {"odd": {"x_y": 2, "x-y": 1, "x__y": 1, "f": 4, "d": "2m", "b": "aGVsbG8="}}), (None, {"odd": {"x_y": 1, "x-y": 2, "x__y": 3, "f": 1, "d": "2s", "b": "aGV5"}}), (None, {"size": "2Gi"}), (None, {"size": "2Mi"}),
        (None, {"when": "2023-01-01T00:00:00Z"}), (None, {"when": "2025-01-01T00:00:00Z"}),
        ({}, {"once": "x"}), ({"once": "x"}, {"once": "y"}),
        (None, {"late": "x"}), (None, {"late": "first"}), ({"late": "first"}, {"late": "x"}),
        (None, {"part": {"a": 10}}), (None, {"part": {"a": 11, "in": 2}}), (None, {"part": {"a": 0}}), (None, {"part": {"in": 1}}),
        ("x", {}),
    ]
    out = []
    for old, new in cases:
        name = "x" if old == "x" else "r"
        old = None if old == "x" else old
        body = {"apiVersion": "recorded.example/v1", "kind": "Ruled", "metadata": {"name": name}}
        if old is not None:
            code, live = ask("POST", where, {**body, "spec": old})
            assert code == 201, live
            code, result = ask("PUT", f"{where}/{name}", {**live, "spec": new})
            ask("DELETE", f"{where}/{name}")
        else:
            code, result = ask("POST", where + "?dryRun=All", {**body, "spec": new})
        out.append(dict(name=name, old=old, new=new, code=code, result=result))
    return out


def write(name, value):
    with open(f"{OUTPUT}/{name}.json", "w") as file:
        if isinstance(value, list):
            lines = (json.dumps(one, sort_keys=True) for one in value)
            file.write("[\n" + ",\n".join(lines) + "\n]\n")
        else:
            lines = (f"{json.dumps(key)}: {json.dumps(one, sort_keys=True)}" for key, one in sorted(value.items()))
            file.write("{\n" + ",\n".join(lines) + "\n}\n")


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
for definition in [crd(THING), crd(RULES, "ruleds", "Ruled")]:
    code, result = ask("POST", CRDS, definition)
    assert code == 201, result
for _ in range(60):
    if ask("GET", GROUP)[0] == 200 and ask("GET", GROUP.replace("things", "ruleds"))[0] == 200:
        break
    time.sleep(0.5)
time.sleep(3)
write("stories", [*deployments(), *services(), *config_maps(), *things()])
write("objects", [dict(schema=THING), *invalid()])
write("schemas", definitions_refused())
write("rules", [dict(schema=RULES), *rules()])
for plural in ["things", "ruleds"]:
    ask("DELETE", f"{CRDS}/{plural}.recorded.example")
