#!/usr/bin/env python3
"""Makes kinds.json and *.json.zst from a running kube-apiserver (see README.md).

usage: generate.py https://127.0.0.1:6443 TOKEN
Needs the `zstd` command. The server's certificate is not checked: run the server on this machine.
"""

import json
import pathlib
import ssl
import subprocess
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
KINDS = {
    "api/v1": [
        "namespaces", "nodes", "pods", "configmaps", "secrets", "services", "endpoints", "persistentvolumes",
        "persistentvolumeclaims", "serviceaccounts", "events",
    ],
    "apis/apiextensions.k8s.io/v1": ["customresourcedefinitions"],
    "apis/apps/v1": ["deployments", "replicasets", "daemonsets", "statefulsets"],
    "apis/authentication.k8s.io/v1": ["tokenreviews", "selfsubjectreviews"],
    "apis/authorization.k8s.io/v1": [
        "localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews",
    ],
    "apis/batch/v1": ["jobs", "cronjobs"],
    "apis/certificates.k8s.io/v1": ["certificatesigningrequests"],
    "apis/coordination.k8s.io/v1": ["leases"],
    "apis/discovery.k8s.io/v1": ["endpointslices"],
    "apis/events.k8s.io/v1": ["events"],
    "apis/rbac.authorization.k8s.io/v1": ["roles", "rolebindings", "clusterroles", "clusterrolebindings"],
    "apis/storage.k8s.io/v1": ["storageclasses"],
}
SUBRESOURCES = ("status", "scale", "approval", "binding", "eviction", "finalize", "token")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def get(path, accept="application/json"):
    context = ssl._create_unverified_context()
    headers = {"Accept": accept, "Authorization": f"Bearer {sys.argv[2]}"}
    request = urllib.request.Request(sys.argv[1].rstrip("/") + path, headers=headers)
    with urllib.request.urlopen(request, context=context) as response:
        return json.load(response)


def references(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner.rsplit("/", 1)[1]
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def kept(path, resources):
    """Whether a path is that of a kind we serve: its list, an object, or a subresource above."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts and parts[0] == "watch":
        return False
    if parts[:2] == ["namespaces", "{namespace}"]:
        parts = parts[2:]
    if not parts or parts[0] not in resources:
        return False
    return parts[1:] in ([], ["{name}"]) or (len(parts) == 3 and parts[2] in SUBRESOURCES)


def only_json(value):
    """Drops the media types we do not speak."""
    if isinstance(value, dict):
        content = value.get("content")
        if isinstance(content, dict):
            spoken = {kind: inner for kind, inner in content.items() if "protobuf" not in kind and "cbor" not in kind}
            value = {**value, "content": spoken}
        return {key: only_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [only_json(inner) for inner in value]
    return value


def reduced(document, resources):
    paths = {path: only_json(item) for path, item in document["paths"].items() if kept(path, resources)}
    schemas = document["components"]["schemas"]
    wanted, todo = set(), list(references(paths))
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo.extend(references(schemas[name]))
    return {
        "openapi": document["openapi"],
        "info": {"title": "Kubernetes", "version": "v1.34.4"},
        "paths": paths,
        "components": {"schemas": {name: schemas[name] for name in sorted(wanted)}},
    }


def kinds():
    for path in ("/api", "/apis"):
        for group in get(path, DISCOVERY)["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                prefix = f"apis/{name}/{version['version']}" if name else f"api/{version['version']}"
                for found in version["resources"]:
                    if found["resource"] in KINDS.get(prefix, ()):
                        yield prefix, name, version["version"], found


def kind(prefix, group, version, found):
    subresources = [sub["subresource"] for sub in found.get("subresources", [])]
    out = {
        "group": group,
        "version": version,
        "resource": found["resource"],
        "kind": found["responseKind"]["kind"],
        "singular": found["singularResource"],
        "namespaced": found["scope"] == "Namespaced",
        "shortNames": found.get("shortNames", []),
        "categories": found.get("categories", []),
        "status": "status" in subresources,
        "scale": "scale" in subresources,
        "verbs": found["verbs"],
        "columns": [],
    }
    if "list" in found["verbs"]:
        out["columns"] = get(f"/{prefix}/{found['resource']}?limit=1", TABLE)["columnDefinitions"]
    return out


def main():
    for old in HERE.glob("api*.json.zst"):
        old.unlink()
    for prefix, resources in KINDS.items():
        document = reduced(get(f"/openapi/v3/{prefix}"), resources)
        text = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        target = HERE / (prefix.replace("/", "_") + ".json.zst")
        subprocess.run(["zstd", "-q", "-19", "--no-check", "-o", str(target)], input=text, check=True)
        print(f"{target.name}: {len(text)} bytes, {target.stat().st_size} compressed")
    found = [kind(*each) for each in kinds()]
    found.sort(key=lambda each: (each["group"], each["resource"]))
    missing = sum(map(len, KINDS.values())) - len(found)
    assert missing == 0, f"{missing} kinds are not served"
    (HERE / "kinds.json").write_text(json.dumps(found, indent=1) + "\n")


main()
