#!/usr/bin/env python3
"""Makes kept.json: what a kube-apiserver makes of the objects of given.yaml, and of those of cloud/tests/manifests that are
of built-in kinds.

usage: record.py https://127.0.0.1:6443 TOKEN
Start the server with --allow-privileged --service-cluster-ip-range=10.96.0.0/16 --disable-admission-plugins=ServiceAccount,\
DefaultTolerationSeconds,Priority,DefaultStorageClass,StorageObjectInUseProtection,TaintNodesByCondition.
Nothing is stored: all requests are dry runs.
The server's certificate is not checked: run the server on this machine. Needs PyYAML.
"""

import json
import pathlib
import ssl
import sys
import urllib.error
import urllib.request

import yaml

HERE = pathlib.Path(__file__).resolve().parent
MANIFESTS = HERE.parents[3] / "cloud/tests/manifests"
# What the server says of the moment and of itself.
OWN = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


def call(path, body=None):
    request = urllib.request.Request(
        sys.argv[1].rstrip("/") + path,
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {sys.argv[2]}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=ssl._create_unverified_context()) as response:
        return json.load(response)


def objects():
    yield from yaml.safe_load_all((HERE / "given.yaml").read_text())
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for given in yaml.safe_load_all(path.read_text()):
            group = (given or {}).get("apiVersion", ".").partition("/")[0]
            if group in ("v1", "apps", "batch") or group.endswith(".k8s.io"):
                given["metadata"].pop("namespace", None)
                yield given


def main():
    pairs, refused = [], []
    for given in objects():
        version = given["apiVersion"]
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        found = next(r for r in call(root)["resources"] if r["kind"] == given["kind"] and "/" not in r["name"])
        where = "/namespaces/default" if found["namespaced"] else ""
        try:
            kept = call(f"{root}{where}/{found['name']}?dryRun=All", given)
        except urllib.error.HTTPError as error:
            refused.append(f"{given['kind']} {given['metadata']['name']}: {error.read().decode()}")
            continue
        for name in OWN:
            kept["metadata"].pop(name, None)
        pairs.append({"given": given, "kept": kept})
    if refused:
        sys.exit("".join(refused))
    lines = ",\n".join(json.dumps(pair, sort_keys=True, ensure_ascii=False) for pair in pairs)
    (HERE / "kept.json").write_text(f"[\n{lines}\n]\n")


main()
